"""Addition, activations that are bounds, and arithmetic of constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import round_half_away
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.quantization import quantized, requantized
from edgekit.compiler.lowering.rules.site import (
    Rule,
    Site,
    full_range,
    in_order,
    real_operand,
    rescale_of,
    scalar_of,
    shape_of,
)
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Value,
)

__all__ = ["add", "bounded", "clip", "constant_arithmetic", "constant_operand", "multiply", "one_sided"]

ADD_LEFT_SHIFT = 20


def add(site: Site, args: Sequence[Value]) -> Value:
    first, second = args
    if all(isinstance(value, (Constant, QuantizedConstant)) for value in args):
        return constant_arithmetic(np.add)(site, args)
    for pending, bias in ((first, second), (second, first)):
        if isinstance(pending, Pending) and isinstance(bias, (Constant, QuantizedConstant)):
            if pending.add_bias is None or pending.moves:
                raise NoIntegerForm("a constant added to a result that has not been quantised")
            return pending.add_bias(bias)
    if isinstance(first, (Constant, QuantizedConstant)):
        first, second = second, first
    left = real_operand(first, "its first input")
    if isinstance(second, (Constant, QuantizedConstant)):
        right = constant_operand(site, second)
    else:
        right = real_operand(second, "its second input")
    rank = len(site.shape)
    order = left.order if len(left.order) == rank else identity_order(rank)

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        scales = (left.quantization.scale, right.quantization.scale)
        twice_max = 2.0 * max(scales)
        operator = op.Add(
            (left.quantization.zero_point, right.quantization.zero_point),
            (rescale_of(scales[0] / twice_max), rescale_of(scales[1] / twice_max)),
            quantization.zero_point,
            rescale_of(twice_max / ((1 << ADD_LEFT_SHIFT) * quantization.scale)),
            clamp,
        )
        sources = tuple(_broadcast_ready(site, value, order) for value in (left, right))
        tensor = site.builder.step(
            operator, sources, site.place, site.name, site.physical(order), quantization
        )
        return tensor, order

    return Pending(emit, site.shape, site.place)


def _broadcast_ready(site: Site, value: Real, order: Order) -> int:
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

    As it is stored where it is int8 with one scale, else quantised symmetrically.
    """
    name = f"{site.name}_constant"
    if isinstance(value, QuantizedConstant) and value.dtype == "int8":
        scales, zero_points = np.unique(value.scale), np.unique(value.zero_point)
        if scales.size == 1 and zero_points.size == 1:
            quantization = Quantization(float(scales[0]), int(zero_points[0]))
            data = value.stored.astype(np.int8)
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
        return _apply_bounds(site, args[0], low, high)

    return rule


def _apply_bounds(site: Site, value: Value, low: float, high: float) -> Value:
    if isinstance(value, Pending):
        return value.clamped(low, high)
    if isinstance(value, Stored):
        return _clip_stored(site, value, low, high)
    if isinstance(value, Float):
        return quantized(site, value).clamped(low, high)
    return requantized(site, real_operand(value, "its input"), quotient=np.float32).clamped(low, high)


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
    return _apply_bounds(site, args[0], low, high)


def one_sided(upper: bool) -> Rule:
    """maximum(x, c) and minimum(x, c) with a constant c."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        value, bound = args
        if isinstance(value, (Constant, QuantizedConstant)):
            value, bound = bound, value
        if not isinstance(bound, Constant):
            raise NoIntegerForm("minimum or maximum of two activations")
        limit = scalar_of(bound)
        return _apply_bounds(site, value, -math.inf if upper else limit, limit if upper else math.inf)

    return rule


def constant_arithmetic(function: Callable[..., Any]) -> Rule:
    """Operators that are folded when all operands are constants and refused otherwise."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        arrays = []
        for value in args:
            if isinstance(value, Constant):
                arrays.append(value.array)
            elif isinstance(value, QuantizedConstant):
                arrays.append(value.reals().astype(np.float32))
            else:
                raise NoIntegerForm("it has no integer form yet")
        return Constant(np.asarray(function(*arrays)))

    return rule


def multiply(site: Site, args: Sequence[Value]) -> Value:
    """A product of constants; or an activation times a positive number, which only changes its scale."""
    for value, factor in (args, args[::-1]):
        if not isinstance(value, Real) or not isinstance(factor, (Constant, QuantizedConstant)):
            continue
        reals = factor.reals() if isinstance(factor, QuantizedConstant) else factor.array
        if reals.size == 1 and reals.ndim <= len(value.order) and 0 < float(reals.reshape(())) < math.inf:
            scale = value.quantization.scale * float(reals.reshape(()))
            return Real(value.tensor, value.order, Quantization(scale, value.quantization.zero_point))
    return constant_arithmetic(np.multiply)(site, args)
