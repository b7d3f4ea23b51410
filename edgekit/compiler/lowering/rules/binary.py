"""Operators of two tensors, element by element, with numpy's broadcasting.

Each first asks whether its operands make one table (`tables.combined`), then whether one of them is a
constant that another operator absorbs; what is left are two int8 tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op, tables
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.channels import channel_factors
from edgekit.compiler.lowering.rules.elementwise import apply_bounds, broadcast_ready, constant_operand
from edgekit.compiler.lowering.rules.site import (
    Rule,
    Site,
    real_operand,
    rescale_of,
    same_quantization,
    shape_of,
)
from edgekit.compiler.lowering.rules.tables import (
    Fixed,
    combined,
    reals_of_constant,
    scalar_constant,
    sloped,
    unary,
)
from edgekit.compiler.lowering.values import (
    Constant,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Value,
)

__all__ = ["add", "divide", "elementwise", "extremum", "multiply", "power", "prelu", "square", "subtract"]

ADD_LEFT_SHIFT = 20
SQUARE_LEFT_SHIFT = 7


# --- what all share --------------------------------------------------------------------------------------


def elementwise(function: Callable[..., Any]) -> Rule:
    """An operator that has an integer form only where its operands make one table."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        result = combined(site, args, function)
        if result is None:
            raise NoIntegerForm("it has no integer form for two tensors")
        return result

    return rule


def _centred(value: Value) -> tuple[NDArray[np.int64], float] | None:
    """Stored values less the zero point, and the scale: all 256 of an int8 tensor, or an int8 constant."""
    if isinstance(value, Real) and value.dtype == "int8":
        return tables.stored_values() - value.quantization.zero_point, value.quantization.scale
    if isinstance(value, QuantizedConstant) and value.dtype == "int8" and value.stored.size == 1:
        return (value.stored - value.zero_point).reshape(()), float(value.scale.reshape(()))
    return None


def _fixed(
    args: Sequence[Value],
    function: Callable[[NDArray[np.int64], NDArray[np.int64], tuple[float, float], Quantization], Any],
) -> Fixed | None:
    """The table by LiteRT's fixed point, where both operands are stored as int8."""
    first, second = (_centred(value) for value in args)
    if first is None or second is None:
        return None
    scales = (first[1], second[1])
    return lambda output: np.asarray(function(first[0], second[0], scales, output))


def _operands(site: Site, args: Sequence[Value]) -> tuple[Real, Real]:
    """Both operands as int8 tensors; a constant becomes one."""
    if all(isinstance(value, (Constant, QuantizedConstant)) for value in args):
        raise NoIntegerForm("both of its inputs are constants")
    first, second = (
        constant_operand(site, value)
        if isinstance(value, (Constant, QuantizedConstant))
        else real_operand(value, f"its {name} input")
        for value, name in zip(args, ("first", "second"), strict=True)
    )
    return first, second


def _pending(
    site: Site, operands: tuple[Real, Real], operator: Callable[[Quantization, op.Clamp], op.Operator]
) -> Pending:
    """`operator` of both, stored as the operand is that has the result's shape."""
    rank = len(site.shape)
    whole = [value for value in operands if shape_of(site, value) == site.shape]
    order = whole[0].order if whole else identity_order(rank)

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        sources = tuple(broadcast_ready(site, value, order) for value in operands)
        tensor = site.builder.step(
            operator(quantization, clamp),
            sources,
            site.place,
            site.name,
            site.physical(order),
            quantization,
        )
        return tensor, order

    return Pending(emit, site.shape, site.place)


def _zero_points(operands: tuple[Real, Real]) -> tuple[int, int]:
    return operands[0].quantization.zero_point, operands[1].quantization.zero_point


def _scales(operands: tuple[Real, Real]) -> tuple[float, float]:
    return operands[0].quantization.scale, operands[1].quantization.scale


# --- addition and subtraction ----------------------------------------------------------------------------


def add(site: Site, args: Sequence[Value]) -> Value:
    result = combined(site, args, np.add, _fixed(args, tables.fixed_add))
    if result is not None:
        return result
    for pending, bias in (args, args[::-1]):
        if isinstance(pending, Pending) and isinstance(bias, (Constant, QuantizedConstant)):
            return _biased(pending, bias)
    return _sum(site, _operands(site, args), op.Add)


