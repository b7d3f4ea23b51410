"""The integer definition of each operator, in TIR: what every schedule must compute, to the byte.

A definition is a tensor expression over the operator's inputs and constants. Its stages have names by which
the schedules find them: `padded` (a copy of the input with its border filled with the zero point), `sum` (a
reduction) and `output`. The rules and their sources are in docs/arithmetic.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import (
    float64_ulp_bound,
    high_multiply_shifted,
    requantize_double_rounding,
    round_as_float64,
    saturate,
    shift_right_double_rounding,
    wide_product,
)
from edgekit.compiler.program import Tensor

__all__ = ["DEFINITIONS", "Definition", "define"]

OUTPUT = "output"
SUM = "sum"
PADDED = "padded"


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """Placeholders for the inputs and the constants, the constants' values, and the output stage."""

    inputs: tuple[Any, ...]
    constants: tuple[tuple[Any, NDArray[np.generic]], ...]
    output: Any


def define(operator: op.Operator, inputs: Sequence[Tensor], output: Tensor) -> Definition:
    """The definition of `operator` over tensors of these shapes (NHWC) and types."""
    placeholders = tuple(
        te.placeholder(tensor.shape, tensor.dtype, name=f"input{position}")
        for position, tensor in enumerate(inputs)
    )
    return DEFINITIONS[type(operator)](operator, placeholders, output)


def _const(name: str, values: NDArray[np.generic]) -> tuple[Any, NDArray[np.generic]]:
    return te.placeholder(values.shape, str(values.dtype), name=name), np.ascontiguousarray(values)


def _i32(value: Any) -> Any:
    return tirx.Cast("int32", value) if not isinstance(value, int) else tirx.const(value, "int32")


def _at(tensor: Any, *index: Any) -> Any:
    return tensor[index]


def _all(conditions: Sequence[Any]) -> Any:
    combined = conditions[0]
    for condition in conditions[1:]:
        combined = tirx.And(combined, condition)
    return combined


