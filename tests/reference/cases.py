"""Random operators with random data, as hypothesis strategies: what every implementation is compared on.

A `Case` knows how to add itself to a TFLite model and what numpy says its output is. Several cases become one
model with several inputs and outputs, so that a test pays for loading or compiling once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference import int8
from tests.reference.int8 import Quantized
from tests.reference.tflite_builder import Tensor, TfliteBuilder, output_extent

__all__ = [
    "ACTIVATIONS",
    "OPERATORS",
    "PADDINGS",
    "SEEDS",
    "ZERO_POINTS",
    "Case",
    "Input",
    "any_scales",
    "batch_model",
    "int8_values",
    "layers",
    "pairs",
    "quantized",
    "windows",
]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Input:
    """One input tensor: its data and quantisation (None: float32)."""

    values: Array = field(repr=False)
    quantized: Quantized | None


@dataclass(frozen=True, slots=True)
class Case:
    """One operator with its inputs; `add` puts it into a model, `expected` is the numpy answer.

    Without `expected` LiteRT alone says what the answer is. `add` gives one tensor, or several.
    """

    operator: str
    inputs: tuple[Input, ...]
    parameters: Mapping[str, Any]
    add: Callable[[TfliteBuilder, Sequence[Tensor]], Tensor | Sequence[Tensor]] = field(repr=False)
    expected: Callable[[], Array] | None = field(repr=False, default=None)


def batch_model(cases: Sequence[Case]) -> tuple[bytes, list[Array]]:
    """One TFLite model of all cases side by side, and its inputs in order.

    The outputs are those of the cases in order: output i belongs to case i where each has one.
    """
    builder = TfliteBuilder()
    arrays: list[Array] = []
    tensors = []
    for case in cases:
        mine = []
        for item in case.inputs:
            scale, zero = (item.quantized.scale, item.quantized.zero_point) if item.quantized else (0.0, 0)
            mine.append(builder.input(item.values.shape, scale, zero, dtype=item.values.dtype.name))
            arrays.append(item.values)
        tensors.append(mine)
    for case, mine in zip(cases, tensors, strict=True):
        made = case.add(builder, mine)
        builder.output(*([made] if isinstance(made, Tensor) else made))
    return builder.build(), arrays


# --- drawing ---------------------------------------------------------------------------------------


def any_scales(low: float = -10.0, high: float = 1.0) -> st.SearchStrategy[float]:
    """float32 scales: any, and simple ones (few bits) whose quotients fall on halves."""
    anything = st.floats(low, high).map(lambda exponent: float(np.float32(2.0**exponent)))
    simple = st.tuples(st.integers(1, 12), st.integers(math.ceil(low), math.floor(high) - 4)).map(
        lambda pair: float(np.float32(pair[0] * 2.0 ** pair[1]))
    )
    return st.one_of(anything, simple)


ZERO_POINTS = st.one_of(st.integers(-128, 127), st.sampled_from([-128, 0, 127]))
ACTIVATIONS: st.SearchStrategy[int8.Activation] = st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
PADDINGS: st.SearchStrategy[int8.Padding] = st.sampled_from(["SAME", "VALID"])
SEEDS = st.integers(0, 2**32 - 1)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def quantized(draw: st.DrawFn, scales: st.SearchStrategy[float] | None = None) -> Quantized:
    return Quantized(draw(any_scales() if scales is None else scales), draw(ZERO_POINTS))


def int8_values(rng: np.random.Generator, shape: Sequence[int]) -> NDArray[np.int8]:
    """Uniform, or near one value, or at the ends of the range."""
    kind = rng.integers(4)
    if kind == 0:
        values = np.rint(rng.normal(rng.integers(-128, 128), rng.uniform(1, 30), shape))
    elif kind == 1:
        values = rng.choice([-128, -127, -1, 0, 1, 127], shape)
    else:
        values = rng.integers(-128, 128, shape)
    return np.asarray(np.clip(values, -128, 127)).astype(np.int8)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What convolutions and fully connected layers share beside their shapes."""

    q_x: Quantized
    q_y: Quantized
    weight_scales: tuple[float, ...]
    rng: np.random.Generator

    def weights(self, shape: Sequence[int]) -> NDArray[np.int8]:
        return np.maximum(int8_values(self.rng, shape), -127)

    def bias(self, channels: int, depth: int) -> NDArray[np.int32]:
        """Like the accumulators in size; sometimes so large that a left shift of the sum wraps."""
        limit = 2**25 if self.rng.integers(20) == 0 else 64 * depth
        return self.rng.integers(-limit, limit + 1, channels).astype(np.int32)


