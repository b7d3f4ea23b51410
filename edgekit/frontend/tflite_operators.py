"""The TFLite operators that can be imported: their options, the rule of their shapes, their operands.

`OPERATORS` is the list; what is not in it is refused by name. Each entry checks one operator's operands and
options and infers the shape of its output, by LiteRT's own rules (tensorflow/lite/kernels/*.cc: Prepare).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from edgekit.errors import ModelError
from edgekit.frontend.flatbuffer import Table
from edgekit.frontend.shapes import MAX_ELEMENTS, shape_text, show_name
from edgekit.frontend.tflite_graph import TfliteOperator, TfliteTensor

__all__ = [
    "OPERATORS",
    "Activation",
    "Operands",
    "Padding",
    "Rule",
    "Shape",
    "Window",
    "activation_of",
    "arg_axis",
    "leaky_slope",
    "matmul_adjoints",
    "normal_axes",
    "resize_modes",
    "same_padding",
    "transposed_window",
    "window_of",
]

Shape = tuple[int, ...]


class Activation(IntEnum):
    """Fused activation; the numbers are the schema's."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3


class Padding(IntEnum):
    """The numbers are the schema's."""

    SAME = 0
    VALID = 1


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a convolution or pooling. `pads` is (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    output: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Operands:
    """An operator with its tensors, their shapes already fixed; None stands for an operand left out."""

    operator: TfliteOperator
    inputs: tuple[TfliteTensor | None, ...]
    outputs: tuple[TfliteTensor, ...]

    @property
    def output(self) -> TfliteTensor:
        """The first output, of most operators the only one."""
        return self.outputs[0]

    @property
    def options(self) -> Table | None:
        return self.operator.options

    def place(self) -> str:
        return f"{self.operator.op} {show_name(self.output.name)} (operator {self.operator.index})"

    def wrong(self, why: str) -> ModelError:
        return ModelError(f"{self.place()} of the TFLite file makes no sense: {why}.")

    def input(self, position: int) -> TfliteTensor:
        tensor = self.inputs[position] if position < len(self.inputs) else None
        if tensor is None:
            raise self.wrong(f"input {position} is missing")
        return tensor

    def optional(self, position: int) -> TfliteTensor | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def integers(self, position: int) -> tuple[int, ...]:
        """The values of a small constant of integers, flattened."""
        tensor = self.input(position)
        if tensor.data is None or tensor.dtype not in ("int32", "int64"):
            raise self.wrong(f"input {position} must be a constant of integers")
        values = tensor.values()
        if values.size > 64:
            raise self.wrong(f"input {position} has {values.size} elements")
        return tuple(int(v) for v in values.ravel())


@dataclass(frozen=True, slots=True)
class Rule:
    """What may come in, and the shape that goes out.

    `constants` are the positions of operands that must be constants, `weights` the position of an int8
    constant whose quantisation may be per channel along `channel_axis`, `plain` the positions of operands
    that are integers for the operator itself (shapes, axes) and carry no quantisation, `data` the position
    of the operand that is computed on. Operators of several outputs have `shapes` instead of `shape`.
    """

    shape: Callable[[Operands], Shape] | None
    inputs: tuple[int, int]
    plain: tuple[int, ...] = ()
    weights: int | None = None
    channel_axis: int = 0
    bias: int | None = None
    same_quantization: bool = False
    options_type: int | None = None
    data: int = 0
    shapes: Callable[[Operands], tuple[Shape, ...]] | None = None

    def output_shapes(self, operands: Operands) -> tuple[Shape, ...]:
        """The shape of each output."""
        if self.shapes is not None:
            return self.shapes(operands)
        assert self.shape is not None
        return (self.shape(operands),)


def activation_of(operands: Operands, field: int) -> Activation | None:
    """The fused activation, None for one that has no integer form (TANH, SIGN_BIT)."""
    number = operands.options.i8(field) if operands.options is not None else 0
    if not 0 <= number <= 5:
        raise operands.wrong(f"fused activation {number} is unknown")
    return Activation(number) if number <= 3 else None


def same_padding(size: int, effective: int, stride: int) -> tuple[int, int, int]:
    """(before, after, output size) of SAME padding: the smaller half goes before, as in LiteRT."""
    output = -(-size // stride)
    total = max((output - 1) * stride + effective - size, 0)
    return total // 2, total - total // 2, output


def _window(
    operands: Operands,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: int,
) -> Window:
    limit = 1 << 16
    if not all(1 <= v <= limit for v in (*kernel, *strides, *dilation)):
        raise operands.wrong(f"kernel {kernel}, strides {strides}, dilation {dilation} must be 1 or more")
    if padding not in (Padding.SAME, Padding.VALID):
        raise operands.wrong(f"padding {padding} is unknown")
    before, after, output = [], [], []
    for n, k, s, d in zip(size, kernel, strides, dilation, strict=True):
        effective = (k - 1) * d + 1
        if padding == Padding.SAME:
            low, high, out = same_padding(n, effective, s)
        else:
            low, high, out = 0, 0, (n - effective) // s + 1
        if out < 1:
            raise operands.wrong(f"a window of {effective} on {n} leaves nothing")
        before.append(low)
        after.append(high)
        output.append(out)
    pads = (before[0], before[1], after[0], after[1])
    return Window(kernel, strides, dilation, pads, (output[0], output[1]))


def window_of(operands: Operands) -> Window:
    """Geometry of CONV_2D, DEPTHWISE_CONV_2D, AVERAGE_POOL_2D or MAX_POOL_2D."""
    options = operands.options
    shape = operands.input(0).shape
    if options is None:
        raise operands.wrong("its options are missing")
    if len(shape) != 4:
        raise operands.wrong(f"its input has {len(shape)} dimensions, not 4")
    size = (shape[1], shape[2])
    strides = (options.i32(2), options.i32(1))
    if operands.operator.op.endswith("POOL_2D"):
        kernel = (options.i32(4), options.i32(3))
        return _window(operands, size, kernel, strides, (1, 1), options.i8(0))
    filter_shape = operands.input(1).shape
    if len(filter_shape) != 4:
        raise operands.wrong(f"its filter has {len(filter_shape)} dimensions, not 4")
    first = 5 if operands.operator.op == "DEPTHWISE_CONV_2D" else 4
    dilation = (options.i32(first + 1, 1), options.i32(first, 1))
    kernel = (filter_shape[1], filter_shape[2])
    return _window(operands, size, kernel, strides, dilation, options.i8(0))


def transposed_window(operands: Operands) -> Window:
    """Geometry of TRANSPOSE_CONV: `output` is what its first operand says; pads after may be negative."""
    options = operands.options
    if options is None:
        raise operands.wrong("its options are missing")
    filter_shape, shape, output = operands.input(1).shape, operands.input(2).shape, operands.integers(0)
    if len(filter_shape) != 4 or len(shape) != 4 or len(output) != 4:
        raise operands.wrong("its filter, input and output shape do not have 4 dimensions each")
    limit, strides, padding = 1 << 16, (options.i32(2), options.i32(1)), options.i8(0)
    kernel = (filter_shape[1], filter_shape[2])
    if not all(1 <= v <= limit for v in (*strides, *output)) or min(kernel) < 1:
        raise operands.wrong(f"strides {strides} and output shape {output} must be 1 or more")
    if padding not in (Padding.SAME, Padding.VALID):
        raise operands.wrong(f"padding {padding} is unknown")
    before, after = [], []
    for n, k, s, out in zip(shape[1:3], kernel, strides, output[1:3], strict=True):
        low = same_padding(out, k, s)[0] if padding == Padding.SAME else 0
        before.append(low)
        after.append((n - 1) * s + k - low - out)
    pads = (before[0], before[1], after[0], after[1])
    return Window(kernel, strides, (1, 1), pads, (output[1], output[2]))


def _transpose_conv(operands: Operands) -> Shape:
    window = transposed_window(operands)
    batch, _, _, channels = operands.input(2).shape
    out_channels, _, _, in_channels = operands.input(1).shape
    if channels != in_channels or operands.integers(0)[::3] != (batch, out_channels):
        raise operands.wrong(
            f"a filter of {out_channels}x…x{in_channels} on an input of {channels} channels, "
            f"to {shape_text(operands.integers(0))}"
        )
    _check_bias(operands, out_channels, position=3)
    return (batch, *window.output, out_channels)


def _check_bias(operands: Operands, channels: int, position: int = 2) -> None:
    bias = operands.optional(position)
    if bias is not None and bias.shape != (channels,):
        raise operands.wrong(f"its bias is {shape_text(bias.shape)} for {channels} channels")


def _conv2d(operands: Operands) -> Shape:
    window = window_of(operands)
    batch, _, _, channels = operands.input(0).shape
    out_channels, _, _, in_channels = operands.input(1).shape
    if channels % in_channels or out_channels % (channels // in_channels):
        raise operands.wrong(f"a filter of {in_channels} channels on an input of {channels}")
    _check_bias(operands, out_channels)
    return (batch, *window.output, out_channels)


def _depthwise(operands: Operands) -> Shape:
    window = window_of(operands)
    batch, _, _, channels = operands.input(0).shape
    one, _, _, out_channels = operands.input(1).shape
    if one != 1 or out_channels % channels:
        raise operands.wrong(f"a filter of {one}x…x{out_channels} on an input of {channels} channels")
    _check_bias(operands, out_channels)
    return (batch, *window.output, out_channels)


def _fully_connected(operands: Operands) -> Shape:
    x, w = operands.input(0), operands.input(1)
    if len(w.shape) != 2:
        raise operands.wrong(f"its weights have {len(w.shape)} dimensions, not 2")
    units, depth = w.shape
    if operands.options is not None and operands.options.i8(1) != 0:
        raise operands.wrong("its weights are in a shuffled format")
    elements = int(np.prod(x.shape, dtype=np.int64))
    if elements % depth:
        raise operands.wrong(f"weights of depth {depth} on an input of {elements} elements")
    _check_bias(operands, units)
    if operands.options is not None and operands.options.boolean(2):
        if not x.shape or x.shape[-1] != depth:
            raise operands.wrong(f"weights of depth {depth} on an input of {shape_text(x.shape)}")
        return (*x.shape[:-1], units)
    return (elements // depth, units)


def _pool(operands: Operands) -> Shape:
    batch, _, _, channels = operands.input(0).shape if len(operands.input(0).shape) == 4 else (0, 0, 0, 0)
    return (batch, *window_of(operands).output, channels)


def _broadcast(operands: Operands) -> Shape:
    a, b = operands.input(0).shape, operands.input(1).shape
    try:
        return tuple(int(d) for d in np.broadcast_shapes(a, b))
    except ValueError:
        raise operands.wrong(f"{shape_text(a)} and {shape_text(b)} do not broadcast") from None


def _same(operands: Operands) -> Shape:
    return operands.input(0).shape


def normal_axes(operands: Operands, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The axes counted from 0, each once, in order."""
    if any(not -rank <= a < rank for a in axes):
        raise operands.wrong(f"axes {axes} of a tensor of {rank} dimensions")
    return tuple(sorted({a % rank for a in axes}))


def reduce_axes(operands: Operands) -> tuple[int, ...]:
    """The axes of a reduction, each once, in order, from 0."""
    return normal_axes(operands, operands.integers(1), len(operands.input(0).shape))


def _reduce(operands: Operands) -> Shape:
    shape = operands.input(0).shape
    axes = reduce_axes(operands)
    keep = operands.options is not None and operands.options.boolean(0)
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)


def pad_widths(operands: Operands) -> tuple[tuple[int, int], ...]:
    """(before, after) of each dimension."""
    shape = operands.input(0).shape
    values = operands.integers(1)
    if operands.input(1).shape != (len(shape), 2) or any(not 0 <= v <= 1 << 20 for v in values):
        raise operands.wrong(f"paddings {values} of a tensor of {len(shape)} dimensions")
    return tuple((values[2 * i], values[2 * i + 1]) for i in range(len(shape)))


def _pad(operands: Operands) -> Shape:
    fill = operands.optional(2)
    if fill is not None and (fill.data is None or int(np.prod(fill.shape)) != 1):
        raise operands.wrong("its fill value must be one constant")
    shape = operands.input(0).shape
    return tuple(d + b + a for d, (b, a) in zip(shape, pad_widths(operands), strict=True))


def concatenation_axis(operands: Operands) -> int:
    rank = len(operands.input(0).shape)
    axis = operands.options.i32(0) if operands.options is not None else 0
    return normal_axes(operands, (axis,), rank)[0]


def _concatenation(operands: Operands) -> Shape:
    axis = concatenation_axis(operands)
    shapes = [operands.input(i).shape for i in range(len(operands.inputs))]
    first = shapes[0]
    for shape in shapes:
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(shape, first, strict=True)) if i != axis
        ):
            raise operands.wrong(f"{' and '.join(map(shape_text, shapes[:4]))} do not join along {axis}")
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])


def _reshape(operands: Operands) -> Shape:
    elements = int(np.prod(operands.input(0).shape, dtype=np.int64))
    if operands.optional(1) is not None:
        wanted = operands.integers(1)
    elif operands.options is not None:
        wanted = operands.options.i32s(0, limit=8) or ()
    else:
        raise operands.wrong("neither a shape operand nor a shape option")
    if wanted == (0,):
        # LiteRT reads a lone zero as the empty shape of a scalar (files of the first converters).
        wanted = ()
    if len(wanted) > 8 or any(d < -1 or d == 0 for d in wanted) or wanted.count(-1) > 1:
        raise operands.wrong(f"it reshapes to {wanted}")
    known = 1
    for d in wanted:
        known *= d if d > 0 else 1
        if known > MAX_ELEMENTS:
            raise operands.wrong(f"it reshapes to {wanted}")
    shape = tuple(elements // known if d == -1 else d for d in wanted)
    if int(np.prod(shape, dtype=np.int64)) != elements:
        raise operands.wrong(f"it reshapes {elements} elements to {wanted}")
    return shape


def _squeeze(operands: Operands) -> Shape:
    shape = operands.input(0).shape
    dims = (operands.options.i32s(0, limit=8) if operands.options is not None else None) or ()
    axes = (
        normal_axes(operands, dims, len(shape)) if dims else tuple(i for i, d in enumerate(shape) if d == 1)
    )
    if any(shape[a] != 1 for a in axes):
        raise operands.wrong(f"it squeezes {axes} of {shape_text(shape)}")
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _expand_dims(operands: Operands) -> Shape:
    shape = operands.input(0).shape
    values = operands.integers(1)
    if len(values) != 1 or len(shape) >= 8:
        raise operands.wrong(f"axis {values}")
    axis = normal_axes(operands, values, len(shape) + 1)[0]
    return (*shape[:axis], 1, *shape[axis:])


def permutation(operands: Operands) -> tuple[int, ...]:
    """The axes of a transpose, from 0."""
    rank = len(operands.input(0).shape)
    values = operands.integers(1)
    if len(values) != rank or normal_axes(operands, values, rank) != tuple(range(rank)):
        raise operands.wrong(f"{values} is no permutation of {rank} axes")
    return tuple(v % rank for v in values)


def _transpose(operands: Operands) -> Shape:
    shape = operands.input(0).shape
    return tuple(shape[a] for a in permutation(operands))


def softmax_beta(operands: Operands) -> float:
    beta = operands.options.f32(0) if operands.options is not None else 0.0
    if not (np.isfinite(beta) and beta > 0):
        raise operands.wrong(f"beta is {beta}")
    return beta


def _softmax(operands: Operands) -> Shape:
    softmax_beta(operands)
    return _row(operands)


def _row(operands: Operands) -> Shape:
    """Of what is computed along the last axis."""
    if not operands.input(0).shape:
        raise operands.wrong("its input has no dimension")
    return operands.input(0).shape


def leaky_slope(operands: Operands) -> float:
    """The slope of LEAKY_RELU's negative side."""
    slope = operands.options.f32(0) if operands.options is not None else 0.0
    if not np.isfinite(slope):
        raise operands.wrong(f"its slope is {slope}")
    return slope


def _prelu(operands: Operands) -> Shape:
    shape, slopes = operands.input(0).shape, operands.input(1)
    if slopes.data is None or _broadcast(operands) != shape:
        raise operands.wrong(f"slopes of {shape_text(slopes.shape)} that are computed or do not broadcast")
    return shape


def matmul_adjoints(operands: Operands) -> tuple[bool, bool]:
    """BATCH_MATMUL: which of its operands are transposed, their last two axes."""
    options = operands.options
    return (options.boolean(0), options.boolean(1)) if options is not None else (False, False)


def _batch_matmul(operands: Operands) -> Shape:
    shapes = []
    for position, adjoint in enumerate(matmul_adjoints(operands)):
        shape = operands.input(position).shape
        if not 2 <= len(shape) <= 5:
            raise operands.wrong(f"its input {position} has {len(shape)} dimensions")
        shapes.append((*shape[:-2], shape[-1], shape[-2]) if adjoint else shape)
    a, b = shapes
    try:
        batch = tuple(int(d) for d in np.broadcast_shapes(a[:-2], b[:-2]))
    except ValueError:
        batch = None
    if batch is None or a[-1] != b[-2]:
        raise operands.wrong(f"{shape_text(a)} and {shape_text(b)} have no product")
    return (*batch, a[-2], b[-1])


def resize_modes(operands: Operands) -> tuple[bool, bool]:
    """RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR: align_corners, half_pixel_centers."""
    options = operands.options
    # The fields 0 and 1 of the bilinear table held sizes in old files.
    first = 2 if operands.operator.op == "RESIZE_BILINEAR" else 0
    modes = (options.boolean(first), options.boolean(first + 1)) if options is not None else (False, False)
    if all(modes):
        raise operands.wrong("it aligns corners and centres of pixels both")
    return modes


def _resize(operands: Operands) -> Shape:
    shape, size = operands.input(0).shape, operands.integers(1)
    resize_modes(operands)
    if len(shape) != 4 or len(size) != 2 or not all(1 <= n <= 1 << 16 for n in size):
        raise operands.wrong(f"it resizes {shape_text(shape)} to {size}")
    return (shape[0], *size, shape[3])


def arg_axis(operands: Operands) -> int:
    values = operands.integers(1)
    if len(values) != 1 or not operands.input(0).shape:
        raise operands.wrong(f"axis {values}")
    return normal_axes(operands, values, len(operands.input(0).shape))[0]


def _arg(operands: Operands) -> Shape:
    axis, shape = arg_axis(operands), operands.input(0).shape
    return (*shape[:axis], *shape[axis + 1 :])


OPERATORS: Mapping[str, Rule] = {
    "ABS": Rule(_same, (1, 1)),
    "ADD": Rule(_broadcast, (2, 2), options_type=11),
    "AVERAGE_POOL_2D": Rule(_pool, (1, 1), same_quantization=True, options_type=5),
    "ARG_MAX": Rule(_arg, (2, 2), plain=(1,), options_type=40),
    "ARG_MIN": Rule(_arg, (2, 2), plain=(1,), options_type=57),
    "BATCH_MATMUL": Rule(_batch_matmul, (2, 2), options_type=101),
    "CONCATENATION": Rule(_concatenation, (1, 1024), options_type=10),
    "CONV_2D": Rule(_conv2d, (2, 3), weights=1, channel_axis=0, bias=2, options_type=1),
    "DEPTHWISE_CONV_2D": Rule(_depthwise, (2, 3), weights=1, channel_axis=3, bias=2, options_type=2),
    "DEQUANTIZE": Rule(_same, (1, 1)),
    "DIV": Rule(_broadcast, (2, 2), options_type=29),
    "ELU": Rule(_same, (1, 1)),
    "EXP": Rule(_same, (1, 1)),
    "EXPAND_DIMS": Rule(_expand_dims, (2, 2), plain=(1,), same_quantization=True),
    "FULLY_CONNECTED": Rule(_fully_connected, (2, 3), weights=1, channel_axis=0, bias=2, options_type=8),
    "GELU": Rule(_same, (1, 1), options_type=116),
    "HARD_SWISH": Rule(_same, (1, 1)),
    "L2_NORMALIZATION": Rule(_row, (1, 1), options_type=12),
    "LEAKY_RELU": Rule(_same, (1, 1), options_type=75),
    "LOG": Rule(_same, (1, 1)),
    "LOGISTIC": Rule(_same, (1, 1)),
    "LOG_SOFTMAX": Rule(_row, (1, 1), options_type=36),
    "MAXIMUM": Rule(_broadcast, (2, 2), same_quantization=True),
    "MAX_POOL_2D": Rule(_pool, (1, 1), same_quantization=True, options_type=5),
    "MEAN": Rule(_reduce, (2, 2), plain=(1,), options_type=27),
    "MINIMUM": Rule(_broadcast, (2, 2), same_quantization=True),
    "MUL": Rule(_broadcast, (2, 2), options_type=21),
    "NEG": Rule(_same, (1, 1)),
    "PAD": Rule(_pad, (2, 2), plain=(1,), same_quantization=True),
    "PADV2": Rule(_pad, (3, 3), plain=(1,), same_quantization=True),
    "PRELU": Rule(_prelu, (2, 2)),
    "QUANTIZE": Rule(_same, (1, 1)),
    "REDUCE_MAX": Rule(_reduce, (2, 2), plain=(1,), same_quantization=True, options_type=27),
    "REDUCE_MIN": Rule(_reduce, (2, 2), plain=(1,), same_quantization=True, options_type=27),
    "RELU": Rule(_same, (1, 1)),
    "RELU6": Rule(_same, (1, 1)),
    "RELU_N1_TO_1": Rule(_same, (1, 1)),
    "RESHAPE": Rule(_reshape, (1, 2), plain=(1,), same_quantization=True, options_type=17),
    "RSQRT": Rule(_same, (1, 1)),
    "RESIZE_BILINEAR": Rule(_resize, (2, 2), plain=(1,), same_quantization=True, options_type=15),
    "RESIZE_NEAREST_NEIGHBOR": Rule(_resize, (2, 2), plain=(1,), same_quantization=True, options_type=74),
    "SOFTMAX": Rule(_softmax, (1, 1), options_type=9),
    "SQRT": Rule(_same, (1, 1)),
    "SQUARED_DIFFERENCE": Rule(_broadcast, (2, 2)),
    "SQUEEZE": Rule(_squeeze, (1, 1), same_quantization=True, options_type=30),
    "SUM": Rule(_reduce, (2, 2), plain=(1,), options_type=27),
    "SUB": Rule(_broadcast, (2, 2), options_type=28),
    "TANH": Rule(_same, (1, 1)),
    "TRANSPOSE": Rule(_transpose, (2, 2), plain=(1,), same_quantization=True),
    "TRANSPOSE_CONV": Rule(
        _transpose_conv, (3, 4), data=2, plain=(0,), weights=1, channel_axis=0, bias=3, options_type=49
    ),
}
"""By the schema's name of the operator. `options_type` is the number of its options table in the schema."""
