"""What each Relax operator becomes in integers: one rule an operator, gathered in `RULES`.

A rule gets the call and the values of its arguments and returns the value of its result. It raises
`NoIntegerForm` with the reason where the operator, used as it is, cannot be computed in integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Place, Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import (
    WideMultipliers,
    quantize_multiplier,
    quantize_multipliers,
    round_half_away,
    wide_multipliers,
)
from edgekit.compiler.lowering.builder import Order, ProgramBuilder, identity_order
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tuple,
    Value,
)
from edgekit.compiler.softmax import SOFTMAX_MAX_CLASSES, exponential_table

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["RULES", "Site"]

UINT8_OFFSET = 128
ADD_LEFT_SHIFT = 20
SOFTMAX_OUTPUT = Quantization(1.0 / 256.0, -128)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One Relax binding under translation."""

    builder: ProgramBuilder
    call: relax.Call
    name: str
    place: Place | None
    shape: tuple[int, ...]
    """Logical shape of the result; () for tuples."""

    @property
    def attrs(self) -> Any:
        return self.call.attrs

    def physical(self, order: Order) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in order)


Rule = Callable[[Site, Sequence[Value]], Value]


# --- helpers ------------------------------------------------------------------------------------------------


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _scalar(value: Any) -> float:
    """A number given as a PrimValue, an immediate or a constant of one element."""
    if isinstance(value, Constant):
        if value.array.size != 1:
            raise NoIntegerForm("a bound that is not a single number")
        return float(value.array.reshape(()))
    for attribute in ("value", "imm"):
        value = getattr(value, attribute, value)
    return float(value)


def _real_operand(value: Value, what: str) -> Real:
    if isinstance(value, Real):
        return value
    if isinstance(value, Pending):
        raise NoIntegerForm(f"no quantize between it and the operator that makes {what}")
    if isinstance(value, (Constant, QuantizedConstant)):
        raise NoIntegerForm(f"{what} is a constant")
    raise NoIntegerForm(f"{what} is not quantised to int8")


def _in_order(site: Site, value: Real | Stored, wanted: Order) -> int:
    return site.builder.in_order(value.tensor, value.order, wanted, site.place)


def _stored_bound(real: float, quantization: Quantization) -> int:
    """A real bound as a stored value: zero_point + round(real / scale) in float32, saturated (TFLite)."""
    if math.isinf(real):
        return -128 if real < 0 else 127
    ratio = np.float32(real) / np.float32(quantization.scale)
    steps = float(round_half_away(np.asarray(np.float64(ratio))))
    return int(np.clip(quantization.zero_point + steps, -128, 127))


def _clamp(pending: Pending, quantization: Quantization) -> op.Clamp:
    return op.Clamp(_stored_bound(pending.low, quantization), _stored_bound(pending.high, quantization))


def _rescale(real: float) -> op.Rescale:
    try:
        multiplier, shift = quantize_multiplier(real)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None
    return op.Rescale(multiplier, shift)


def _same(first: Quantization, second: Quantization) -> bool:
    return first.zero_point == second.zero_point and np.float32(first.scale) == np.float32(second.scale)


def _per_channel(weights: QuantizedConstant, axis: int) -> NDArray[np.float64]:
    """The scale of each slice along `axis`."""
    scales = np.moveaxis(weights.scale, axis, 0).reshape(weights.scale.shape[axis], -1)
    if (scales != scales[:, :1]).any():
        raise NoIntegerForm("weights whose scale varies inside an output channel")
    return np.ascontiguousarray(scales[:, 0])


def _int8_weights(weights: QuantizedConstant) -> NDArray[np.int8]:
    """Stored weights relative to their zero point; those of uint8 files mostly fit int8 after all."""
    values = weights.stored - weights.zero_point
    if values.min(initial=0) < -128 or values.max(initial=0) > 127:
        raise NoIntegerForm("weights with a zero point whose values do not fit int8")
    return values.astype(np.int8)