@st.composite
def layers(draw: st.DrawFn, channels: int) -> _Layer:
    q_x = draw(quantized())
    per_channel = draw(st.booleans())
    weight_scales = tuple(draw(any_scales()) for _ in range(channels if per_channel else 1))
    # The product of scales over the output's is 2^-14 … 2^3, so that outputs neither vanish nor all saturate
    # and a left shift occurs; or the output has a scale of its own.
    ratio = draw(st.floats(-14.0, 3.0))
    product = q_x.scale * max(weight_scales)
    y_scale = float(np.float32(product / 2.0**ratio))
    if draw(st.booleans()):
        simple = draw(any_scales(-4.0, 4.0))
        y_scale = simple if product / simple <= 8 else y_scale
    q_y = Quantized(y_scale, draw(ZERO_POINTS))
    return _Layer(q_x, q_y, weight_scales, np.random.default_rng(draw(SEEDS)))


@st.composite
def windows(draw: st.DrawFn, *, dilate: bool, largest: int = 9) -> dict[str, Any]:
    """Kernel, stride, dilation, padding and an input height and width that they fit."""
    kernel, stride, padding = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(PADDINGS)
    # TFLite's convolutions take a stride or a dilation along an axis, not both at will: keep one of them 1.
    dilation = draw(pairs(1, 3)) if dilate and stride == (1, 1) else (1, 1)
    extent = draw(pairs(1, largest))
    if padding == "VALID":
        extent = (
            max(extent[0], (kernel[0] - 1) * dilation[0] + 1),
            max(extent[1], (kernel[1] - 1) * dilation[1] + 1),
        )
    for i in range(2):
        assert output_extent(extent[i], kernel[i], stride[i], dilation[i], padding) >= 1
    return {"extent": extent, "kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}


# --- operators -------------------------------------------------------------------------------------


@st.composite
def conv2d_cases(draw: st.DrawFn) -> Case:
    window = draw(windows(dilate=True))
    extent, kernel = window.pop("extent"), window.pop("kernel")
    batch, depth, channels = draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    layer = draw(layers(channels))
    window["activation"] = draw(ACTIVATIONS)
    x = int8_values(layer.rng, (batch, *extent, depth))
    w = layer.weights((channels, *kernel, depth))
    b = layer.bias(channels, math.prod(kernel) * depth)
    q_x, q_y, scales = layer.q_x, layer.q_y, layer.weight_scales
    return Case(
        "conv2d",
        (Input(x, q_x),),
        {"x": x.shape, "w": w.shape, "q_x": q_x, "scales": scales, "q_y": q_y, **window},
        lambda m, t: m.conv2d(t[0], w, b, scales, q_y.scale, q_y.zero_point, **window),
        lambda: int8.conv2d(x, w, b, q_x, scales, q_y, **window),
    )


@st.composite
def depthwise_conv2d_cases(draw: st.DrawFn) -> Case:
    window = draw(windows(dilate=True))
    extent, kernel = window.pop("extent"), window.pop("kernel")
    batch, depth, multiplier = draw(st.integers(1, 2)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    channels = depth * multiplier
    layer = draw(layers(channels))
    window["activation"] = draw(ACTIVATIONS)
    x = int8_values(layer.rng, (batch, *extent, depth))
    w = layer.weights((1, *kernel, channels))
    b = layer.bias(channels, math.prod(kernel))
    q_x, q_y, scales = layer.q_x, layer.q_y, layer.weight_scales
    return Case(
        "depthwise_conv2d",
        (Input(x, q_x),),
        {"x": x.shape, "w": w.shape, "q_x": q_x, "scales": scales, "q_y": q_y, **window},
        lambda m, t: m.depthwise_conv2d(t[0], w, b, scales, q_y.scale, q_y.zero_point, **window),
        lambda: int8.depthwise_conv2d(x, w, b, q_x, scales, q_y, **window),
    )


@st.composite
def fully_connected_cases(draw: st.DrawFn) -> Case:
    rows, depth, channels = draw(st.integers(1, 6)), draw(st.integers(1, 40)), draw(st.integers(1, 20))
    layer = draw(layers(channels))
    activation = draw(ACTIVATIONS)
    # As rows; with inner dimensions that are flattened; or with outer ones that are kept.
    shape, keep = draw(
        st.sampled_from(
            [
                ((rows, depth), False),
                ((rows, 1, depth, 1), False),
                ((rows, 1, depth), True),
                ((rows, depth), True),
            ]
        )
    )
    x, w = int8_values(layer.rng, shape), layer.weights((channels, depth))
    b = layer.bias(channels, depth) if draw(st.booleans()) else None
    q_x, q_y, scales = layer.q_x, layer.q_y, layer.weight_scales
    return Case(
        "fully_connected",
        (Input(x, q_x),),
        {
            "x": x.shape,
            "w": w.shape,
            "bias": b is not None,
            "keep_num_dims": keep,
            "q_x": q_x,
            "scales": scales,
            "q_y": q_y,
            "activation": activation,
        },
        lambda m, t: m.fully_connected(t[0], w, b, scales, q_y.scale, q_y.zero_point, activation=activation),
        lambda: int8.fully_connected(x, w, b, q_x, scales, q_y, activation=activation),
    )


@st.composite
def add_cases(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    other = shape
    if draw(st.booleans()):
        other = tuple(extent if draw(st.booleans()) else 1 for extent in shape)[draw(st.integers(0, 1)) :]
        other = other or (1,)
    q_a, q_b = draw(quantized()), draw(quantized())
    q_y = Quantized(draw(any_scales(-8.0, 3.0)), draw(ZERO_POINTS))
    activation = draw(ACTIVATIONS)
    rng = np.random.default_rng(draw(SEEDS))
    a, b = int8_values(rng, shape), int8_values(rng, other)
    if draw(st.booleans()):
        a, b, q_a, q_b = b, a, q_b, q_a
    return Case(
        "add",
        (Input(a, q_a), Input(b, q_b)),
        {"a": a.shape, "b": b.shape, "q_a": q_a, "q_b": q_b, "q_y": q_y, "activation": activation},
        lambda m, t: m.add(t[0], t[1], q_y.scale, q_y.zero_point, activation=activation),
        lambda: int8.add(a, b, q_a, q_b, q_y, activation=activation),
    )


def _pool_cases(name: str) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        window = draw(windows(dilate=False))
        extent, kernel = window.pop("extent"), window.pop("kernel")
        del window["dilation"]
        if draw(st.integers(0, 3)) == 0:  # global
            kernel = extent
        window["activation"] = draw(ACTIVATIONS)
        q = draw(quantized())
        rng = np.random.default_rng(draw(SEEDS))
        x = int8_values(rng, (draw(st.integers(1, 2)), *extent, draw(st.integers(1, 9))))
        reference = int8.average_pool if name == "average_pool" else int8.max_pool
        return Case(
            name,
            (Input(x, q),),
            {"x": x.shape, "kernel": kernel, "q": q, **window},
            lambda m, t: getattr(m, name)(t[0], kernel, **window),
            lambda: reference(x, q, kernel, **window),
        )

    return cases()


@st.composite
def mean_cases(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 8), min_size=2, max_size=4)))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    if len(shape) == 4 and draw(st.booleans()):
        axes = draw(st.sampled_from([[1, 2], [2, 1]]))
    axes = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    keep_dims = draw(st.booleans()) or len(axes) == len(shape)
    q_x = draw(quantized())
    q_y = (
        q_x
        if draw(st.booleans())
        else Quantized(q_x.scale * 2.0 ** draw(st.floats(-4, 4)), draw(ZERO_POINTS))
    )
    q_y = Quantized(float(np.float32(q_y.scale)), q_y.zero_point)
    x = int8_values(np.random.default_rng(draw(SEEDS)), shape)
    return Case(
        "mean",
        (Input(x, q_x),),
        {"x": shape, "axes": axes, "keep_dims": keep_dims, "q_x": q_x, "q_y": q_y},
        lambda m, t: m.mean(t[0], axes, q_y.scale, q_y.zero_point, keep_dims=keep_dims),
        lambda: int8.mean(x, axes, q_x, q_y, keep_dims=keep_dims),
    )


