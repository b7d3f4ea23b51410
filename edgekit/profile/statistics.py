"""Percentiles of a few repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["percentile"]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` % of the values do not exceed.

    It is always one of the measured values, never one between two of them (definition 1 of Hyndman and Fan,
    "Sample quantiles in statistical packages", The American Statistician 50(4), 1996).

    Args:
        values: At least one measurement, in any order.
        percent: In (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise ValueError("a percentile needs values, and a percent in (0, 100]")
    # exact for the small counts here: 90 % of 10 is rank 9, not the 10 that 0.9 * 10 in floats might give
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[rank - 1]
