"""What a deployment costs on its board: repeated runs, their percentiles, and a table of operators."""

from __future__ import annotations

from edgekit.profile.conditions import Health, under_conditions
from edgekit.profile.measure import OPERATOR_SUM_TOLERANCE, Meter, default_runs, measure
from edgekit.profile.statistics import percentile
from edgekit.profile.units import TickUnit, tick_unit

__all__ = [
    "OPERATOR_SUM_TOLERANCE",
    "Health",
    "Meter",
    "TickUnit",
    "default_runs",
    "measure",
    "percentile",
    "tick_unit",
    "under_conditions",
]
