"""What operators of two tensors ask of their operands, and how their results are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op, tables
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.elementwise import broadcast_ready, constant_operand
from edgekit.compiler.lowering.rules.site import Rule, Site, real_operand, shape_of
from edgekit.compiler.lowering.rules.tables import Fixed, combined
from edgekit.compiler.lowering.values import Constant, NoIntegerForm, Pending, QuantizedConstant, Real, Value

__all__ = ["elementwise", "fixed_of", "operands_of", "pending_of", "scales_of", "zero_points"]


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


def fixed_of(
    args: Sequence[Value],
    function: Callable[[NDArray[np.int64], NDArray[np.int64], tuple[float, float], Quantization], Any],
) -> Fixed | None:
    """The table by LiteRT's fixed point, where both operands are stored as int8."""
    first, second = (_centred(value) for value in args)
    if first is None or second is None:
        return None
    scales = (first[1], second[1])
    return lambda output: np.asarray(function(first[0], second[0], scales, output))


def operands_of(site: Site, args: Sequence[Value]) -> tuple[Real, Real]:
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


def pending_of(
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


def zero_points(operands: tuple[Real, Real]) -> tuple[int, int]:
    return operands[0].quantization.zero_point, operands[1].quantization.zero_point


def scales_of(operands: tuple[Real, Real]) -> tuple[float, float]:
    return operands[0].quantization.scale, operands[1].quantization.scale
