"""Activations that are bounds, and operands that are constants or broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import round_half_away
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.quantization import UINT8_OFFSET, quantized, requantized
from edgekit.compiler.lowering.rules.site import (
    Rule,
    Site,
    full_range,
    in_order,
    real_operand,
    scalar_of,
    shape_of,
)
from edgekit.compiler.lowering.rules.tables import tabulate
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tabulated,
    Value,
)

__all__ = ["apply_bounds", "bounded", "broadcast_ready", "clip", "constant_operand"]


def broadcast_ready(site: Site, value: Real, order: Order) -> int:
    """The operand with leading axes of size 1 up to the rank of `order`, stored in `order`."""
    shape = shape_of(site, value)
    missing = len(order) - len(shape)
    if missing == 0:
        return in_order(site, value, order)
    logical = in_order(site, value, identity_order(len(shape)))
    padded = site.builder.view(logical, (1,) * missing + shape)
    return site.builder.in_order(padded, identity_order(len(order)), order, site.place)


def constant_operand(site: Site, value: Constant | QuantizedConstant) -> Real:
    """A constant as an int8 tensor.

    As it is stored where it has 8 bits and one scale, else quantised symmetrically.
    """
    name = f"{site.name}_constant"
    if isinstance(value, QuantizedConstant) and value.dtype in ("int8", "uint8"):
        offset = UINT8_OFFSET if value.dtype == "uint8" else 0
        scales, zero_points = np.unique(value.scale), np.unique(value.zero_point)
        if scales.size == 1 and zero_points.size == 1:
            quantization = Quantization(float(scales[0]), int(zero_points[0]) - offset)
            data = (value.stored - offset).astype(np.int8)
            tensor = site.builder.tensor(name, data.shape, "int8", quantization, data=data)
            return Real(tensor, identity_order(data.ndim), quantization)
    reals = value.reals() if isinstance(value, QuantizedConstant) else value.array.astype(np.float64)
    largest = float(np.abs(reals).max(initial=0.0))
    quantization = Quantization(float(np.float32(largest / 127.0)) if largest > 0 else 1.0, 0)
    data = np.clip(round_half_away(reals / quantization.scale), -128, 127).astype(np.int8)
    tensor = site.builder.tensor(name, data.shape, "int8", quantization, data=data)
    return Real(tensor, identity_order(data.ndim), quantization)


def bounded(low: float, high: float) -> Rule:
    def rule(site: Site, args: Sequence[Value]) -> Value:
        return apply_bounds(site, args[0], low, high)

    return rule


def apply_bounds(site: Site, value: Value, low: float, high: float) -> Value:
    if isinstance(value, Stored):
        return _clip_stored(site, value, low, high)
    if isinstance(value, Float):
        return quantized(site, value).clamped(low, high)
    table = tabulate(site, value)
    if table is not None:
        results = np.clip(table.results, np.float32(low), np.float32(high))
        table = Tabulated(table.source, results, site.shape, site.place)
    if isinstance(value, Tabulated) and table is not None:
        return table
    if isinstance(value, Pending):
        pending = value
    else:
        real = real_operand(value, "its input", dtypes=("int8", "int16"))
        pending = requantized(site, real, quotient=np.float32, dtype=real.dtype)
    return replace(pending.clamped(low, high), table=table)


def _clip_stored(site: Site, value: Stored, low: float, high: float) -> Value:
    """A clip of stored integers; `simplify` merges it into the operator that made them where it can."""
    source = site.builder.tensors[value.tensor]
    whole = full_range(source.dtype)
    clamp = op.Clamp(int(max(low - value.offset, whole.low)), int(min(high - value.offset, whole.high)))
    if clamp == whole:
        return value
    operator = op.Requantize(0, 0, None, clamp)
    tensor = site.builder.step(
        operator, (value.tensor,), site.place, site.name, source.shape, source.quantization, source.dtype
    )
    return Stored(tensor, value.order, value.offset)


def clip(site: Site, args: Sequence[Value]) -> Value:
    low, high = (scalar_of(bound) for bound in site.call.args[1:3])
    return apply_bounds(site, args[0], low, high)
