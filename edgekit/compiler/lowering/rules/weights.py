"""Weights and biases of operators that accumulate: checked, per channel, in the units of the accumulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import round_half_away
from edgekit.compiler.lowering.builder import Order
from edgekit.compiler.lowering.rules.site import Site
from edgekit.compiler.lowering.values import Constant, NoIntegerForm, Pending, QuantizedConstant, Value

__all__ = [
    "accumulating",
    "check_accumulator",
    "check_wide_accumulator",
    "int8_weights",
    "per_channel",
    "weights_of",
]


def weights_of(value: Value) -> QuantizedConstant:
    if not isinstance(value, QuantizedConstant):
        raise NoIntegerForm("weights that are not quantised constants")
    return value


def per_channel(weights: QuantizedConstant, axis: int) -> NDArray[np.float64]:
    """The scale of each slice along `axis`."""
    scales = np.moveaxis(weights.scale, axis, 0).reshape(weights.scale.shape[axis], -1)
    if (scales != scales[:, :1]).any():
        raise NoIntegerForm("weights whose scale varies inside an output channel")
    return np.ascontiguousarray(scales[:, 0])


def int8_weights(weights: QuantizedConstant) -> NDArray[np.int8]:
    """Stored weights relative to their zero point; those of uint8 files mostly fit int8 after all."""
    values = weights.stored - weights.zero_point
    if values.min(initial=0) < -128 or values.max(initial=0) > 127:
        raise NoIntegerForm("weights with a zero point whose values do not fit int8")
    return values.astype(np.int8)


def _bias_integers(
    bias: Constant | QuantizedConstant, channels: int, scales: NDArray[np.float64], dtype: str
) -> NDArray[Any]:
    """Biases in accumulator units. Integers stored at the accumulator's scale are taken as they are."""
    if isinstance(bias, QuantizedConstant):
        flat = QuantizedConstant.map(bias, lambda a: np.broadcast_to(a.reshape(-1), (channels,)))
        if (
            flat.dtype in ("int32", dtype)
            and not flat.zero_point.any()
            and np.allclose(flat.scale, scales, rtol=1e-5, atol=0)
        ):
            return flat.stored.astype(dtype)
        reals = flat.reals()
    else:
        reals = np.broadcast_to(bias.array.astype(np.float64).reshape(-1), (channels,))
    steps = round_half_away(reals / scales)
    bits = 31 if dtype == "int32" else WIDE_BITS
    if not np.isfinite(steps).all() or np.abs(steps).max(initial=0) >= 2.0**bits:
        raise NoIntegerForm(f"a bias that does not fit {bits + 1} bits")
    return steps.astype(dtype)


WIDE_BITS = 40
"""Sums of int16 activations stay below 2^40, where the scaling of each kind of layer is exact."""


def check_wide_accumulator(weights: NDArray[np.int8], bias: NDArray[np.int64]) -> None:
    """The same for int16 activations: Σ|w| · 32768 + |b|."""
    magnitude = np.abs(weights.reshape(weights.shape[0], -1).astype(np.int64)).sum(axis=1)
    if (magnitude * 32768 + np.abs(bias) >= 2**WIDE_BITS).any():
        raise NoIntegerForm(f"its accumulator could overflow {WIDE_BITS} bits")


def check_accumulator(weights: NDArray[np.int8], bias: NDArray[np.int32], zero_point: int) -> None:
    """Refuse what could overflow 32 bits, also with z·Σw folded into the bias: Σ|w|·(128 + |z|) + |b|."""
    magnitude = np.abs(weights.reshape(weights.shape[0], -1).astype(np.int64)).sum(axis=1)
    worst = magnitude * (128 + abs(zero_point)) + np.abs(bias.astype(np.int64))
    if (worst >= 2**31).any():
        raise NoIntegerForm("its accumulator could overflow 32 bits")


def accumulating(
    site: Site,
    emit_with: Callable[[NDArray[Any]], Callable[[Quantization, op.Clamp], tuple[int, Order]]],
    scales: NDArray[np.float64],
    channel_axis: int,
    dtype: str = "int8",
) -> Pending:
    """A Pending of type `dtype` that may still take a bias along the logical `channel_axis`."""
    channels = scales.size
    bias_dtype = "int32" if dtype == "int8" else "int64"

    def add_bias(bias: Constant | QuantizedConstant) -> Pending:
        shape = bias.array.shape if isinstance(bias, Constant) else bias.stored.shape
        aligned = (1,) * (len(site.shape) - len(shape)) + tuple(shape)
        for axis, size in enumerate(aligned):
            if size != 1 and (axis != channel_axis or size != channels):
                raise NoIntegerForm("a bias that is not one value a channel")
        emit = emit_with(_bias_integers(bias, channels, scales, bias_dtype))
        return Pending(emit, site.shape, site.place, dtype=dtype)

    return Pending(
        emit_with(np.zeros(channels, bias_dtype)), site.shape, site.place, add_bias=add_bias, dtype=dtype
    )
