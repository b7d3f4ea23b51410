"""Random operators for the schedules: shapes, quantisation and data, to the edges of preconditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import quantize_multiplier, wide_multipliers
from edgekit.compiler.softmax import exponential_table
from tests.schedules.batch import Case, Network

__all__ = ["OPERATORS", "case"]

Rng = np.random.Generator
Int8 = NDArray[np.int8]

_ZERO_POINTS = (-128, -127, -1, 0, 3, 127)


def activations(rng: Rng, shape: tuple[int, ...]) -> Int8:
    """Uniform, or the ends of the range only."""
    if rng.integers(4) == 0:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def weights(rng: Rng, shape: tuple[int, ...]) -> Int8:
    """Uniform; all at one end; ends of either sign; −128 too, which TFLite does not use; sparse."""
    kind = rng.integers(8)
    if kind == 0:
        return np.full(shape, rng.choice([-127, 127]), np.int8)
    if kind == 1:
        return rng.choice(np.array([-127, 127], np.int8), shape)
    if kind == 2:
        return rng.choice(np.array([-128, -1, 0, 127], np.int8), shape)
    if kind == 3:
        return (rng.integers(-127, 128, shape) * (rng.random(shape) < 0.2)).astype(np.int8)
    return rng.integers(-127, 128, shape).astype(np.int8)


def zero_point(rng: Rng) -> int:
    return int(rng.choice(_ZERO_POINTS)) if rng.integers(2) else int(rng.integers(-128, 128))


def clamp(rng: Rng, zero: int) -> op.Clamp:
    """None, ReLU, ReLU6-like, any; of more than one value, which the lowering would make a constant."""
    kind = rng.integers(4)
    if kind == 0:
        return op.FullRange
    if kind == 1:
        return op.Clamp(min(zero, 126), 127)
    if kind == 2:
        low = min(zero, 126)
        return op.Clamp(low, int(rng.integers(low + 1, 128)))
    low, high = sorted(rng.choice(256, 2, replace=False).tolist())
    return op.Clamp(low - 128, high - 128)


def scales(rng: Rng, values: Int8) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Multipliers and shifts a channel: outputs that fill their range, simple ones, and the edges."""
    channels = values.shape[0]
    deviation = np.sqrt((values.astype(np.float64) ** 2).reshape(channels, -1).sum(axis=1)) * 74 + 1
    reals = rng.uniform(20, 150, channels) / deviation
    kind = rng.integers(8)
    if kind == 0:
        reals = 2.0 ** np.floor(np.log2(reals))  # halves occur
    if kind == 1:
        reals = 2.0 ** rng.uniform(-24, 0, channels)
    pairs = [quantize_multiplier(float(real)) for real in reals]
    if kind == 2:
        pairs[int(rng.integers(channels))] = [
            (0, 0),
            (2**30, 0),
            (2**31 - 1, -1),
            (2**30, 1),
            (2**31 - 1, -22),
        ][int(rng.integers(5))]
    if kind == 3:
        for _ in range(int(rng.integers(1, 3))):
            large = int(rng.integers(2**30, 2**31)), int(rng.integers(-1, 9))
            pairs[int(rng.integers(channels))] = large
    return (
        np.array([pair[0] for pair in pairs], np.int32),
        np.array([pair[1] for pair in pairs], np.int32),
    )


def bias(rng: Rng, channels: int, depth: int) -> NDArray[np.int32]:
    limit = 2**29 if rng.integers(12) == 0 else 100 * depth
    return rng.integers(-limit, limit + 1, channels).astype(np.int32)


