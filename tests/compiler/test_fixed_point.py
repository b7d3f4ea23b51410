"""Multipliers against their definition in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgekit.compiler.fixed_point import quantize_multiplier, quantize_multipliers, round_half_away
from edgekit.compiler.softmax import exponential_table


@given(st.floats(min_value=1e-9, max_value=2.0**29, allow_nan=False))
def test_multiplier_is_within_half_a_unit_of_the_real(real: float) -> None:
    multiplier, shift = quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    unit = Fraction(2) ** (shift - 31)
    assert abs(Fraction(real) - multiplier * unit) <= unit / 2


@pytest.mark.parametrize("real", [0.0, 1e-30])
def test_negligible_multipliers_are_zero(real: float) -> None:
    assert quantize_multiplier(real) == (0, 0)


@pytest.mark.parametrize("real", [-1.0, float("nan"), float("inf"), 2.0**31])
def test_impossible_multipliers_are_refused(real: float) -> None:
    with pytest.raises(ValueError, match="multiplier"):
        quantize_multiplier(real)


def test_arrays_agree_with_scalars() -> None:
    reals = [0.25, 0.7, 3.0]
    multipliers, shifts = quantize_multipliers(reals)
    assert [(int(m), int(s)) for m, s in zip(multipliers, shifts, strict=True)] == [
        quantize_multiplier(real) for real in reals
    ]


@given(st.integers(-1000, 1000))
def test_ties_go_away_from_zero(value: int) -> None:
    tie = np.asarray(value + 0.5 if value >= 0 else value - 0.5)
    assert round_half_away(tie) == (value + 1 if value >= 0 else value - 1)


@given(st.floats(min_value=1e-4, max_value=2.0))
def test_exponentials_are_close_to_the_reals(scale: float) -> None:
    table = exponential_table(scale).astype(np.float64) / 2**31
    exact = np.exp(-np.arange(256) * scale)
    assert np.abs(table - exact).max() < 5e-7  # gemmlowp: an order-4 polynomial
    assert (np.diff(table) <= 0).all()