@st.composite
def pad_cases(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    paddings = [draw(pairs(0, 3)) for _ in shape]
    q = draw(quantized())
    x = int8_values(np.random.default_rng(draw(SEEDS)), shape)
    value = draw(st.one_of(st.none(), st.integers(-128, 127)))
    if value is None:
        return Case(
            "pad",
            (Input(x, q),),
            {"x": shape, "paddings": paddings, "q": q},
            lambda m, t: m.pad(t[0], paddings),
            lambda: int8.pad(x, paddings, q.zero_point),
        )
    return Case(
        "padv2",
        (Input(x, q),),
        {"x": shape, "paddings": paddings, "q": q, "value": value},
        lambda m, t: m.padv2(t[0], paddings, value),
        lambda: int8.pad(x, paddings, value),
    )


@st.composite
def concatenation_cases(draw: st.DrawFn) -> Case:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = draw(st.integers(0, len(shape) - 1))
    q = draw(quantized())
    rng = np.random.default_rng(draw(SEEDS))
    xs = []
    for _ in range(draw(st.integers(2, 4))):
        extents = list(shape)
        extents[axis] = draw(st.integers(1, 5))
        xs.append(int8_values(rng, extents))
    signed = axis - len(shape) if draw(st.booleans()) else axis
    return Case(
        "concatenation",
        tuple(Input(x, q) for x in xs),
        {"shapes": [x.shape for x in xs], "axis": signed, "q": q},
        lambda m, t: m.concatenation(t, signed, q.scale, q.zero_point),
        lambda: int8.concatenation(xs, axis),
    )


@st.composite
def reshape_cases(draw: st.DrawFn) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    target = draw(st.sampled_from([(math.prod(shape),), (1, math.prod(shape)), tuple(reversed(shape))]))
    q = draw(quantized())
    x = int8_values(np.random.default_rng(draw(SEEDS)), shape)
    return Case(
        "reshape",
        (Input(x, q),),
        {"x": shape, "target": target},
        lambda m, t: m.reshape(t[0], target),
        lambda: x.reshape(target),
    )


_EVERY_VALUE = np.arange(-128, 128, dtype=np.int8)


@st.composite
def _rescalings(draw: st.DrawFn) -> tuple[Quantized, Quantized]:
    """Input and output quantisation; often the quotient of the scales puts some x on a half."""
    q_x = draw(quantized())
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return q_x, Quantized(q_x.scale, draw(ZERO_POINTS))
    if kind == 1:
        return q_x, draw(quantized())
    half = draw(st.integers(0, 120)) + 0.5
    scale = float(np.float32(q_x.scale * draw(st.integers(1, 255)) / half))
    return q_x, Quantized(scale, draw(ZERO_POINTS))


@st.composite
def relu_cases(draw: st.DrawFn) -> Case:
    q_x, q_y = draw(_rescalings())
    name = draw(st.sampled_from(["relu", "relu6"]))
    activation: int8.Activation = "RELU" if name == "relu" else "RELU6"
    x = _EVERY_VALUE.reshape(1, 4, 8, 8)
    return Case(
        name,
        (Input(x, q_x),),
        {"q_x": q_x, "q_y": q_y},
        lambda m, t: getattr(m, name)(t[0], q_y.scale, q_y.zero_point),
        lambda: int8.relu(x, q_x, q_y, activation),
    )


@st.composite
def requantize_cases(draw: st.DrawFn) -> Case:
    q_x, q_y = draw(_rescalings())
    x = _EVERY_VALUE.reshape(1, 256)
    return Case(
        "requantize",
        (Input(x, q_x),),
        {"q_x": q_x, "q_y": q_y},
        lambda m, t: m.quantize(t[0], q_y.scale, q_y.zero_point),
        lambda: int8.requantize(x, q_x, q_y),
    )


@st.composite
def quantize_cases(draw: st.DrawFn) -> Case:
    q_y = draw(quantized())
    scale = np.float32(q_y.scale)
    rng = np.random.default_rng(draw(SEEDS))
    halves = (np.arange(-260, 260, dtype=np.float32) + np.float32(0.5)) * scale
    x = np.concatenate(
        [
            halves,
            np.nextafter(halves, np.float32(0)),
            np.arange(-260, 260, dtype=np.float32) * scale,
            (rng.uniform(-400, 400, 400) * q_y.scale).astype(np.float32),
            np.array([0.0, -0.0, 1e-45, -1e-45, 1e-30, 2.0**30 * scale, -(2.0**30) * scale], np.float32),
        ]
    ).astype(np.float32)[None]
    return Case(
        "quantize",
        (Input(x, None),),
        {"q_y": q_y},
        lambda m, t: m.quantize(t[0], q_y.scale, q_y.zero_point),
        lambda: int8.quantize(x, q_y),
    )


@st.composite
def dequantize_cases(draw: st.DrawFn) -> Case:
    q_x = draw(quantized())
    x = _EVERY_VALUE.reshape(1, 256)
    return Case(
        "dequantize",
        (Input(x, q_x),),
        {"q_x": q_x},
        lambda m, t: m.dequantize(t[0]),
        lambda: int8.dequantize(x, q_x),
    )


@st.composite
def softmax_cases(draw: st.DrawFn) -> Case:
    classes = draw(st.sampled_from([1, 2, 3, 10, 12, 64, 257, 511, 1000]))
    rows = draw(st.integers(1, 4))
    q_x = draw(quantized(any_scales(-12.0, 6.0)))
    beta = draw(st.sampled_from([1.0, 1.0, 0.5, 2.0, 0.3]))
    x = int8_values(np.random.default_rng(draw(SEEDS)), (rows, classes))
    # 512 and more exponentials near 1 abort LiteRT: make room by raising one class above the rest.
    if classes > 511:
        x = np.minimum(x, -16)
        x[:, 0] = 127
        q_x = Quantized(max(q_x.scale, 0.0625), q_x.zero_point)
    return Case(
        "softmax",
        (Input(x, q_x),),
        {"x": x.shape, "q_x": q_x, "beta": beta},
        lambda m, t: m.softmax(t[0], beta=beta),
        lambda: int8.softmax(x, q_x.scale, beta),
    )


OPERATORS: Mapping[str, st.SearchStrategy[Case]] = {
    "conv2d": conv2d_cases(),
    "depthwise_conv2d": depthwise_conv2d_cases(),
    "fully_connected": fully_connected_cases(),
    "add": add_cases(),
    "average_pool": _pool_cases("average_pool"),
    "max_pool": _pool_cases("max_pool"),
    "mean": mean_cases(),
    "pad": pad_cases(),
    "concatenation": concatenation_cases(),
    "reshape": reshape_cases(),
    "relu": relu_cases(),
    "requantize": requantize_cases(),
    "quantize": quantize_cases(),
    "dequantize": dequantize_cases(),
    "softmax": softmax_cases(),
}