def _window(
    rng: Rng, kernel: tuple[int, int], stride: tuple[int, int], *, dilated: bool | np.bool_ = False
) -> tuple[op.Window, tuple[int, int], tuple[int, int]]:
    """A window with any padding, an input it fits, and the output's size."""
    dilation = (int(rng.integers(1, 3)), 1) if dilated else (1, 1)
    while True:
        padding = tuple(int(rng.integers(0, size)) if rng.integers(3) else 0 for size in (*kernel, *kernel))
        height, width = int(rng.integers(1, 14)), int(rng.integers(1, 18))
        window = op.Window(kernel, stride, padding, dilation)  # type: ignore[arg-type]
        rows, columns = window.output_size(height, width)
        if rows >= 1 and columns >= 1:
            return window, (height, width), (rows, columns)


def _convolution(
    rng: Rng, kernel: tuple[int, int], stride: tuple[int, int], depth: int, channels: int
) -> Network:
    window, (height, width), (rows, columns) = _window(
        rng, kernel, stride, dilated=bool(rng.integers(5) == 0)
    )
    batch = 2 if rng.integers(6) == 0 else 1
    values = weights(rng, (channels, *kernel, depth))
    multipliers, shifts = scales(rng, values)
    zero = zero_point(rng)
    operator = op.Conv2D(
        window=window,
        weights=values,
        bias=bias(rng, channels, values[0].size),
        input_zero_point=zero_point(rng),
        output_zero_point=zero,
        multipliers=multipliers,
        shifts=shifts,
        clamp=clamp(rng, zero),
        rounding="single" if rng.integers(2) else "double",
    )
    return Case(operator, [activations(rng, (batch, height, width, depth))], (batch, rows, columns, channels))


def case(operator: str, seed: int) -> Network:
    """The case of an operator that a seed stands for."""
    made = OPERATORS[operator](np.random.default_rng(seed))
    return Network(made.inputs, made.operators, f"{operator} seed {seed}:")


def _pick(rng: Rng, values: tuple[int, ...]) -> int:
    return int(rng.choice(values))


def conv2d(rng: Rng) -> Network:
    """k x k, any stride; few input channels as often as many."""
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 5)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    depth = _pick(rng, (1, 2, 3, 4)) if rng.integers(2) else _pick(rng, (5, 8, 12, 16, 20, 30, 33, 67))
    return _convolution(rng, kernel, stride, depth, _pick(rng, (2, 4, 6, 8, 16, 1, 3, 5)))


def pointwise(rng: Rng) -> Network:
    stride = int(rng.integers(1, 3)) if rng.integers(3) == 0 else 1
    depth = _pick(rng, (4, 8, 16, 32, 60, 64, 68, 128, 3, 6, 10, 257, 258, 259))
    return _convolution(rng, (1, 1), (stride, stride), depth, _pick(rng, (2, 4, 8, 16, 30, 1, 33)))


def single_pixel(rng: Rng) -> Network:
    """Fewer pixels than a block has, or weights that add up to more than a block can tell apart."""
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    depth = _pick(rng, (1, 3, 4, 10, 64, 130))
    if rng.integers(3) == 0:
        depth, kernel = 700, (1, int(rng.integers(1, 3)))
    while True:
        network = _convolution(rng, kernel, (1, 1), depth, _pick(rng, (1, 3, 4, 8)))
        if np.prod(network.operators[0][2][1:3]) <= (3 if depth == 700 else 2):
            return network


def one_channel(rng: Rng) -> Network:
    """A depthwise convolution of one input channel to some."""
    kernel, stride = (int(rng.integers(1, 9)), int(rng.integers(1, 9))), _pick(rng, (1, 2))
    made = _convolution(rng, kernel, (stride, stride), 1, _pick(rng, (1, 2, 7, 8)))
    operator, read, shape = made.operators[0]
    assert isinstance(operator, op.Conv2D)
    same = {
        field.name: getattr(operator, field.name) for field in fields(operator) if field.name != "weights"
    }
    across = np.ascontiguousarray(operator.weights[..., 0].transpose(1, 2, 0))
    return Network(made.inputs, ((op.DepthwiseConv2D(weights=across, **same), read, shape),))


