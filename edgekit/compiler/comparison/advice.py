"""What would help a layer that loses much, from what is known of its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.compiler import operators as op
from edgekit.layer_errors import Advice

__all__ = ["Evidence", "advise"]

GOOD_DB = 30.0
"""A layer with more loses little that an accuracy shows; eight bits over the whole range give 40 to 50."""
_POOR_DB = 15.0
_SATURATED = 0.001
_OUTLIERS = 3.0
_UNUSED = 2.0
_UNEVEN = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What was seen of a quantised tensor. Magnitudes are in real units."""

    operator: op.Operator
    alone_db: float | None
    saturated: float
    largest: float
    usual: float
    """The 99.9th percentile of the magnitudes."""
    reach: float | None
    """The largest magnitude that the tensor can hold."""


def advise(evidence: Evidence) -> tuple[Advice, ...]:
    """What would help, what is cheapest first. Nothing for a layer that loses little."""
    if evidence.alone_db is None or evidence.alone_db >= GOOD_DB:
        return ()
    found = []
    if evidence.saturated > _SATURATED:
        found.append(
            Advice(
                "wider_range",
                f"{evidence.saturated:.1%} of its values are beyond its range: calibrate with more rows, or "
                "with --calibration-method minmax",
            )
        )
    elif evidence.reach and evidence.usual and evidence.largest > _OUTLIERS * evidence.usual:
        found.append(
            Advice(
                "percentile",
                f"few values reach {evidence.largest / evidence.usual:.1f} times what 99.9% stay under: "
                "--calibration-method percentile (or mse) spends the range on the many",
            )
        )
    elif evidence.reach and evidence.largest and evidence.reach > _UNUSED * evidence.largest:
        found.append(
            Advice(
                "percentile",
                f"its range is {evidence.reach / evidence.largest:.1f} times what these rows use: calibrate "
                "on rows like these, or with --calibration-method percentile",
            )
        )
    spread = _channel_spread(evidence.operator)
    if spread is not None and spread > _UNEVEN:
        found.append(
            Advice(
                "per_channel",
                f"one scale serves all channels of its weights, whose ranges differ {spread:.0f}-fold: "
                "quantise the weights per channel",
            )
        )
    if isinstance(evidence.operator, (op.Conv2D, op.DepthwiseConv2D, op.Dense)):
        found.append(Advice("int16x8", "--precision int16x8 keeps its activations in 16 bits"))
    found.append(Advice("qat", "fine-tune with quantisation in the loop (QAT)"))
    if evidence.alone_db < _POOR_DB:
        found.append(Advice("float", "--precision float32 leaves the model unquantised"))
    return tuple(found)


def _channel_spread(operator: op.Operator) -> float | None:
    """How much the widest channel's weights are wider than the narrowest's, where one scale serves all.

    None for operators without weights, and where each channel has its own scale.
    """
    if isinstance(operator, op.Conv2D):
        weights, axis = operator.weights, 0
        multipliers: tuple[Any, ...] = (operator.multipliers, operator.shifts)
    elif isinstance(operator, op.DepthwiseConv2D):
        weights, axis, multipliers = operator.weights, 2, (operator.multipliers, operator.shifts)
    elif isinstance(operator, op.Dense):
        wide: Any = operator.multipliers
        weights, axis, multipliers = operator.weights, 0, (wide.high, wide.low, wide.shift)
    else:
        return None
    if weights.shape[axis] < 2 or any(np.ptp(each.astype(np.int64)) for each in multipliers):
        return None
    others = tuple(each for each in range(weights.ndim) if each != axis)
    largest = np.abs(weights.astype(np.int32)).max(axis=others)
    used = largest[largest > 0]
    return float(used.max() / used.min()) if used.size else None
