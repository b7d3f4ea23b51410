"""Products, quotients, powers and extrema of two tensors, element by element, with numpy's broadcasting.

Each first asks whether its operands make one table (`tables.combined`), then whether one of them is a
constant that another operator absorbs; what is left are two int8 tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op, tables
from edgekit.compiler.lowering.rules.channels import channel_factors
from edgekit.compiler.lowering.rules.elementwise import apply_bounds, constant_operand
from edgekit.compiler.lowering.rules.operands import (
    elementwise,
    fixed_of,
    operands_of,
    pending_of,
    scales_of,
    zero_points,
)
from edgekit.compiler.lowering.rules.site import Rule, Site, real_operand, rescale_of, same_quantization
from edgekit.compiler.lowering.rules.sums import square
from edgekit.compiler.lowering.rules.tables import combined, reals_of_constant, scalar_constant, sloped
from edgekit.compiler.lowering.values import Constant, NoIntegerForm, Pending, QuantizedConstant, Real, Value

__all__ = ["divide", "extremum", "multiply", "power", "prelu"]


def multiply(site: Site, args: Sequence[Value]) -> Value:
    if args[0] is args[1] and isinstance(args[0], Pending):
        return square(site, args)
    for value, factor in (args, args[::-1]):
        if isinstance(value, Real) and isinstance(factor, (Constant, QuantizedConstant)):
            scaled = _rescaled(value, factor, reals_of_constant(factor))
            if scaled is not None:
                return scaled
    result = combined(site, args, np.multiply, fixed_of(args, tables.fixed_multiply))
    if result is not None:
        return result
    for value, factor in (args, args[::-1]):
        if isinstance(value, Real) and _is_precise(factor):
            return channel_factors(site, value, reals_of_constant(factor))  # type: ignore[arg-type]
    operands = operands_of(site, args)

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        first, second = (np.float32(scale) for scale in scales_of(operands))
        rescale = rescale_of(float(first * second / np.float32(quantization.scale)))
        return op.Multiply(zero_points(operands), rescale, quantization.zero_point, clamp)

    return pending_of(site, operands, operator)


def divide(site: Site, args: Sequence[Value]) -> Value:
    """By a constant, or of a number by a function of one tensor."""
    value, divisor = args
    if isinstance(value, Real) and isinstance(divisor, (Constant, QuantizedConstant)):
        with np.errstate(divide="ignore"):
            reciprocal = np.asarray(np.float32(1.0) / reals_of_constant(divisor).astype(np.float32))
        scaled = _rescaled(value, divisor, reciprocal)
        if scaled is not None:
            return scaled
        if reciprocal.size > 1 and np.isfinite(reciprocal).all():
            return channel_factors(site, value, reciprocal)
    result = combined(site, args, np.divide, fixed_of(args, tables.fixed_divide))
    if result is None:
        raise NoIntegerForm("a quotient of two tensors")
    return result


def _rescaled(
    value: Real, constant: Constant | QuantizedConstant, factors: NDArray[np.generic]
) -> Real | None:
    """An activation times a positive number is the same integers at another scale.

    Not times an int8 constant, whose product LiteRT rounds in its own way.
    """
    if isinstance(constant, QuantizedConstant) and constant.dtype == "int8":
        return None
    if factors.size != 1 or factors.ndim > len(value.order):
        return None
    factor = float(factors.reshape(()))
    if not 0 < factor < math.inf:
        return None
    scale = value.quantization.scale * factor
    return Real(value.tensor, value.order, Quantization(scale, value.quantization.zero_point), value.dtype)


def _is_precise(value: Value) -> bool:
    """A constant of several numbers that is not int8 with one scale: rounding it to that would lose of it."""
    if isinstance(value, QuantizedConstant) and value.dtype == "int8":
        return value.scale.size > 1 and bool((value.scale != value.scale.flat[0]).any())
    return isinstance(value, (Constant, QuantizedConstant))


def power(site: Site, args: Sequence[Value]) -> Value:
    def function(base: NDArray[Any], exponent: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(np.power(base.astype(np.float64), exponent.astype(np.float64))).astype(np.float32)

    number = scalar_constant(args[1], len(site.shape))
    if isinstance(args[0], Pending) and number is not None and float(number) == 2.0:
        return square(site, args)
    return elementwise(function)(site, args)


def extremum(*, upper: bool) -> Rule:
    """minimum (upper) and maximum: with one number a bound, else of two tensors."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        for value, bound in (args, args[::-1]):
            number = scalar_constant(bound, len(site.shape))
            if number is not None and not isinstance(value, (Constant, QuantizedConstant)):
                limit = float(number)
                return apply_bounds(site, value, -math.inf if upper else limit, limit if upper else math.inf)
        result = combined(site, args, np.minimum if upper else np.maximum)
        if result is not None:
            return result
        operands = operands_of(site, args)
        kind = op.Minimum if upper else op.Maximum

        def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
            first, second = (
                None
                if same_quantization(value.quantization, quantization)
                else rescale_of(value.quantization.scale / quantization.scale)
                for value in operands
            )
            return kind(zero_points(operands), (first, second), quantization.zero_point, clamp)

        return pending_of(site, operands, operator)

    return rule


def prelu(site: Site, args: Sequence[Value]) -> Value:
    """The slopes are constants, one or one a channel."""
    value, slopes = args
    if not isinstance(slopes, (Constant, QuantizedConstant)):
        raise NoIntegerForm("slopes that are computed")
    data = real_operand(value, "its input")
    rank = len(site.shape)
    if reals_of_constant(slopes).size == 1 and not (
        isinstance(slopes, QuantizedConstant) and slopes.dtype == "int8"
    ):
        return sloped(site, data, float(reals_of_constant(slopes).reshape(())))
    shape = [1] * rank
    shape[int(site.attrs.axis) % rank] = reals_of_constant(slopes).size
    operands = (data, constant_operand(site, _reshaped(slopes, tuple(shape))))

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        scale, slope = (np.float32(each) for each in scales_of(operands))
        after = np.float32(quantization.scale)
        return op.PRelu(
            zero_points(operands),
            (rescale_of(float(scale / after)), rescale_of(float(scale * slope / after))),
            quantization.zero_point,
            clamp,
        )

    return pending_of(site, operands, operator)


def _reshaped(value: Constant | QuantizedConstant, shape: tuple[int, ...]) -> Constant | QuantizedConstant:
    if isinstance(value, QuantizedConstant):
        return value.map(lambda array: array.reshape(shape))
    return Constant(value.array.reshape(shape))
