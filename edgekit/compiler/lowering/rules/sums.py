"""Sums, differences and squared differences of two tensors; biases; squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op, tables
from edgekit.compiler.lowering.rules.operands import fixed_of, operands_of, pending_of, scales_of, zero_points
from edgekit.compiler.lowering.rules.site import Site, rescale_of
from edgekit.compiler.lowering.rules.tables import combined, reals_of_constant, unary
from edgekit.compiler.lowering.values import Constant, NoIntegerForm, Pending, QuantizedConstant, Real, Value

__all__ = ["add", "square", "subtract"]

ADD_LEFT_SHIFT = 20
SQUARE_LEFT_SHIFT = 7


def add(site: Site, args: Sequence[Value]) -> Value:
    result = combined(site, args, np.add, fixed_of(args, tables.fixed_add))
    if result is not None:
        return result
    for pending, bias in (args, args[::-1]):
        if isinstance(pending, Pending) and isinstance(bias, (Constant, QuantizedConstant)):
            return _biased(pending, bias)
    return _sum(site, operands_of(site, args), op.Add)


def subtract(site: Site, args: Sequence[Value]) -> Value:
    def difference(*operands: Any) -> NDArray[np.int8]:
        return tables.fixed_add(*operands, sign=-1)

    result = combined(site, args, np.subtract, fixed_of(args, difference))
    if result is not None:
        return result
    pending, bias = args
    if isinstance(pending, Pending) and isinstance(bias, (Constant, QuantizedConstant)):
        return _biased(pending, Constant(np.negative(reals_of_constant(bias).astype(np.float64))))
    operands = operands_of(site, args)
    return replace(_sum(site, operands, op.Subtract), squared=_squared_difference(site, operands))


def _biased(pending: Pending, bias: Constant | QuantizedConstant) -> Value:
    if pending.add_bias is None or pending.moves:
        raise NoIntegerForm("a constant added to a result that has not been quantised")
    return pending.add_bias(bias)


def _sum(site: Site, operands: tuple[Real, Real], kind: type[op.Add] | type[op.Subtract]) -> Pending:
    scales = scales_of(operands)
    twice_max = 2.0 * max(scales)

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        return kind(
            zero_points(operands),
            (rescale_of(scales[0] / twice_max), rescale_of(scales[1] / twice_max)),
            quantization.zero_point,
            rescale_of(twice_max / ((1 << ADD_LEFT_SHIFT) * quantization.scale)),
            clamp,
        )

    return pending_of(site, operands, operator)


def _squared_difference(site: Site, operands: tuple[Real, Real]) -> Pending:
    """`squared_difference.cc: Prepare`"""
    scales = scales_of(operands)
    twice_max = 2.0 * max(scales)

    def operator(quantization: Quantization, clamp: op.Clamp) -> op.Operator:
        return op.SquaredDifference(
            zero_points(operands),
            (rescale_of(scales[0] / twice_max), rescale_of(scales[1] / twice_max)),
            quantization.zero_point,
            rescale_of(twice_max**2 / ((1 << 2 * SQUARE_LEFT_SHIFT) * quantization.scale)),
            clamp,
        )

    return pending_of(site, operands, operator)


def square(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    if isinstance(value, Pending) and value.squared is not None:
        return value.squared
    return unary(np.square)(site, args)