def _padded(data: Any, window: op.Window, output: Tensor, fill: int) -> Any:
    """The input with the border that the window positions of `output` reach, filled with `fill`.

    Data if none.
    """
    batch, height, width, channels = (int(size) for size in data.shape)
    top, left = window.padding[:2]
    rows = (output.shape[1] - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
    columns = (output.shape[2] - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1] + 1
    if top == 0 and left == 0 and rows <= height and columns <= width:
        return data

    def value(n: Any, y: Any, x: Any, c: Any) -> Any:
        inside = _all([y >= top, y < top + height, x >= left, x < left + width])
        return tirx.if_then_else(inside, data[n, y - top, x - left, c], tirx.const(fill, data.dtype))

    return te.compute((batch, rows, columns, channels), value, name=PADDED)


def _biased(
    operator: op.Conv2D | op.DepthwiseConv2D | op.Dense,
    total: Any,
    weight_sums: NDArray[np.int64],
    output: Tensor,
) -> tuple[tuple[Any, NDArray[np.generic]], Any]:
    """The bias constant and the stage that adds it.

    The sums run over stored inputs, whose padding is the zero point: bias − z·Σw puts that right.
    """
    folded = operator.bias.astype(np.int64) - operator.input_zero_point * weight_sums
    bias = _const("bias", folded.astype(np.int32))
    return bias, te.compute(output.shape, lambda *at: total[at] + bias[0][at[-1]], name="biased")


def _requantized_output(
    operator: op.Conv2D | op.DepthwiseConv2D,
    total: Any,
    weight_sums: NDArray[np.int64],
    output: Tensor,
) -> tuple[list[tuple[Any, NDArray[np.generic]]], Any]:
    """Bias, per-channel requantisation and clamp of the accumulators: constants and the output stage.

    The biased sum and the product are stages of their own: as one expression TVM rewrites (sum + bias) ·
    multiplier into 64-bit additions and repeats it in the rounding.
    """
    bias, biased = _biased(operator, total, weight_sums, output)
    multipliers = _const("multipliers", operator.multipliers)
    shifts = _const("shifts", operator.shifts)

    def scale(*at: Any) -> Any:
        return high_multiply_shifted(biased[at], multipliers[0][at[-1]], shifts[0][at[-1]], operator.shifts)

    scaled = te.compute(output.shape, scale, name="scaled")

    def finish(*at: Any) -> Any:
        value = shift_right_double_rounding(scaled[at], shifts[0][at[-1]], operator.shifts)
        shifted = value + _i32(operator.output_zero_point)
        return saturate(shifted, operator.clamp.low, operator.clamp.high)

    return [bias, multipliers, shifts], te.compute(output.shape, finish, name=OUTPUT)


def _float64_output(
    operator: op.Dense, total: Any, weight_sums: NDArray[np.int64], output: Tensor
) -> tuple[list[tuple[Any, NDArray[np.generic]]], Any]:
    """Bias, scaling as float64 would, and clamp of a fully connected layer's accumulators."""
    bias, biased = _biased(operator, total, weight_sums, output)
    high = _const("multipliers_high", operator.multipliers.high)
    low = _const("multipliers_low", operator.multipliers.low)
    shifts = _const("shifts", operator.multipliers.shift)

    def product(part: Any) -> Any:
        return lambda *at: wide_product(tirx.abs(biased[at]), part[0][at[-1]])

    highs = te.compute(output.shape, product(high), name="high_product")
    lows = te.compute(output.shape, product(low), name="low_product")
    quarters = te.compute(
        output.shape,
        lambda *at: float64_ulp_bound(highs[at], lows[at], shifts[0][at[-1]]),
        name="quarters",
    )
    magnitudes = te.compute(
        output.shape,
        lambda *at: round_as_float64(highs[at], lows[at], shifts[0][at[-1]], quarters[at]),
        name="magnitude",
    )

    def finish(*at: Any) -> Any:
        value = tirx.Select(biased[at] < _i32(0), -magnitudes[at], magnitudes[at])
        return saturate(value + _i32(operator.output_zero_point), operator.clamp.low, operator.clamp.high)

    return [bias, high, low, shifts], te.compute(output.shape, finish, name=OUTPUT)


def _conv2d(operator: op.Conv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window = operator.window
    source = _padded(inputs[0], window, output, operator.input_zero_point)
    weights = _const("weights", operator.weights)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    ki = te.reduce_axis((0, operator.weights.shape[3]), name="ki")
    total = te.compute(
        output.shape,
        lambda n, y, x, o: te.sum(
            _i32(
                source[
                    n,
                    y * window.stride[0] + ky * window.dilation[0],
                    x * window.stride[1] + kx * window.dilation[1],
                    ki,
                ]
            )
            * _i32(weights[0][o, ky, kx, ki]),
            axis=[ky, kx, ki],
        ),
        name=SUM,
    )
    sums = operator.weights.astype(np.int64).sum(axis=(1, 2, 3))
    constants, result = _requantized_output(operator, total, sums, output)
    return Definition(inputs, (weights, *constants), result)


def _depthwise_conv2d(operator: op.DepthwiseConv2D, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window = operator.window
    source = _padded(inputs[0], window, output, operator.input_zero_point)
    channel_multiplier = operator.weights.shape[2] // int(inputs[0].shape[3])
    weights = _const("weights", operator.weights)
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    total = te.compute(
        output.shape,
        lambda n, y, x, c: te.sum(
            _i32(
                source[
                    n,
                    y * window.stride[0] + ky * window.dilation[0],
                    x * window.stride[1] + kx * window.dilation[1],
                    c if channel_multiplier == 1 else tirx.floordiv(c, channel_multiplier),
                ]
            )
            * _i32(weights[0][ky, kx, c]),
            axis=[ky, kx],
        ),
        name=SUM,
    )
    sums = operator.weights.astype(np.int64).sum(axis=(0, 1))
    constants, result = _requantized_output(operator, total, sums, output)
    return Definition(inputs, (weights, *constants), result)


def _dense(operator: op.Dense, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    weights = _const("weights", operator.weights)
    k = te.reduce_axis((0, operator.weights.shape[1]), name="k")
    total = te.compute(
        output.shape,
        lambda *at: te.sum(_i32(_at(inputs[0], *at[:-1], k)) * _i32(weights[0][at[-1], k]), axis=k),
        name=SUM,
    )
    sums = operator.weights.astype(np.int64).sum(axis=1)
    constants, result = _float64_output(operator, total, sums, output)
    return Definition(inputs, (weights, *constants), result)


def _rescaled(value: Any, rescale: op.Rescale) -> Any:
    """Double rounding with a multiplier known at compile time."""
    shifts = np.array([rescale.shift], np.int32)
    return requantize_double_rounding(value, _i32(rescale.multiplier), _i32(rescale.shift), shifts)


def _rescaled_stage(
    name: str, shape: tuple[int, ...], value: Callable[..., Any], rescale: op.Rescale | None
) -> Any:
    """`value` at each position, rescaled, as stages of their own: rounding reads its operand three times."""
    source = te.compute(shape, value, name=f"{name}_value")
    if rescale is None:
        return source
    shifts = np.array([rescale.shift], np.int32)
    multiplier, shift = _i32(rescale.multiplier), _i32(rescale.shift)
    high = te.compute(
        shape, lambda *at: high_multiply_shifted(source[at], multiplier, shift, shifts), name=f"{name}_high"
    )
    return te.compute(shape, lambda *at: shift_right_double_rounding(high[at], shift, shifts), name=name)


def _clamped_output(total: Any, zero_point: int, clamp: op.Clamp, output: Tensor) -> Any:
    """The output stage: zero point added, clamped, narrowed."""
    return te.compute(
        output.shape,
        lambda *at: saturate(total[at] + _i32(zero_point), clamp.low, clamp.high, output.dtype),
        name=OUTPUT,
    )


ADD_LEFT_SHIFT = 20


def _add(operator: op.Add, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def element(data: Any, at: Sequence[Any]) -> Any:
        """data at `at` under numpy broadcasting: axes of size 1 stand still."""
        return data[tuple(0 if int(size) == 1 else index for size, index in zip(data.shape, at, strict=True))]

    def centred(data: Any, zero_point: int) -> Callable[..., Any]:
        return lambda *at: (_i32(element(data, at)) - _i32(zero_point)) << _i32(ADD_LEFT_SHIFT)

    first, second = (
        _rescaled_stage(f"operand{position}", output.shape, centred(data, zero_point), rescale)
        for position, (data, zero_point, rescale) in enumerate(
            zip(inputs, operator.zero_points, operator.rescales, strict=True)
        )
    )
    total = _rescaled_stage(
        "total", output.shape, lambda *at: first[at] + second[at], operator.output_rescale
    )
    return Definition(inputs, (), _clamped_output(total, operator.output_zero_point, operator.clamp, output))


def _positions(window: op.Window, data: Any, y: Any, x: Any, ky: Any, kx: Any) -> tuple[Any, Any, Any]:
    """Row and column that a window position reads, and whether they lie inside the input."""
    row = y * window.stride[0] + ky * window.dilation[0] - window.padding[0]
    column = x * window.stride[1] + kx * window.dilation[1] - window.padding[1]
    inside = _all([row >= 0, row < int(data.shape[1]), column >= 0, column < int(data.shape[2])])
    return row, column, inside


def _inside_count(position: Any, kernel: int, stride: int, before: int, size: int) -> Any:
    """How many of the `kernel` places of a window lie inside [0, size)."""
    start = position * stride - before
    return tirx.min(start + kernel, size) - tirx.max(start, 0)


def _average_pool(operator: op.AveragePool, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window, data = operator.window, inputs[0]
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    outside = operator.zero_point if operator.count_padding else 0
    padded = any(window.padding)

    def term(n: Any, y: Any, x: Any, c: Any) -> Any:
        row, column, inside = _positions(window, data, y, x, ky, kx)
        value = _i32(data[n, row, column, c])
        return tirx.if_then_else(inside, value, _i32(outside)) if padded else value

    total = te.compute(output.shape, lambda *at: te.sum(term(*at), axis=[ky, kx]), name=SUM)

    def count(y: Any, x: Any) -> Any:
        if operator.count_padding or not padded:
            return _i32(window.kernel[0] * window.kernel[1])
        rows = _inside_count(y, window.kernel[0], window.stride[0], window.padding[0], int(data.shape[1]))
        columns = _inside_count(x, window.kernel[1], window.stride[1], window.padding[1], int(data.shape[2]))
        return rows * columns

    def value(n: Any, y: Any, x: Any, c: Any) -> Any:
        sum_, elements = total[n, y, x, c], count(y, x)
        half = tirx.truncdiv(elements, _i32(2))
        nudged = tirx.Select(sum_ > _i32(0), sum_ + half, sum_ - half)
        return saturate(tirx.truncdiv(nudged, elements), operator.clamp.low, operator.clamp.high)

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def _max_pool(operator: op.MaxPool, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window, data = operator.window, inputs[0]
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    padded = any(window.padding)

    def term(n: Any, y: Any, x: Any, c: Any) -> Any:
        row, column, inside = _positions(window, data, y, x, ky, kx)
        value = data[n, row, column, c]
        return tirx.if_then_else(inside, value, tirx.const(-128, "int8")) if padded else value

    largest = te.compute(output.shape, lambda *at: te.max(term(*at), axis=[ky, kx]), name=SUM)
    result = te.compute(
        output.shape,
        lambda *at: saturate(_i32(largest[at]), operator.clamp.low, operator.clamp.high),
        name=OUTPUT,
    )
    return Definition(inputs, (), result)


def _mean(operator: op.Mean, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data = inputs[0]
    reduced = {axis: te.reduce_axis((0, int(data.shape[axis])), name=f"k{axis}") for axis in operator.axes}
    elements = int(np.prod([int(data.shape[axis]) for axis in operator.axes]))
    total = te.compute(
        output.shape,
        lambda *at: te.sum(
            _i32(data[tuple(reduced.get(axis, at[axis]) for axis in range(len(data.shape)))]),
            axis=list(reduced.values()),
        ),
        name=SUM,
    )
    scaled = _rescaled_stage(
        "scaled",
        output.shape,
        lambda *at: total[at] - _i32(elements * operator.input_zero_point),
        operator.rescale,
    )
    return Definition(inputs, (), _clamped_output(scaled, operator.output_zero_point, operator.clamp, output))


def _pad(operator: op.Pad, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data = inputs[0]

    def value(*at: Any) -> Any:
        source = tuple(index - before for index, before in zip(at, operator.before, strict=True))
        conditions = [
            condition
            for axis, index in enumerate(source)
            if operator.before[axis] or operator.after[axis]
            for condition in (index >= 0, index < int(data.shape[axis]))
        ]
        if not conditions:
            return data[source]
        return tirx.if_then_else(_all(conditions), data[source], tirx.const(operator.value, data.dtype))

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def _concat(operator: op.Concat, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    axis = operator.axis

    def element(position: int, at: Sequence[Any], start: int) -> Any:
        place = (*at[:axis], at[axis] - start, *at[axis + 1 :])
        value = _i32(inputs[position][place])
        rescale = operator.rescales[position]
        if rescale is not None:
            value = _rescaled(value - _i32(operator.zero_points[position]), rescale) + _i32(
                operator.output_zero_point
            )
        return saturate(value, operator.clamp.low, operator.clamp.high)

    def value(*at: Any) -> Any:
        end = output.shape[axis]
        result = None
        for position in reversed(range(len(inputs))):
            start = end - int(inputs[position].shape[axis])
            own = element(position, at, start)
            result = own if result is None else tirx.if_then_else(at[axis] < end, own, result)
            end = start
        return result

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def _requantize(operator: op.Requantize, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    scaled = _rescaled_stage(
        "scaled",
        output.shape,
        lambda *at: _i32(inputs[0][at]) - _i32(operator.input_zero_point),
        operator.rescale,
    )
    return Definition(inputs, (), _clamped_output(scaled, operator.output_zero_point, operator.clamp, output))


def _quantize(operator: op.Quantize, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def f32(number: float) -> Any:
        return tirx.const(number, "float32")

    def value(*at: Any) -> Any:
        quotient = inputs[0][at] / f32(operator.scale)
        # Clamped as a float first, so that the conversion is defined for every input; NaN fails both
        # comparisons.
        bounded = tirx.Select(quotient > f32(-1024.0), tirx.min(quotient, f32(1024.0)), f32(-1024.0))
        whole = _i32(bounded)
        fraction = bounded - tirx.Cast("float32", whole)
        away = _i32(fraction >= f32(0.5)) - _i32(fraction <= f32(-0.5))
        return saturate(whole + away + _i32(operator.zero_point), operator.clamp.low, operator.clamp.high)

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def _dequantize(operator: op.Dequantize, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def value(*at: Any) -> Any:
        centred = _i32(inputs[0][at]) - _i32(operator.zero_point)
        return tirx.Cast("float32", centred) * tirx.const(operator.scale, "float32")

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def _softmax(operator: op.Softmax, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    """gemmlowp's fixed-point softmax (TFLite softmax.h), its exponentials from the table."""
    data = inputs[0]
    table = _const("table", operator.table)
    rows = output.shape[:-1]
    scan = te.reduce_axis((0, output.shape[-1]), name="k")
    largest = te.compute(rows, lambda *at: te.max(_at(data, *at, scan), axis=scan), name="largest")
    add = te.reduce_axis((0, output.shape[-1]), name="k")

    def exponential(at: Sequence[Any], column: Any) -> Any:
        return table[0][_i32(largest[tuple(at)]) - _i32(_at(data, *at, column))]

    total = te.compute(
        rows,
        lambda *at: te.sum(_shift_right_rounding(exponential(at, add), 12), axis=add),
        name=SUM,
    )
    headroom = te.compute(rows, lambda *at: tirx.clz(total[at]), name="headroom")
    reciprocal = _reciprocal(
        rows,
        lambda *at: tirx.bitwise_and(
            tirx.shift_left(total[at], headroom[at]), tirx.const(0x7FFFFFFF, "int32")
        ),
    )

    def value(*at: Any) -> Any:
        row, column = at[:-1], at[-1]
        product = _high_multiply(reciprocal[row], exponential(row, column))
        # The exponent is 35 − headroom; 32 and more (a sum of 512 or more) rounds to nothing.
        exponent = tirx.min(_i32(35) - headroom[row], _i32(31))
        mask = tirx.shift_left(tirx.const(1, "int64"), tirx.Cast("int64", exponent)) - tirx.const(1, "int64")
        wide = tirx.Cast("int64", product) + tirx.shift_right(
            mask + tirx.const(1, "int64"), tirx.const(1, "int64")
        )
        rounded = _i32(tirx.shift_right(wide, tirx.Cast("int64", exponent)))
        kept = tirx.Select(headroom[row] >= _i32(4), rounded, _i32(0))
        return saturate(kept - _i32(128), -128, 127)

    return Definition(inputs, (table,), te.compute(output.shape, value, name=OUTPUT))


def _high_multiply(a: Any, b: Any) -> Any:
    """(a · b + 2^30) >> 31 in 64 bits.

    Gemmlowp's SaturatingRoundingDoublingHighMul where it cannot saturate.
    """
    product = tirx.Cast("int64", a) * tirx.Cast("int64", b) + tirx.const(1 << 30, "int64")
    return _i32(tirx.shift_right(product, tirx.const(31, "int64")))


def _shift_right_rounding(value: Any, exponent: int) -> Any:
    """value / 2^exponent to nearest, for value ≥ 0 below 2^31 − 2^(exponent−1) or in 64 bits."""
    wide = tirx.Cast("int64", value) + tirx.const(1 << (exponent - 1), "int64")
    return _i32(tirx.shift_right(wide, tirx.const(exponent, "int64")))


def _reciprocal(shape: tuple[int, ...], operand: Callable[..., Any]) -> Any:
    """1 / (1 + a) for a in [0, 1), Q0.31 in and out: three Newton steps (gemmlowp fixedpoint.h).

    Each step is a stage of its own, since it reads the one before three times.
    """

    def half(*at: Any) -> Any:
        one_plus = tirx.Cast("int64", operand(*at)) + tirx.const(2**31, "int64")
        return _i32(tirx.shift_right(one_plus, tirx.const(1, "int64")))

    half_denominator = te.compute(shape, half, name="half_denominator")
    estimate = te.compute(
        shape,
        lambda *at: _i32(1515870810) + _high_multiply(half_denominator[at], _i32(-1010580540)),
        name="estimate",
    )
    for step in range(3):
        estimate = _newton_step(f"newton{step}", shape, half_denominator, estimate)

    def doubled(*at: Any) -> Any:
        twice = tirx.shift_left(tirx.Cast("int64", estimate[at]), tirx.const(1, "int64"))
        return _i32(tirx.min(twice, tirx.const(2**31 - 1, "int64")))

    return te.compute(shape, doubled, name="reciprocal")


def _newton_step(name: str, shape: tuple[int, ...], half_denominator: Any, estimate: Any) -> Any:
    """x + x · (1 − d · x), Q2.29."""
    error = te.compute(
        shape,
        lambda *at: _i32(1 << 29) - _high_multiply(half_denominator[at], estimate[at]),
        name=f"{name}_error",
    )
    return te.compute(
        shape,
        lambda *at: estimate[at] + tirx.shift_left(_high_multiply(estimate[at], error[at]), _i32(2)),
        name=name,
    )


def _transpose(operator: op.Transpose, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def value(*at: Any) -> Any:
        return inputs[0][tuple(at[operator.axes.index(axis)] for axis in range(len(at)))]

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


DEFINITIONS: Mapping[type[op.Operator], Callable[[Any, tuple[Any, ...], Tensor], Definition]] = {
    op.Conv2D: _conv2d,
    op.DepthwiseConv2D: _depthwise_conv2d,
    op.Dense: _dense,
    op.Add: _add,
    op.AveragePool: _average_pool,
    op.MaxPool: _max_pool,
    op.Mean: _mean,
    op.Pad: _pad,
    op.Concat: _concat,
    op.Requantize: _requantize,
    op.Quantize: _quantize,
    op.Dequantize: _dequantize,
    op.Softmax: _softmax,
    op.Transpose: _transpose,
}
