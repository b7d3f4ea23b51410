"""Costs between measured points."""

from __future__ import annotations

import pytest

from edgekit.search.interpolate import Surface


def cost(inputs: int, outputs: int) -> float:
    """A convolution: something fixed, something a channel, something a pair."""
    return 500.0 + 40.0 * inputs + 90.0 * outputs + 17.0 * inputs * outputs


GRID = {(i, o): cost(i, o) for i in (8, 16, 32) for o in (8, 24, 48)}


def test_a_bilinear_cost_is_met_everywhere() -> None:
    surface = Surface(GRID)
    for point in ((12, 20), (8, 40), (30, 46), (4, 4), (40, 64)):
        found = surface.estimate(point)
        assert found.cost == pytest.approx(cost(*point), rel=1e-3)
        assert not found.measured
        assert found.low <= found.cost <= found.high


def test_measured_points_are_what_was_measured() -> None:
    found = Surface({**GRID, (16, 24): 12345.0}).estimate((16, 24))
    assert (found.cost, found.low, found.high, found.measured) == (12345.0, 12345.0, 12345.0, True)


def test_the_interval_tells_of_a_rough_surface() -> None:
    """Blocks of eight: a step function is no plane, and the interval says by how much."""
    points = {(i, o): float(-(-i // 8) * -(-o // 8)) for i in (4, 8, 12, 16, 20, 24) for o in (8, 16, 24)}
    rough = Surface(points).estimate((14, 16))
    smooth = Surface(GRID).estimate((12, 20))
    assert (rough.high - rough.low) / rough.cost > 10 * (smooth.high - smooth.low) / smooth.cost
    assert rough.low <= 4.0 <= rough.high


def test_one_axis_and_few_points() -> None:
    line = Surface({(8,): 80.0, (16,): 160.0, (32,): 320.0, (64,): 640.0})
    assert line.estimate((24,)).cost == pytest.approx(240.0, rel=1e-6)
    few = Surface({(8,): 80.0}).estimate((16,))
    assert few.high - few.low >= few.cost * 0.9
    with pytest.raises(ValueError, match="measured point"):
        Surface({})