def depthwise(rng: Rng) -> Network:
    """3x3 mostly; sometimes so few channels that only the portable schedule has an answer."""
    kernel = (3, 3) if rng.integers(3) else (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    stride = _pick(rng, (1, 2, 3))
    channels = _pick(rng, (4, 8, 12, 16, 5, 6, 7, 30)) if rng.integers(10) else _pick(rng, (1, 3))
    window, (height, width), (rows, columns) = _window(
        rng, kernel, (stride, stride), dilated=rng.integers(6) == 0
    )
    if rng.integers(5) == 0:
        width = int(rng.integers(30, 70))
        rows, columns = window.output_size(height, width)
    return _depthwise(rng, window, channels, (height, width), (rows, columns))


def small_depthwise(rng: Rng) -> Network:
    """3x3 over a few pixels of many channels."""
    stride = _pick(rng, (1, 2))
    while True:
        window, (height, width), out = _window(rng, (3, 3), (stride, stride))
        if height * width <= 144 and width <= 12:
            break
    channels = 4 * int(rng.integers(1, 4095 // (4 * width) + 1))
    if height * width * channels > 12_000:
        channels = 8
    return _depthwise(rng, window, channels, (height, width), out)


def _depthwise(
    rng: Rng, window: op.Window, channels: int, size: tuple[int, int], out: tuple[int, int]
) -> Network:
    values = weights(rng, (channels, *window.kernel))
    multipliers, shifts = scales(rng, values)
    zero = zero_point(rng)
    batch = 2 if rng.integers(6) == 0 else 1
    operator = op.DepthwiseConv2D(
        window=window,
        weights=np.ascontiguousarray(values.transpose(1, 2, 0)),
        bias=bias(rng, channels, values[0].size),
        input_zero_point=zero_point(rng),
        output_zero_point=zero,
        multipliers=multipliers,
        shifts=shifts,
        clamp=clamp(rng, zero),
        rounding="single" if rng.integers(2) else "double",
    )
    return Case(operator, [activations(rng, (batch, *size, channels))], (batch, *out, channels))


def dense(rng: Rng) -> Network:
    depth = _pick(rng, (1, 3, 4, 8, 10, 64, 65, 128, 260, 640, 1030, 1568, 3136))
    channels = _pick(rng, (1, 2, 4, 5, 8, 10, 12, 16))
    rows = _pick(rng, (1, 1, 1, 3))
    values = weights(rng, (channels, depth))
    deviation = np.sqrt((values.astype(np.float64) ** 2).sum(axis=1)) * 74 + 1
    reals = rng.uniform(20, 150, channels) / deviation
    kind = rng.integers(6)
    if kind == 0:
        reals = 2.0 ** np.floor(np.log2(reals))
    if kind == 1:
        reals = np.full(channels, rng.integers(1, 100) * 2.0 ** -rng.integers(7, 16))
    if kind == 2:
        reals = 2.0 ** rng.uniform(-24, 1, channels)
    zero = zero_point(rng)
    operator = op.Dense(
        weights=values,
        bias=bias(rng, channels, depth),
        input_zero_point=zero_point(rng),
        output_zero_point=zero,
        multipliers=wide_multipliers(reals),
        clamp=clamp(rng, zero),
    )
    return Case(operator, [activations(rng, (rows, depth))], (rows, channels))


def _pair_of_shapes(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of two operands and of what they broadcast to: equal mostly, else any axes of one."""
    shape = (1, int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(1, 20)))
    if rng.integers(2):
        return shape, shape, shape
    axes = rng.integers(0, 3, 4)
    first = tuple(1 if axis == 1 else size for axis, size in zip(axes.tolist(), shape, strict=True))
    second = tuple(1 if axis == 2 else size for axis, size in zip(axes.tolist(), shape, strict=True))
    return first, second, shape


def multiply(rng: Rng) -> Network:
    first, second, shape = _pair_of_shapes(rng)
    zero = zero_point(rng)
    real = 2.0 ** (-float(rng.integers(1, 12)) if rng.integers(4) == 0 else rng.uniform(-24, 1))
    operator = op.Multiply(
        (zero_point(rng), zero_point(rng)), op.Rescale(*quantize_multiplier(real)), zero, clamp(rng, zero)
    )
    return Case(operator, [activations(rng, first), activations(rng, second)], shape)


def extremum(rng: Rng) -> Network:
    """Maximum or minimum; operands stored as the output is, or not."""
    first, second, shape = _pair_of_shapes(rng)
    zero = zero_point(rng)
    rescales = tuple(_rescale(rng) if rng.integers(3) == 0 else None for _ in range(2))
    kind = op.Maximum if rng.integers(2) else op.Minimum
    zeros = (zero_point(rng), zero_point(rng))
    operator = kind(zeros, rescales, zero, clamp(rng, zero))  # type: ignore[arg-type]
    return Case(operator, [activations(rng, first), activations(rng, second)], shape)


def requantize(rng: Rng) -> Network:
    shape = (1, int(rng.integers(1, 40)))
    zero = zero_point(rng)
    rescale = _rescale(rng) if rng.integers(3) else None
    source_zero = zero if rng.integers(3) == 0 else zero_point(rng)
    operator = op.Requantize(source_zero, zero, rescale, clamp(rng, zero))
    return Case(operator, [activations(rng, shape)], shape)


def _rescale(rng: Rng) -> op.Rescale:
    real = 2.0 ** (float(rng.integers(-4, 4)) if rng.integers(4) == 0 else rng.uniform(-12, 8))
    return op.Rescale(*quantize_multiplier(real))


def add(rng: Rng) -> Network:
    first_shape, second_shape, shape = _pair_of_shapes(rng)
    first, second = 2.0 ** rng.uniform(-7, -1, 2)
    if rng.integers(4) == 0:
        first, second = 2.0**-4, 2.0 ** -float(rng.integers(2, 7))
    out = max(first, second) * 2.0 ** (rng.integers(-1, 2) if rng.integers(4) == 0 else rng.uniform(-1, 1.5))
    double = 2 * max(first, second)
    zero = zero_point(rng)
    kind = op.Add if rng.integers(3) else op.Subtract
    operator = kind(
        zero_points=(zero_point(rng), zero_point(rng)),
        rescales=(
            op.Rescale(*quantize_multiplier(first / double)),
            op.Rescale(*quantize_multiplier(second / double)),
        ),
        output_zero_point=zero,
        output_rescale=op.Rescale(*quantize_multiplier(double / (2**20 * out))),
        clamp=clamp(rng, zero),
    )
    return Case(operator, [activations(rng, first_shape), activations(rng, second_shape)], shape)


def lookup(rng: Rng) -> Network:
    shape = (1, int(rng.integers(1, 40)))
    table = rng.integers(-128, 128, 256).astype(np.int8)
    return Case(op.Lookup(table), [activations(rng, shape)], shape)


def average_pool(rng: Rng) -> Network:
    window, size, out = _window(rng, _kernel(rng), _stride(rng))
    if rng.integers(3) == 0:  # Powers of two, nothing padded.
        height, width = 2 ** int(rng.integers(0, 4)), 2 ** int(rng.integers(0, 4))
        window, out = op.Window((height, width), (height, width)), (2, 3)
        size = 2 * height + int(rng.integers(height)), 3 * width
    zero = zero_point(rng)
    operator = op.AveragePool(window, zero, bool(rng.integers(2)), clamp(rng, zero))
    return _pooled(rng, operator, size, out)


def max_pool(rng: Rng) -> Network:
    window, size, out = _window(rng, _kernel(rng), _stride(rng))
    return _pooled(rng, op.MaxPool(window, clamp(rng, zero_point(rng))), size, out)


def _kernel(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(1, 7)), int(rng.integers(1, 7))


def _stride(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(1, 4)), int(rng.integers(1, 4))


def _pooled(rng: Rng, operator: op.Operator, size: tuple[int, int], out: tuple[int, int]) -> Network:
    channels = _pick(rng, (4, 8, 12, 3, 5, 10, 15))
    batch = 2 if rng.integers(6) == 0 else 1
    return Case(operator, [activations(rng, (batch, *size, channels))], (batch, *out, channels))


def mean(rng: Rng) -> Network:
    height, width = int(rng.integers(1, 20)), int(rng.integers(1, 20))
    channels = _pick(rng, (4, 8, 12, 5, 10, 3))
    batch = 2 if rng.integers(6) == 0 else 1
    real = rng.uniform(0.2, 1.6) / (height * width)
    zero = zero_point(rng)
    operator = op.Mean(
        (1, 2), zero_point(rng), zero, op.Rescale(*quantize_multiplier(real)), clamp(rng, zero)
    )
    shape = (batch, 1, 1, channels)
    return Case(operator, [activations(rng, (batch, height, width, channels))], shape)


def concat(rng: Rng) -> Network:
    axis = int(rng.integers(1, 4))
    shapes = []
    for _ in range(int(rng.integers(2, 5))):
        shape = [1, 3, 4, 9]
        shape[axis] = int(rng.integers(1, 17))
        shapes.append(tuple(shape))
    out = list(shapes[0])
    out[axis] = sum(shape[axis] for shape in shapes)
    zero = zero_point(rng)
    zeros = tuple(zero_point(rng) for _ in shapes)
    rescales = tuple(_rescale(rng) if rng.integers(3) == 0 else None for _ in shapes)
    limits = clamp(rng, zero) if rng.integers(3) == 0 else op.FullRange
    operator = op.Concat(axis, zeros, rescales, zero, limits)
    return Case(operator, [activations(rng, shape) for shape in shapes], tuple(out))


def pad(rng: Rng) -> Network:
    """Any dimensions, any borders."""
    shape = tuple(int(rng.integers(1, 12)) for _ in range(int(rng.integers(1, 5))))
    before, after = (
        tuple(int(rng.integers(0, 4)) if rng.integers(2) else 0 for _ in shape) for _ in range(2)
    )
    out = tuple(sum(sizes) for sizes in zip(before, shape, after, strict=True))
    return Case(op.Pad(before, after, zero_point(rng)), [activations(rng, shape)], out)


def cut(rng: Rng) -> Network:
    """A slice, with steps over some places."""
    shape = tuple(int(rng.integers(1, 14)) for _ in range(int(rng.integers(1, 5))))
    begin, strides, out = [], [], []
    for size in shape:
        first = int(rng.integers(0, size)) if rng.integers(2) else 0
        stride = int(rng.choice([1, 1, 1, 2, 3])) if rng.integers(8) else -1
        places = first // -stride + 1 if stride < 0 else -(-(size - first) // stride)
        begin.append(first)
        strides.append(stride)
        out.append(int(rng.integers(1, places + 1)) if rng.integers(2) else places)
    return Case(op.Slice(tuple(begin), tuple(strides)), [activations(rng, shape)], tuple(out))


def softmax(rng: Rng) -> Network:
    """Any number of classes; scales from those that tell nothing apart to those that leave the largest."""
    classes = _pick(rng, (1, 2, 3, 4, 5, 10, 33, 700, 4095))
    rows = _pick(rng, (1, 1, 3))
    scale = 2.0 ** rng.uniform(-14, 3)
    values = activations(rng, (rows, classes))
    if rng.integers(4) == 0:
        values = np.full((rows, classes), rng.integers(-128, 128), np.int8)
    return Case(op.Softmax(exponential_table(scale)), [values], (rows, classes))


OPERATORS: Mapping[str, Callable[[Rng], Network]] = {
    function.__name__: function
    for function in (
        conv2d,
        pointwise,
        single_pixel,
        one_channel,
        depthwise,
        small_depthwise,
        dense,
        add,
        multiply,
        extremum,
        requantize,
        lookup,
        average_pool,
        max_pool,
        mean,
        concat,
        pad,
        cut,
        softmax,
    )
}
