"""Layer normalisation: over the last axes, or over one axis, which is laid out last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.definitions.normalization import FRACTION, OFFSET_FRACTION, SPREAD_FRACTION
from edgekit.compiler.lowering.builder import Order, axis_last, identity_order
from edgekit.compiler.lowering.rules.site import Site, in_order, integers_of, real_operand
from edgekit.compiler.lowering.rules.tables import reals_of_constant
from edgekit.compiler.lowering.values import Constant, NoIntegerForm, Pending, QuantizedConstant, Value

__all__ = ["layer_norm"]

_MOST = 1 << 15
"""Elements of a row: n · Σx² and products of normalised values stay within 64 bits."""
_LIMIT = 2.0**14
"""Offsets in steps of the output: beyond it everything saturates."""


def layer_norm(site: Site, args: Sequence[Value]) -> Value:
    data = real_operand(args[0], "its input")
    rank = len(site.shape)
    axes = sorted(axis % rank for axis in integers_of(site.attrs.axes))
    if len(axes) == 1:
        order = axis_last(data.order, axes[0])
    elif axes == list(range(rank - len(axes), rank)):
        order = identity_order(rank)
    else:
        raise NoIntegerForm("normalisation over axes that are not the last")
    count = math.prod(site.shape[axis] for axis in axes)
    if count > _MOST:
        raise NoIntegerForm(f"normalisation of more than {_MOST:,} elements")
    factors, offsets = (_row(value, count) for value in args[1:3])
    spread = float(site.attrs.epsilon) * count**2 / data.quantization.scale**2
    epsilon = round(spread * 2.0**SPREAD_FRACTION)
    if epsilon >= 1 << 60:
        raise NoIntegerForm("an epsilon that is all of the variance")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        multipliers, shift = _fixed_point(factors / quantization.scale)
        steps = np.clip(offsets / quantization.scale, -_LIMIT, _LIMIT) * 2.0**OFFSET_FRACTION
        operator = op.LayerNorm(
            epsilon,
            multipliers,
            shift,
            np.clip(np.rint(steps), -(2**30), 2**30 - 1).astype(np.int32),
            quantization.zero_point,
            clamp,
        )
        shape = site.physical(order)
        flat = (math.prod(shape) // count, count)
        source = site.builder.view(in_order(site, data, order), flat)
        tensor = site.builder.step(operator, (source,), site.place, site.name, flat, quantization)
        return site.builder.view(tensor, shape), order

    return Pending(emit, site.shape, site.place)


def _row(value: Value, count: int) -> NDArray[np.float64]:
    if not isinstance(value, (Constant, QuantizedConstant)):
        raise NoIntegerForm("factors or offsets that are computed")
    reals: NDArray[Any] = reals_of_constant(value).astype(np.float64).reshape(-1)
    if reals.size != count or not np.isfinite(reals).all():
        raise NoIntegerForm("factors or offsets that are not a number an element")
    return reals


def _fixed_point(factors: NDArray[np.float64]) -> tuple[NDArray[np.int32], int]:
    """The factors as integers of at most 30 bits, and the shift that is common to all of them."""
    largest = float(np.abs(factors).max())
    exponent = math.frexp(largest)[1] if largest > 0 else 0
    bits = min(30 - exponent, 30)
    if bits < 0:
        raise NoIntegerForm("a factor of 2^30 steps of the output and more")
    shift = FRACTION + bits - OFFSET_FRACTION
    return np.rint(factors * 2.0**bits).clip(-(2**30), 2**30).astype(np.int32), shift
