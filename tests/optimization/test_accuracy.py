"""Drops and their intervals, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.optimization.accuracy import accuracy_interval, paired_drop


def test_a_drop_is_that_of_the_same_rows_with_mcnemars_interval() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 4000)
    before = np.where(rng.random(4000) < 0.93, y, (y + 1) % 10)
    after = np.where(rng.random(4000) < 0.97, before, (y + rng.integers(0, 10, 4000)) % 10)
    found = paired_drop(before, after, y)
    lost = int(((before == y) & (after != y)).sum())
    won = int(((before != y) & (after == y)).sum())
    assert found.points == pytest.approx(100 * (lost - won) / 4000)
    # Wald's interval of the difference of two correlated proportions
    half = 1.96 * math.sqrt(lost + won - (lost - won) ** 2 / 4000) / 4000
    assert found.high - found.points == pytest.approx(100 * half, rel=1e-3)
    assert found.points - found.low == pytest.approx(100 * half, rel=1e-3)
    assert (found.before, found.after) == (float((before == y).mean()), float((after == y).mean()))


def test_alike_answers_lose_nothing_as_far_as_so_many_rows_can_tell() -> None:
    for rows in (2, 100, 10_000):
        y = np.arange(rows)
        same = paired_drop(y, y, y)
        assert same.points == 0.0
        assert same.low == -same.high
        # with a share of rows that differ at the interval's end, none is seen once in 40 times
        assert (1.0 - same.high / 100.0) ** rows == pytest.approx(0.025)


def test_one_row_says_nothing() -> None:
    y = np.arange(10)
    assert math.isinf(paired_drop(y[:1], y[:1] + 1, y[:1]).high)


@pytest.mark.parametrize(("accuracy", "rows"), [(0.9, 100), (0.5, 10), (1.0, 50), (0.0, 7)])
def test_the_interval_of_an_accuracy_is_wilsons(accuracy: float, rows: int) -> None:
    low, high = accuracy_interval(accuracy, rows)
    # its ends are where the normal test of the share just does not reject
    for end in (low, high):
        if 0.0 < end < 1.0:
            assert abs(accuracy - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / rows), rel=1e-6)
    assert 0.0 <= low <= accuracy <= high <= 1.0
