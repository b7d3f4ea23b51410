"""Matrix products: with constant weights, and of two activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import WideMultipliers, wide_multipliers
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.elementwise import constant_operand
from edgekit.compiler.lowering.rules.site import Site, in_order, real_operand, rescale_of, shape_of
from edgekit.compiler.lowering.rules.weights import (
    accumulating,
    check_accumulator,
    check_wide_accumulator,
    int8_weights,
    per_channel,
)
from edgekit.compiler.lowering.values import NoIntegerForm, Pending, QuantizedConstant, Real, Value

__all__ = ["matmul"]


def matmul(site: Site, args: Sequence[Value]) -> Value:
    """With constant weights as TFLite's FULLY_CONNECTED, of two activations as its BATCH_MATMUL.

    A constant of more than two axes, or one on the left, is an operand of BATCH_MATMUL as well.
    """
    if isinstance(args[0], Real) and isinstance(args[1], QuantizedConstant) and _is_matrix(args[1]):
        return _dense(site, args[0], args[1])
    return _product(site, args)


def _is_matrix(weights: QuantizedConstant) -> bool:
    """Weights of one matrix. A batch of one matrix counts where its scales vary, which a product cannot."""
    shape = weights.stored.shape
    varied = bool((weights.scale != weights.scale.flat[0]).any())
    return len(shape) == 2 or (varied and len(shape) > 2 and math.prod(shape[:-2]) == 1)


def _product(site: Site, args: Sequence[Value]) -> Value:
    first, second = (
        constant_operand(site, value)
        if isinstance(value, QuantizedConstant)
        else real_operand(value, f"its {which} input")
        for value, which in zip(args, ("first", "second"), strict=True)
    )
    shapes = shape_of(site, first), shape_of(site, second)
    if min(map(len, shapes)) < 2:
        raise NoIntegerForm("a product of a matrix and a vector")
    depth = shapes[0][-1]
    extremes = (128 + abs(first.quantization.zero_point)) * (128 + abs(second.quantization.zero_point))
    if depth * extremes >= 2**31:
        raise NoIntegerForm("its accumulator could overflow 32 bits")
    # LiteRT multiplies the scales in float32 (kernel_util.cc: GetQuantizedConvolutionMultipler).
    scale = float(np.float32(first.quantization.scale) * np.float32(second.quantization.scale))

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        operator = op.MatMul(
            orders=(first.order, second.order),
            depth=depth,
            zero_points=(first.quantization.zero_point, second.quantization.zero_point),
            output_zero_point=quantization.zero_point,
            rescale=rescale_of(scale / quantization.scale),
            clamp=clamp,
        )
        sources = (first.tensor, second.tensor)
        tensor = site.builder.step(operator, sources, site.place, site.name, site.shape, quantization)
        return tensor, identity_order(len(site.shape))

    return Pending(emit, site.shape, site.place)


def _dense(site: Site, operand: Real, weights: QuantizedConstant) -> Value:
    data = real_operand(operand, "its input", dtypes=("int8", "int16"))
    if weights.stored.ndim > 2 and math.prod(weights.stored.shape[:-2]) == 1:
        weights = weights.map(lambda a: a.reshape(a.shape[-2:]))
    if weights.stored.ndim != 2:
        raise NoIntegerForm("a matrix product whose weights are not a matrix")
    arranged = weights.map(np.transpose)
    scales = data.quantization.scale * per_channel(arranged, 0)
    values = int8_weights(arranged)
    order = identity_order(len(shape_of(site, data)))

    def emit_with(bias: NDArray[Any]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            source = in_order(site, data, order)
            multipliers = _wide_multipliers(scales / quantization.scale)
            if data.dtype == "int16":
                check_wide_accumulator(values, bias)
                wide = op.Dense16x8(np.ascontiguousarray(values), bias, multipliers, clamp)
                tensor = site.builder.step(
                    wide, (source,), site.place, site.name, site.shape, quantization, "int16"
                )
                return tensor, identity_order(len(site.shape))
            check_accumulator(values, bias, data.quantization.zero_point)
            operator = op.Dense(
                weights=np.ascontiguousarray(values),
                bias=bias,
                input_zero_point=data.quantization.zero_point,
                output_zero_point=quantization.zero_point,
                multipliers=multipliers,
                clamp=clamp,
            )
            tensor = site.builder.step(operator, (source,), site.place, site.name, site.shape, quantization)
            return tensor, identity_order(len(site.shape))

        return emit

    return accumulating(site, emit_with, scales, len(site.shape) - 1, data.dtype)


def _wide_multipliers(reals: NDArray[np.float64]) -> WideMultipliers:
    try:
        return wide_multipliers(reals)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None
