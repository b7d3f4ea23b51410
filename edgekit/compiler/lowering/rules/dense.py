"""Matrix products with constant weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import WideMultipliers, wide_multipliers
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.site import Site, in_order, real_operand, shape_of
from edgekit.compiler.lowering.rules.weights import (
    accumulating,
    check_accumulator,
    int8_weights,
    per_channel,
    weights_of,
)
from edgekit.compiler.lowering.values import NoIntegerForm, Value

__all__ = ["matmul"]


def matmul(site: Site, args: Sequence[Value]) -> Value:
    data = real_operand(args[0], "its input")
    weights = weights_of(args[1])
    if weights.stored.ndim > 2 and math.prod(weights.stored.shape[:-2]) == 1:
        weights = weights.map(lambda a: a.reshape(a.shape[-2:]))
    if weights.stored.ndim != 2:
        raise NoIntegerForm("a matrix product whose weights are not a matrix")
    arranged = weights.map(np.transpose)
    scales = data.quantization.scale * per_channel(arranged, 0)
    values = int8_weights(arranged)
    order = identity_order(len(shape_of(site, data)))

    def emit_with(bias: NDArray[np.int32]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            check_accumulator(values, bias, data.quantization.zero_point)
            operator = op.Dense(
                weights=np.ascontiguousarray(values),
                bias=bias,
                input_zero_point=data.quantization.zero_point,
                output_zero_point=quantization.zero_point,
                multipliers=_wide_multipliers(scales / quantization.scale),
                clamp=clamp,
            )
            source = in_order(site, data, order)
            tensor = site.builder.step(operator, (source,), site.place, site.name, site.shape, quantization)
            return tensor, identity_order(len(site.shape))

        return emit

    return accumulating(site, emit_with, scales, len(site.shape) - 1)


def _wide_multipliers(reals: NDArray[np.float64]) -> WideMultipliers:
    try:
        return wide_multipliers(reals)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None
