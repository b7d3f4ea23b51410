"""Quantize and dequantize: where a value gets its scale, and where a pending operator is emitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import round_half_away
from edgekit.compiler.lowering.builder import Order, identity_order
from edgekit.compiler.lowering.rules.site import (
    Site,
    full_range,
    real_operand,
    rescale_of,
    same_quantization,
    stored_bound,
)
from edgekit.compiler.lowering.rules.tables import looked_up
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tabulated,
    Value,
)

__all__ = ["UINT8_OFFSET", "dequantize", "quantize", "quantized", "requantized"]

UINT8_OFFSET = 128


def _clamp(pending: Pending, quantization: Quantization) -> op.Clamp:
    low, high = (stored_bound(bound, quantization, pending.dtype) for bound in (pending.low, pending.high))
    return op.Clamp(low, high)


def _read_quantization(args: Sequence[Value]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scale, zero_point = args[1], args[2]
    if not isinstance(scale, Constant) or not isinstance(zero_point, Constant):
        raise NoIntegerForm("a scale or zero point that is computed at run time")
    return scale.array.astype(np.float64), zero_point.array.astype(np.int64)


def dequantize(site: Site, args: Sequence[Value]) -> Value:
    scale, zero_point = _read_quantization(args)
    value = args[0]
    if isinstance(value, Constant):
        stored = value.array.astype(np.int64)
        axis = int(site.attrs.axis)

        def spread(array: NDArray[Any]) -> NDArray[Any]:
            if array.size == 1:
                return np.broadcast_to(array.reshape(()), stored.shape)
            shape = [1] * stored.ndim
            shape[axis] = array.size
            return np.broadcast_to(array.reshape(shape), stored.shape)

        return QuantizedConstant(stored, spread(scale), spread(zero_point), str(value.array.dtype))
    if not isinstance(value, Stored):
        raise NoIntegerForm("dequantize of something that is not an 8-bit tensor")
    if scale.size != 1 or zero_point.size != 1:
        raise NoIntegerForm("an activation with a scale per channel")
    stored_as = site.builder.tensors[value.tensor].dtype
    if stored_as not in ("int8", "int16"):
        raise NoIntegerForm(f"dequantize of {stored_as}")
    quantization = Quantization(float(scale.reshape(())), int(zero_point.reshape(())) - value.offset)
    if site.builder.tensors[value.tensor].quantization is None:
        site.builder.set_quantization(value.tensor, quantization)
    return Real(value.tensor, value.order, quantization, stored_as)


def quantize(site: Site, args: Sequence[Value]) -> Value:
    scale, zero_point = _read_quantization(args)
    dtype = str(site.attrs.out_dtype)
    value = args[0]
    if isinstance(value, (Constant, QuantizedConstant)):
        return _quantize_constant(value, scale, zero_point, dtype, int(site.attrs.axis))
    if scale.size != 1 or zero_point.size != 1:
        raise NoIntegerForm("an activation with a scale per channel")
    if dtype not in ("int8", "uint8", "int16"):
        raise NoIntegerForm(f"an activation quantised to {dtype}")
    if dtype == "int16" and zero_point.reshape(()) != 0:
        raise NoIntegerForm("an int16 activation with a zero point")
    offset = UINT8_OFFSET if dtype == "uint8" else 0
    kept_as = "int16" if dtype == "int16" else "int8"
    quantization = Quantization(float(scale.reshape(())), int(zero_point.reshape(())) - offset)
    if isinstance(value, Pending):
        if value.dtype != kept_as:
            raise NoIntegerForm(f"{value.dtype} operands with a result of {dtype}")
        tensor, order = value.emit(quantization, _clamp(value, quantization))
        result = Stored(tensor, order, offset)
        for move in value.moves:
            result = move(result)
        return result
    if isinstance(value, Tabulated):
        if kept_as != "int8":
            raise NoIntegerForm(f"int8 operands with a result of {dtype}")
        tensor, order = looked_up(site, value, quantization)
        return Stored(tensor, order, offset)
    if isinstance(value, Float):
        tensor, order = quantized(site, value, kept_as).emit(quantization, full_range(kept_as))
        return Stored(tensor, order, offset)
    real = real_operand(value, "its input", dtypes=("int8", "int16"))
    if real.dtype == kept_as and same_quantization(real.quantization, quantization):
        return Stored(real.tensor, real.order, offset)
    pending = requantized(site, real, dtype=kept_as)
    tensor, order = pending.emit(quantization, full_range(kept_as))
    return Stored(tensor, order, offset)


def quantized(site: Site, value: Float, dtype: str = "int8") -> Pending:
    """A float32 tensor that is to be stored as integers, perhaps clamped."""

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        operator = op.Quantize(quantization.scale, quantization.zero_point, clamp)
        tensor = site.builder.step(
            operator, (value.tensor,), site.place, site.name, site.shape, quantization, dtype
        )
        return tensor, identity_order(len(site.shape))

    return Pending(emit, site.shape, site.place, dtype=dtype)


def _quantize_constant(
    value: Constant | QuantizedConstant,
    scale: NDArray[np.float64],
    zero_point: NDArray[np.int64],
    dtype: str,
    axis: int,
) -> Constant:
    reals = value.reals() if isinstance(value, QuantizedConstant) else value.array.astype(np.float64)
    if scale.size > 1:
        shape = [1] * reals.ndim
        shape[axis] = scale.size
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    info = np.iinfo(dtype)
    return Constant(np.clip(round_half_away(reals / scale) + zero_point, info.min, info.max).astype(dtype))


def requantized(
    site: Site, real: Real, *, quotient: type[np.floating[Any]] = np.float64, dtype: str = "int8"
) -> Pending:
    """A real that is to be stored at another scale, perhaps clamped.

    `quotient` is the type in which the two scales are divided: TFLite's ReLU kernels do it in float32.
    """
    source = site.builder.tensors[real.tensor]

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        before, after = quotient(real.quantization.scale), quotient(quantization.scale)
        operator = op.Requantize(
            real.quantization.zero_point,
            quantization.zero_point,
            None if before == after else rescale_of(float(before / after)),
            clamp,
        )
        tensor = site.builder.step(
            operator, (real.tensor,), site.place, site.name, source.shape, quantization, dtype
        )
        return tensor, real.order

    return Pending(emit, site.shape, site.place, dtype=dtype)