def _bias_integers(
    bias: Constant | QuantizedConstant, channels: int, scales: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Biases in accumulator units. int32 biases stored at the accumulator's scale are taken as they are."""
    if isinstance(bias, QuantizedConstant):
        flat = QuantizedConstant.map(bias, lambda a: np.broadcast_to(a.reshape(-1), (channels,)))
        if (
            flat.dtype == "int32"
            and not flat.zero_point.any()
            and np.allclose(flat.scale, scales, rtol=1e-5, atol=0)
        ):
            return flat.stored.astype(np.int32)
        reals = flat.reals()
    else:
        reals = np.broadcast_to(bias.array.astype(np.float64).reshape(-1), (channels,))
    steps = round_half_away(reals / scales)
    if not np.isfinite(steps).all() or np.abs(steps).max(initial=0) >= 2**31:
        raise NoIntegerForm("a bias that does not fit 32 bits")
    return steps.astype(np.int32)


def _check_accumulator(weights: NDArray[np.int8], bias: NDArray[np.int32], zero_point: int) -> None:
    """Refuse what could overflow 32 bits, also with z·Σw folded into the bias: Σ|w|·(128 + |z|) + |b|."""
    magnitude = np.abs(weights.reshape(weights.shape[0], -1).astype(np.int64)).sum(axis=1)
    worst = magnitude * (128 + abs(zero_point)) + np.abs(bias.astype(np.int64))
    if (worst >= 2**31).any():
        raise NoIntegerForm("its accumulator could overflow 32 bits")


def _shape_of(site: Site, value: Real | Stored) -> tuple[int, ...]:
    """Logical shape of a stored value."""
    physical = site.builder.tensors[value.tensor].shape
    logical = [0] * len(physical)
    for position, axis in enumerate(value.order):
        logical[axis] = physical[position]
    return tuple(logical)


def _with_tensor(value: Real | Stored, tensor: int, order: Order) -> Real | Stored:
    if isinstance(value, Real):
        return Real(tensor, order, value.quantization)
    return Stored(tensor, order, value.offset)


def _quantization_of(site: Site, value: Real | Stored) -> Quantization | None:
    if isinstance(value, Real):
        return value.quantization
    return site.builder.tensors[value.tensor].quantization


# --- quantize and dequantize --------------------------------------------------------------------------------


def _read_quantization(args: Sequence[Value]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scale, zero_point = args[1], args[2]
    if not isinstance(scale, Constant) or not isinstance(zero_point, Constant):
        raise NoIntegerForm("a scale or zero point that is computed at run time")
    return scale.array.astype(np.float64), zero_point.array.astype(np.int64)


def _dequantize(site: Site, args: Sequence[Value]) -> Value:
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
    quantization = Quantization(float(scale.reshape(())), int(zero_point.reshape(())) - value.offset)
    if site.builder.tensors[value.tensor].quantization is None:
        site.builder.set_quantization(value.tensor, quantization)
    return Real(value.tensor, value.order, quantization)


def _quantize(site: Site, args: Sequence[Value]) -> Value:
    scale, zero_point = _read_quantization(args)
    dtype = str(site.attrs.out_dtype)
    value = args[0]
    if isinstance(value, (Constant, QuantizedConstant)):
        return _quantize_constant(value, scale, zero_point, dtype, int(site.attrs.axis))
    if scale.size != 1 or zero_point.size != 1:
        raise NoIntegerForm("an activation with a scale per channel")
    if dtype not in ("int8", "uint8"):
        raise NoIntegerForm(f"an activation quantised to {dtype}")
    offset = UINT8_OFFSET if dtype == "uint8" else 0
    quantization = Quantization(float(scale.reshape(())), int(zero_point.reshape(())) - offset)
    if isinstance(value, Pending):
        tensor, order = value.emit(quantization, _clamp(value, quantization))
        result = Stored(tensor, order, offset)
        for move in value.moves:
            result = move(result)
        return result
    if isinstance(value, Float):
        tensor, order = _quantized(site, value).emit(quantization, op.FullRange)
        return Stored(tensor, order, offset)
    real = _real_operand(value, "its input")
    if _same(real.quantization, quantization):
        return Stored(real.tensor, real.order, offset)
    pending = _requantized(site, real)
    tensor, order = pending.emit(quantization, op.FullRange)
    return Stored(tensor, order, offset)


def _quantized(site: Site, value: Float) -> Pending:
    """A float32 tensor that is to be stored as integers, perhaps clamped."""

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        operator = op.Quantize(quantization.scale, quantization.zero_point, clamp)
        tensor = site.builder.step(operator, (value.tensor,), site.place, site.name, site.shape, quantization)
        return tensor, identity_order(len(site.shape))

    return Pending(emit, site.shape, site.place)


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


def _requantized(site: Site, real: Real, *, quotient: type[np.floating[Any]] = np.float64) -> Pending:
    """A real that is to be stored at another scale, perhaps clamped.

    `quotient` is the type in which the two scales are divided: TFLite's ReLU kernels do it in float32.
    """
    source = site.builder.tensors[real.tensor]

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        before, after = quotient(real.quantization.scale), quotient(quantization.scale)
        operator = op.Requantize(
            real.quantization.zero_point,
            quantization.zero_point,
            None if before == after else _rescale(float(before / after)),
            clamp,
        )
        tensor = site.builder.step(
            operator, (real.tensor,), site.place, site.name, source.shape, quantization
        )
        return tensor, real.order

    return Pending(emit, site.shape, site.place)


# --- convolution and dense ----------------------------------------------------------------------------------

_NHWC: Mapping[str, Order] = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 2, 3, 1)}
"""Order in which each source layout is stored, so that memory always holds N, H, W, C."""


