"""What a deployment costs on its board: repeated runs, their percentiles, and a table of operators."""

from __future__ import annotations

from edgekit.profile.measure import DEFAULT_RUNS, OPERATOR_SUM_TOLERANCE, Meter, measure
from edgekit.profile.statistics import percentile
from edgekit.profile.units import TickUnit, tick_unit

__all__ = [
    "DEFAULT_RUNS",
    "OPERATOR_SUM_TOLERANCE",
    "Meter",
    "TickUnit",
    "measure",
    "percentile",
    "tick_unit",
]