def subtract(site: Site, args: Sequence[Value]) -> Value:
    def difference(*operands: Any) -> NDArray[np.int8]:
        return tables.fixed_add(*operands, sign=-1)

    result = combined(site, args, np.subtract, _fixed(args, difference))
    if result is not None:
        return result
    pending, bias = args
    if isinstance(pending, Pending) and isinstance(bias, (Constant, QuantizedConstant)):
        return _biased(pending, Constant(np.negative(reals_of_constant(bias).astype(np.float64))))
    operands = _operands(site, args)
    return replace(_sum(site, operands, op.Subtract), squared=_squared_difference(site, operands))


def _biased(pending: Pending, bias: Constant | QuantizedConstant) -> Value:
    if pending.add_bias is None or pending.moves:
        raise NoIntegerForm("a constant added to a result that has not been quantised")
    return pending.add_bias(bias)


def _sum(site: Site, operands: tuple[Real, Real], kind: type[op.Add] | type[op.Subtract]) -> Pending:
    scales = _scales(operands)
    twice_max = 2.0 * max(scales)

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        return kind(
            _zero_points(operands),
            (rescale_of(scales[0] / twice_max), rescale_of(scales[1] / twice_max)),
            quantization.zero_point,
            rescale_of(twice_max / ((1 << ADD_LEFT_SHIFT) * quantization.scale)),
            clamp,
        )

    return _pending(site, operands, operator)


def _squared_difference(site: Site, operands: tuple[Real, Real]) -> Pending:
    """`squared_difference.cc: Prepare`"""
    scales = _scales(operands)
    twice_max = 2.0 * max(scales)

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        return op.SquaredDifference(
            _zero_points(operands),
            (rescale_of(scales[0] / twice_max), rescale_of(scales[1] / twice_max)),
            quantization.zero_point,
            rescale_of(twice_max**2 / ((1 << 2 * SQUARE_LEFT_SHIFT) * quantization.scale)),
            clamp,
        )

    return _pending(site, operands, operator)


# --- multiplication and division -------------------------------------------------------------------------


def square(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    if isinstance(value, Pending) and value.squared is not None:
        return value.squared
    return unary(np.square)(site, args)


def multiply(site: Site, args: Sequence[Value]) -> Value:
    if args[0] is args[1] and isinstance(args[0], Pending):
        return square(site, args)
    for value, factor in (args, args[::-1]):
        if isinstance(value, Real) and isinstance(factor, (Constant, QuantizedConstant)):
            scaled = _rescaled(value, factor, reals_of_constant(factor))
            if scaled is not None:
                return scaled
    result = combined(site, args, np.multiply, _fixed(args, tables.fixed_multiply))
    if result is not None:
        return result
    for value, factor in (args, args[::-1]):
        if isinstance(value, Real) and _is_precise(factor):
            return channel_factors(site, value, reals_of_constant(factor))  # type: ignore[arg-type]
    operands = _operands(site, args)

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        first, second = (np.float32(scale) for scale in _scales(operands))
        rescale = rescale_of(float(first * second / np.float32(quantization.scale)))
        return op.Multiply(_zero_points(operands), rescale, quantization.zero_point, clamp)

    return _pending(site, operands, operator)


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
    result = combined(site, args, np.divide, _fixed(args, tables.fixed_divide))
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


# --- the rest --------------------------------------------------------------------------------------------


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
        operands = _operands(site, args)
        kind = op.Minimum if upper else op.Maximum

        def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
            first, second = (
                None
                if same_quantization(value.quantization, quantization)
                else rescale_of(value.quantization.scale / quantization.scale)
                for value in operands
            )
            return kind(_zero_points(operands), (first, second), quantization.zero_point, clamp)

        return _pending(site, operands, operator)

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
        scale, slope = (np.float32(each) for each in _scales(operands))
        after = np.float32(quantization.scale)
        return op.PRelu(
            _zero_points(operands),
            (rescale_of(float(scale / after)), rescale_of(float(scale * slope / after))),
            quantization.zero_point,
            clamp,
        )

    return _pending(site, operands, operator)


def _reshaped(value: Constant | QuantizedConstant, shape: tuple[int, ...]) -> Constant | QuantizedConstant:
    if isinstance(value, QuantizedConstant):
        return value.map(lambda array: array.reshape(shape))
    return Constant(value.array.reshape(shape))