def _nhwc(layout: str) -> Order:
    if layout not in _NHWC:
        raise NoIntegerForm(f"data layout {layout}")
    return _NHWC[layout]


def _weights_of(value: Value) -> QuantizedConstant:
    if not isinstance(value, QuantizedConstant):
        raise NoIntegerForm("weights that are not quantised constants")
    return value


def _conv2d(site: Site, args: Sequence[Value]) -> Value:
    attrs = site.attrs
    data = _real_operand(args[0], "its input")
    weights = _weights_of(args[1])
    order = _nhwc(str(attrs.data_layout))
    layout = str(attrs.kernel_layout)
    groups = int(attrs.groups)
    if sorted(layout) != sorted("OIHW"):
        raise NoIntegerForm(f"kernel layout {layout}")
    channels = _shape_of(site, data)[order[3]]
    depthwise = groups > 1 and groups == channels
    if groups > 1 and not depthwise:
        raise NoIntegerForm(f"a convolution in {groups} groups")
    if depthwise and layout == "HWOI":  # TVM's own depthwise form: O counts input channels, I the multiplier
        arranged = weights.map(lambda a: a.reshape(a.shape[0], a.shape[1], -1))
        kernel = arranged.stored.shape[:2]
    elif depthwise:
        axes = [layout.index(letter) for letter in "HWOI"]
        arranged = weights.map(
            lambda a: np.transpose(a, axes).reshape(a.shape[axes[0]], a.shape[axes[1]], -1)
        )
        kernel = arranged.stored.shape[:2]
    else:
        axes = [layout.index(letter) for letter in "OHWI"]
        arranged = weights.map(lambda a: np.transpose(a, axes))
        kernel = arranged.stored.shape[1:3]
    window = op.Window(
        (kernel[0], kernel[1]),
        _ints(attrs.strides)[:2],  # type: ignore[arg-type]
        _ints(attrs.padding),  # type: ignore[arg-type]
        _ints(attrs.dilation)[:2],  # type: ignore[arg-type]
    )
    channel_axis = 2 if depthwise else 0
    kind: type[op.Conv2D] | type[op.DepthwiseConv2D] = op.DepthwiseConv2D if depthwise else op.Conv2D
    scales = data.quantization.scale * _per_channel(arranged, channel_axis)
    values = _int8_weights(arranged)
    physical = site.physical(order)

    def emit_with(bias: NDArray[np.int32]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            _check_accumulator(np.moveaxis(values, channel_axis, 0), bias, data.quantization.zero_point)
            multipliers, shifts = _multipliers(scales / quantization.scale)
            operator = kind(
                window=window,
                weights=np.ascontiguousarray(values),
                bias=bias,
                input_zero_point=data.quantization.zero_point,
                output_zero_point=quantization.zero_point,
                multipliers=multipliers,
                shifts=shifts,
                clamp=clamp,
            )
            source = _in_order(site, data, order)
            tensor = site.builder.step(operator, (source,), site.place, site.name, physical, quantization)
            return tensor, order

        return emit

    return _accumulating(site, emit_with, scales, order[3])


def _multipliers(reals: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    try:
        return quantize_multipliers(reals)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None


def _wide_multipliers(reals: NDArray[np.float64]) -> WideMultipliers:
    try:
        return wide_multipliers(reals)
    except ValueError as error:
        raise NoIntegerForm(str(error)) from None


def _accumulating(
    site: Site,
    emit_with: Callable[[NDArray[np.int32]], Callable[[Quantization, op.Clamp], tuple[int, Order]]],
    scales: NDArray[np.float64],
    channel_axis: int,
) -> Pending:
    """A Pending that may still take a bias along the logical `channel_axis`."""
    channels = scales.size

    def add_bias(bias: Constant | QuantizedConstant) -> Pending:
        shape = bias.array.shape if isinstance(bias, Constant) else bias.stored.shape
        aligned = (1,) * (len(site.shape) - len(shape)) + tuple(shape)
        for axis, size in enumerate(aligned):
            if size != 1 and (axis != channel_axis or size != channels):
                raise NoIntegerForm("a bias that is not one value a channel")
        return Pending(emit_with(_bias_integers(bias, channels, scales)), site.shape, site.place)

    return Pending(emit_with(np.zeros(channels, np.int32)), site.shape, site.place, add_bias=add_bias)


def _matmul(site: Site, args: Sequence[Value]) -> Value:
    data = _real_operand(args[0], "its input")
    weights = _weights_of(args[1])
    if weights.stored.ndim > 2 and math.prod(weights.stored.shape[:-2]) == 1:
        weights = weights.map(lambda a: a.reshape(a.shape[-2:]))
    if weights.stored.ndim != 2:
        raise NoIntegerForm("a matrix product whose weights are not a matrix")
    arranged = weights.map(np.transpose)
    scales = data.quantization.scale * _per_channel(arranged, 0)
    values = _int8_weights(arranged)
    order = identity_order(len(_shape_of(site, data)))

    def emit_with(bias: NDArray[np.int32]) -> Callable[[Quantization, op.Clamp], tuple[int, Order]]:
        def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
            _check_accumulator(values, bias, data.quantization.zero_point)
            operator = op.Dense(
                weights=np.ascontiguousarray(values),
                bias=bias,
                input_zero_point=data.quantization.zero_point,
                output_zero_point=quantization.zero_point,
                multipliers=_wide_multipliers(scales / quantization.scale),
                clamp=clamp,
            )
            source = _in_order(site, data, order)
            tensor = site.builder.step(operator, (source,), site.place, site.name, site.shape, quantization)
            return tensor, identity_order(len(site.shape))

        return emit

    return _accumulating(site, emit_with, scales, len(site.shape) - 1)


# --- elementwise --------------------------------------------------------------------------------------------


def _add(site: Site, args: Sequence[Value]) -> Value:
    first, second = args
    if all(isinstance(value, (Constant, QuantizedConstant)) for value in args):
        return _constant_arithmetic(np.add)(site, args)
    for pending, bias in ((first, second), (second, first)):
        if isinstance(pending, Pending) and isinstance(bias, (Constant, QuantizedConstant)):
            if pending.add_bias is None or pending.moves:
                raise NoIntegerForm("a constant added to a result that has not been quantised")
            return pending.add_bias(bias)
    if isinstance(first, (Constant, QuantizedConstant)):
        first, second = second, first
    left = _real_operand(first, "its first input")
    if isinstance(second, (Constant, QuantizedConstant)):
        right = _constant_operand(site, second)
    else:
        right = _real_operand(second, "its second input")
    rank = len(site.shape)
    order = left.order if len(left.order) == rank else identity_order(rank)

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        scales = (left.quantization.scale, right.quantization.scale)
        twice_max = 2.0 * max(scales)
        operator = op.Add(
            (left.quantization.zero_point, right.quantization.zero_point),
            (_rescale(scales[0] / twice_max), _rescale(scales[1] / twice_max)),
            quantization.zero_point,
            _rescale(twice_max / ((1 << ADD_LEFT_SHIFT) * quantization.scale)),
            clamp,
        )
        sources = tuple(_broadcast_ready(site, value, order) for value in (left, right))
        tensor = site.builder.step(
            operator, sources, site.place, site.name, site.physical(order), quantization
        )
        return tensor, order

    return Pending(emit, site.shape, site.place)


def _broadcast_ready(site: Site, value: Real, order: Order) -> int:
    """The operand with leading axes of size 1 up to the rank of `order`, stored in `order`."""
    shape = _shape_of(site, value)
    missing = len(order) - len(shape)
    if missing == 0:
        return _in_order(site, value, order)
    logical = _in_order(site, value, identity_order(len(shape)))
    padded = site.builder.view(logical, (1,) * missing + shape)
    return site.builder.in_order(padded, identity_order(len(order)), order, site.place)


def _constant_operand(site: Site, value: Constant | QuantizedConstant) -> Real:
    """A constant as an int8 tensor.

    As it is stored where it is int8 with one scale, else quantised symmetrically.
    """
    name = f"{site.name}_constant"
    if isinstance(value, QuantizedConstant) and value.dtype == "int8":
        scales, zero_points = np.unique(value.scale), np.unique(value.zero_point)
        if scales.size == 1 and zero_points.size == 1:
            quantization = Quantization(float(scales[0]), int(zero_points[0]))
            data = value.stored.astype(np.int8)
            tensor = site.builder.tensor(name, data.shape, "int8", quantization, data=data)
            return Real(tensor, identity_order(data.ndim), quantization)
    reals = value.reals() if isinstance(value, QuantizedConstant) else value.array.astype(np.float64)
    largest = float(np.abs(reals).max(initial=0.0))
    quantization = Quantization(float(np.float32(largest / 127.0)) if largest > 0 else 1.0, 0)
    data = np.clip(round_half_away(reals / quantization.scale), -128, 127).astype(np.int8)
    tensor = site.builder.tensor(name, data.shape, "int8", quantization, data=data)
    return Real(tensor, identity_order(data.ndim), quantization)


def _bounded(low: float, high: float) -> Rule:
    def rule(site: Site, args: Sequence[Value]) -> Value:
        return _apply_bounds(site, args[0], low, high)

    return rule


def _apply_bounds(site: Site, value: Value, low: float, high: float) -> Value:
    if isinstance(value, Pending):
        return value.clamped(low, high)
    if isinstance(value, Stored):
        return _clip_stored(site, value, low, high)
    if isinstance(value, Float):
        return _quantized(site, value).clamped(low, high)
    return _requantized(site, _real_operand(value, "its input"), quotient=np.float32).clamped(low, high)


def _clip_stored(site: Site, value: Stored, low: float, high: float) -> Value:
    """A clip of stored integers; `simplify` merges it into the operator that made them where it can."""
    clamp = op.Clamp(int(max(low - value.offset, -128)), int(min(high - value.offset, 127)))
    if clamp == op.FullRange:
        return value
    source = site.builder.tensors[value.tensor]
    operator = op.Requantize(0, 0, None, clamp)
    tensor = site.builder.step(
        operator, (value.tensor,), site.place, site.name, source.shape, source.quantization
    )
    return Stored(tensor, value.order, value.offset)


def _clip(site: Site, args: Sequence[Value]) -> Value:
    low, high = (_scalar(bound) for bound in site.call.args[1:3])
    return _apply_bounds(site, args[0], low, high)


def _one_sided(upper: bool) -> Rule:
    """maximum(x, c) and minimum(x, c) with a constant c."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        value, bound = args
        if isinstance(value, (Constant, QuantizedConstant)):
            value, bound = bound, value
        if not isinstance(bound, Constant):
            raise NoIntegerForm("minimum or maximum of two activations")
        limit = _scalar(bound)
        return _apply_bounds(site, value, -math.inf if upper else limit, limit if upper else math.inf)

    return rule


# --- pooling and reductions ---------------------------------------------------------------------------------


def _pool_window(site: Site, data: Real | Stored, order: Order) -> op.Window:
    """The window; what ceil_mode adds below and to the right becomes padding."""
    attrs = site.attrs
    height, width = (_shape_of(site, data)[order[axis]] for axis in (1, 2))
    out_h, out_w = (site.shape[order[axis]] for axis in (1, 2))
    kernel, stride, dilation = (_ints(values) for values in (attrs.pool_size, attrs.strides, attrs.dilation))
    top, left, bottom, right = _ints(attrs.padding)
    bottom = max(bottom, (out_h - 1) * stride[0] + (kernel[0] - 1) * dilation[0] + 1 - height - top)
    right = max(right, (out_w - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1 - width - left)
    return op.Window(
        (kernel[0], kernel[1]), (stride[0], stride[1]), (top, left, bottom, right), (dilation[0], dilation[1])
    )


def _max_pool2d(site: Site, args: Sequence[Value]) -> Value:
    data = args[0] if isinstance(args[0], Stored) else _real_operand(args[0], "its input")
    order = _nhwc(str(site.attrs.layout))
    window = _pool_window(site, data, order)
    source = _in_order(site, data, order)
    quantization = _quantization_of(site, data)
    tensor = site.builder.step(
        op.MaxPool(window, op.FullRange), (source,), site.place, site.name, site.physical(order), quantization
    )
    return _with_tensor(data, tensor, order)


def _avg_pool2d(site: Site, args: Sequence[Value]) -> Value:
    data = _real_operand(args[0], "its input")
    order = _nhwc(str(site.attrs.layout))
    window = _pool_window(site, data, order)
    if window.dilation != (1, 1):
        raise NoIntegerForm("an average pool with dilation")
    count_padding = bool(site.attrs.count_include_pad) and any(window.padding)
    if count_padding and bool(site.attrs.ceil_mode):
        raise NoIntegerForm("an average pool that counts its padding in ceil mode")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = _in_order(site, data, order)
        same = _same(data.quantization, quantization)
        shape = site.physical(order)
        height, width = site.builder.tensors[source].shape[1:3]
        if not same and window.kernel == (height, width) and not any(window.padding):
            # One window over everything: the mean form keeps the fraction that averaging first would round
            # off.
            return _emit_mean(site, data, source, (1, 2), shape, quantization, clamp), order
        operator = op.AveragePool(
            window, data.quantization.zero_point, count_padding, clamp if same else op.FullRange
        )
        pooled = site.builder.step(operator, (source,), site.place, site.name, shape, data.quantization)
        if same:
            return pooled, order
        rescale = _rescale(data.quantization.scale / quantization.scale)
        change = op.Requantize(data.quantization.zero_point, quantization.zero_point, rescale, clamp)
        return site.builder.step(change, (pooled,), site.place, site.name, shape, quantization), order

    return Pending(emit, site.shape, site.place)


def _emit_mean(
    site: Site,
    data: Real,
    source: int,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
    quantization: Quantization,
    clamp: op.Clamp,
) -> int:
    count = math.prod(site.builder.tensors[source].shape[axis] for axis in axes)
    if count * 255 >= 2**31:
        raise NoIntegerForm("its accumulator could overflow 32 bits")
    operator = op.Mean(
        axes,
        data.quantization.zero_point,
        quantization.zero_point,
        _mean_rescale(data.quantization.scale / quantization.scale, count),
        clamp,
    )
    return site.builder.step(operator, (source,), site.place, site.name, shape, quantization)


def _mean_rescale(real: float, count: int) -> op.Rescale:
    """Fold the division by `count` into the multiplier as TFLite does (`reduce.h:QuantizedMeanOrSum`).

    The multiplier is widened by as many bits as `count` has (at most 32, and no further than a shift of −31
    allows), divided in integers, and the shift lowered by the same number.
    """
    base = _rescale(real)
    widen = min(count.bit_length() - 1, 32, 31 + base.shift)
    return op.Rescale((base.multiplier << widen) // count, base.shift - widen)


def _mean(site: Site, args: Sequence[Value]) -> Value:
    data = _real_operand(args[0], "its input")
    logical = _shape_of(site, data)
    rank = len(logical)
    attr_axes = getattr(site.attrs, "axis", None)
    axes = set(range(rank)) if attr_axes is None else {axis % rank for axis in _ints(attr_axes)}
    keep = bool(site.attrs.keepdims)

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        physical_axes = tuple(position for position, axis in enumerate(data.order) if axis in axes)
        source_shape = site.builder.tensors[data.tensor].shape
        kept = tuple(1 if p in physical_axes else size for p, size in enumerate(source_shape))
        tensor = _emit_mean(site, data, data.tensor, physical_axes, kept, quantization, clamp)
        if keep:
            return tensor, data.order
        logical_first = site.builder.in_order(tensor, data.order, identity_order(rank), site.place)
        return site.builder.view(logical_first, site.shape), identity_order(len(site.shape))

    return Pending(emit, site.shape, site.place)


def _adaptive_avg_pool2d(site: Site, args: Sequence[Value]) -> Value:
    data = _real_operand(args[0], "its input")
    order = _nhwc(str(site.attrs.layout))
    if (site.shape[order[1]], site.shape[order[2]]) != (1, 1):
        raise NoIntegerForm("adaptive pooling to more than one value a channel")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = _in_order(site, data, order)
        return _emit_mean(site, data, source, (1, 2), site.physical(order), quantization, clamp), order

    return Pending(emit, site.shape, site.place)


def _softmax(site: Site, args: Sequence[Value]) -> Value:
    data = _real_operand(args[0], "its input")
    rank = len(site.shape)
    axis = int(site.attrs.axis) % rank
    if any(size != 1 for size in site.shape[axis + 1 :]):
        raise NoIntegerForm("softmax over an axis that is not the last")
    order = identity_order(rank)
    if site.shape[axis] > SOFTMAX_MAX_CLASSES:
        raise NoIntegerForm(f"softmax over more than {SOFTMAX_MAX_CLASSES} values")

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = _in_order(site, data, order)
        rows = site.shape[: axis + 1]
        flat = site.builder.view(source, rows)
        try:
            table = exponential_table(data.quantization.scale)
        except ValueError as error:
            raise NoIntegerForm(str(error)) from None
        tensor = site.builder.step(op.Softmax(table), (flat,), site.place, site.name, rows, SOFTMAX_OUTPUT)
        if not _same(quantization, SOFTMAX_OUTPUT) or clamp != op.FullRange:
            rescale = _rescale(SOFTMAX_OUTPUT.scale / quantization.scale)
            change = op.Requantize(SOFTMAX_OUTPUT.zero_point, quantization.zero_point, rescale, clamp)
            tensor = site.builder.step(change, (tensor,), site.place, site.name, rows, quantization)
        return site.builder.view(tensor, site.shape), order

    return Pending(emit, site.shape, site.place)


# --- data movement ------------------------------------------------------------------------------------------


def _movable(site: Site, value: Value) -> Real | Stored:
    return value if isinstance(value, Stored) else _real_operand(value, "its input")


def _reshape(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    if isinstance(value, Constant):
        return Constant(value.array.reshape(site.shape))
    if isinstance(value, QuantizedConstant):
        return value.map(lambda a: a.reshape(site.shape))
    if isinstance(value, Float):
        return Float(site.builder.view(value.tensor, site.shape))

    def move(stored: Stored) -> Stored:
        rank = len(stored.order)
        logical = site.builder.in_order(stored.tensor, stored.order, identity_order(rank), site.place)
        return Stored(site.builder.view(logical, site.shape), identity_order(len(site.shape)), stored.offset)

    return _moved(site, value, move)


def _moved(site: Site, value: Value, move: Callable[[Stored], Stored]) -> Value:
    """Apply a data movement to whatever form the value has."""
    if isinstance(value, Pending):
        return value.moved(move, site.shape)
    movable = _movable(site, value)
    result = move(Stored(movable.tensor, movable.order, getattr(movable, "offset", 0)))
    return _with_tensor(movable, result.tensor, result.order)


def _permute_dims(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    attr_axes = site.attrs.axes
    rank = len(site.shape)
    axes = (
        tuple(reversed(range(rank))) if attr_axes is None else tuple(axis % rank for axis in _ints(attr_axes))
    )
    if isinstance(value, Constant):
        return Constant(np.transpose(value.array, axes))
    if isinstance(value, QuantizedConstant):
        return value.map(lambda a: np.transpose(a, axes))
    if isinstance(value, Float):
        return Float(site.builder.transpose(value.tensor, axes, site.place))

    def move(stored: Stored) -> Stored:
        return Stored(stored.tensor, tuple(axes.index(axis) for axis in stored.order), stored.offset)

    return _moved(site, value, move)


def _concat(site: Site, args: Sequence[Value]) -> Value:
    fields = args[0].fields if isinstance(args[0], Tuple) else tuple(args)
    axis = int(site.attrs.axis) % len(site.shape)
    if all(isinstance(field, Constant) for field in fields):
        return Constant(
            np.concatenate([field.array for field in fields if isinstance(field, Constant)], axis)
        )
    if all(isinstance(field, Stored) for field in fields):
        stored = [field for field in fields if isinstance(field, Stored)]
        if len({value.offset for value in stored}) > 1:
            raise NoIntegerForm("int8 joined with uint8")
        quantization = _quantization_of(site, stored[0])
        tensor, order = _emit_concat(site, stored, axis, None, quantization, op.FullRange)
        return Stored(tensor, order, stored[0].offset)
    reals = [
        _constant_operand(site, field)
        if isinstance(field, (Constant, QuantizedConstant))
        else _real_operand(field, f"input {position}")
        for position, field in enumerate(fields)
    ]

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        return _emit_concat(site, reals, axis, [real.quantization for real in reals], quantization, clamp)

    return Pending(emit, site.shape, site.place)


def _emit_concat(
    site: Site,
    values: Sequence[Real] | Sequence[Stored],
    axis: int,
    quantizations: Sequence[Quantization] | None,
    quantization: Quantization | None,
    clamp: op.Clamp,
) -> tuple[int, Order]:
    order = values[0].order
    rescales: list[op.Rescale | None] = [None] * len(values)
    zero_points = [0] * len(values)
    output_zero_point = 0
    if quantizations is not None and quantization is not None:
        output_zero_point = quantization.zero_point
        zero_points = [each.zero_point for each in quantizations]
        rescales = [
            None if _same(each, quantization) else _rescale(each.scale / quantization.scale)
            for each in quantizations
        ]
    operator = op.Concat(order.index(axis), tuple(zero_points), tuple(rescales), output_zero_point, clamp)
    sources = tuple(_in_order(site, value, order) for value in values)
    shape = site.physical(order)
    return site.builder.step(operator, sources, site.place, site.name, shape, quantization), order


def _pad(site: Site, args: Sequence[Value]) -> Value:
    value = _movable(site, args[0])
    if str(getattr(site.attrs, "pad_mode", "constant")) != "constant":
        raise NoIntegerForm(f"padding of mode {site.attrs.pad_mode}")
    widths = _ints(site.attrs.pad_width)
    fill = float(site.attrs.pad_value)
    if isinstance(value, Real):
        quantization = value.quantization
        stored_fill = _stored_bound(fill, quantization)
    else:
        stored_fill = int(np.clip(fill - value.offset, -128, 127))
    before = tuple(widths[2 * axis] for axis in value.order)
    after = tuple(widths[2 * axis + 1] for axis in value.order)
    if min(before + after) < 0:
        raise NoIntegerForm("negative padding")
    operator = op.Pad(before, after, stored_fill)
    tensor = site.builder.step(
        operator,
        (value.tensor,),
        site.place,
        site.name,
        site.physical(value.order),
        _quantization_of(site, value),
    )
    return _with_tensor(value, tensor, value.order)


def _astype(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    dtype = str(site.attrs.dtype)
    if isinstance(value, Constant):
        return Constant(value.array.astype(dtype))
    if isinstance(value, Stored) and dtype == ("uint8" if value.offset else "int8"):
        return value
    raise NoIntegerForm(f"a cast to {dtype}")


def _constant_arithmetic(function: Callable[..., Any]) -> Rule:
    """Operators that are folded when all operands are constants and refused otherwise."""

    def rule(site: Site, args: Sequence[Value]) -> Value:
        arrays = []
        for value in args:
            if isinstance(value, Constant):
                arrays.append(value.array)
            elif isinstance(value, QuantizedConstant):
                arrays.append(value.reals().astype(np.float32))
            else:
                raise NoIntegerForm("it has no integer form yet")
        return Constant(np.asarray(function(*arrays)))

    return rule


def _multiply(site: Site, args: Sequence[Value]) -> Value:
    """A product of constants; or an activation times a positive number, which only changes its scale."""
    for value, factor in (args, args[::-1]):
        if not isinstance(value, Real) or not isinstance(factor, (Constant, QuantizedConstant)):
            continue
        reals = factor.reals() if isinstance(factor, QuantizedConstant) else factor.array
        if reals.size == 1 and reals.ndim <= len(value.order) and 0 < float(reals.reshape(())) < math.inf:
            scale = value.quantization.scale * float(reals.reshape(()))
            return Real(value.tensor, value.order, Quantization(scale, value.quantization.zero_point))
    return _constant_arithmetic(np.multiply)(site, args)


RULES: Mapping[str, Rule] = {
    "relax.quantize": _quantize,
    "relax.dequantize": _dequantize,
    "relax.nn.conv2d": _conv2d,
    "relax.matmul": _matmul,
    "relax.add": _add,
    "relax.nn.relu": _bounded(0.0, math.inf),
    "relax.nn.relu6": _bounded(0.0, 6.0),
    "relax.clip": _clip,
    "relax.maximum": _one_sided(upper=False),
    "relax.minimum": _one_sided(upper=True),
    "relax.nn.max_pool2d": _max_pool2d,
    "relax.nn.avg_pool2d": _avg_pool2d,
    "relax.nn.adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "relax.mean": _mean,
    "relax.nn.softmax": _softmax,
    "relax.reshape": _reshape,
    "relax.squeeze": _reshape,
    "relax.expand_dims": _reshape,
    "relax.flatten": _reshape,
    "relax.nn.batch_flatten": _reshape,
    "relax.permute_dims": _permute_dims,
    "relax.concat": _concat,
    "relax.nn.pad": _pad,
    "relax.astype": _astype,
    "relax.multiply": _multiply,
    "relax.subtract": _constant_arithmetic(np.subtract),
    "relax.divide": _constant_arithmetic(np.divide),
}
