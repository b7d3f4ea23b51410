"""An activation times a constant a channel: a depthwise convolution of one position, with a bias or none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import quantize_multipliers
from edgekit.compiler.lowering.builder import Order, axis_last
from edgekit.compiler.lowering.rules.site import Site, in_order, shape_of
from edgekit.compiler.lowering.rules.weights import accumulating
from edgekit.compiler.lowering.values import NoIntegerForm, Pending, Real

__all__ = ["channel_factors"]

_UNIT = 64
"""Stored weight of every channel: a bias is rounded to 1/64 of the input's scale times the factor."""


def channel_factors(site: Site, value: Real, factors: NDArray[np.generic]) -> Pending:
    """`factors` broadcast to the shape of `value`, more than one number along one axis.

    Raises:
        NoIntegerForm: they vary along several axes, or widen the result.
    """
    axis = _channel_axis(site, value, factors)
    reals = factors.astype(np.float64).reshape(-1)
    if not np.isfinite(reals).all():
        raise NoIntegerForm("a factor that is no number")
    channels = reals.size
    weights = (np.sign(reals) * _UNIT).astype(np.int8).reshape(1, 1, channels)
    # A channel times 0 has weight 0, whatever its scale.
    magnitudes = np.where(reals == 0, 1.0, np.abs(reals)) / _UNIT
    scales = value.quantization.scale * magnitudes
    order = axis_last(value.order, axis)

    def emit_with(
        bias: NDArray[np.int32],
    ) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            try:
                multipliers, shifts = quantize_multipliers(scales / quantization.scale)
            except ValueError as error:
                raise NoIntegerForm(str(error)) from None
            operator = op.DepthwiseConv2D(
                op.Window((1, 1)),
                weights,
                bias,
                value.quantization.zero_point,
                quantization.zero_point,
                multipliers,
                shifts,
                clamp,
                site.rounding,
            )
            shape = site.physical(order)
            flat = (1, 1, math.prod(shape) // channels, channels)
            source = site.builder.view(in_order(site, value, order), flat)
            tensor = site.builder.step(operator, (source,), site.place, site.name, flat, quantization)
            return site.builder.view(tensor, shape), order

        return emit

    return accumulating(site, emit_with, scales, axis)


def _channel_axis(site: Site, value: Real, factors: NDArray[np.generic]) -> int:
    rank = len(site.shape)
    aligned = (1,) * (rank - factors.ndim) + factors.shape
    axes = [axis for axis, size in enumerate(aligned) if size != 1]
    if shape_of(site, value) != site.shape or len(axes) != 1:
        raise NoIntegerForm("a constant factor that is not one value a channel")
    return axes[0]
