"""Tuning: the variant of each operator that a board itself says is the fastest."""

from __future__ import annotations

from edgekit.tuning.costs import VariantCost
from edgekit.tuning.tune import TunedOperator, Tuning, tune_model, tune_program

__all__ = ["TunedOperator", "Tuning", "VariantCost", "tune_model", "tune_program"]
