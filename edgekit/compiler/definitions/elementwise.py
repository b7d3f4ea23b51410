"""Operators of two tensors element by element, tables, and changes of representation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import (
    OUTPUT,
    Definition,
    clamped_output,
    const,
    i32,
    rescaled_stage,
)
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = [
    "ADD_LEFT_SHIFT",
    "add",
    "dequantize",
    "lookup",
    "maximum",
    "minimum",
    "multiply",
    "prelu",
    "quantize",
    "requantize",
    "squared_difference",
    "subtract",
]

ADD_LEFT_SHIFT = 20
SQUARE_LEFT_SHIFT = 7


def _element(data: Any, at: Sequence[Any]) -> Any:
    """data at `at` under numpy broadcasting: axes of size 1 stand still."""
    return data[tuple(0 if int(size) == 1 else index for size, index in zip(data.shape, at, strict=True))]


def _centred(data: Any, zero_point: int, at: Sequence[Any]) -> Any:
    return i32(_element(data, at)) - i32(zero_point)


def _shifted_operands(
    operator: op.Add | op.Subtract | op.SquaredDifference,
    inputs: tuple[Any, ...],
    output: Tensor,
    left_shift: int,
) -> list[Any]:
    """Both operands less their zero points, shifted, rescaled to the scale that they share."""

    def shifted(data: Any, zero_point: int) -> Callable[..., Any]:
        return lambda *at: _centred(data, zero_point, at) << i32(left_shift)

    return [
        rescaled_stage(f"operand{position}", output.shape, shifted(data, zero_point), rescale)
        for position, (data, zero_point, rescale) in enumerate(
            zip(inputs, operator.zero_points, operator.rescales, strict=True)
        )
    ]


def _sum(operator: op.Add | op.Subtract, inputs: tuple[Any, ...], output: Tensor, sign: int) -> Definition:
    first, second = _shifted_operands(operator, inputs, output, ADD_LEFT_SHIFT)
    total = rescaled_stage(
        "total",
        output.shape,
        lambda *at: first[at] + second[at] if sign > 0 else first[at] - second[at],
        operator.output_rescale,
    )
    return Definition(inputs, (), clamped_output(total, operator.output_zero_point, operator.clamp, output))


def add(operator: op.Add, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return _sum(operator, inputs, output, 1)


def subtract(operator: op.Subtract, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return _sum(operator, inputs, output, -1)


def squared_difference(operator: op.SquaredDifference, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    first, second = _shifted_operands(operator, inputs, output, SQUARE_LEFT_SHIFT)
    difference = te.compute(output.shape, lambda *at: first[at] - second[at], name="difference")
    square = rescaled_stage(
        "square", output.shape, lambda *at: difference[at] * difference[at], operator.output_rescale
    )
    return Definition(inputs, (), clamped_output(square, operator.output_zero_point, operator.clamp, output))


def multiply(operator: op.Multiply, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def product(*at: Any) -> Any:
        first, second = (
            _centred(data, zero_point, at)
            for data, zero_point in zip(inputs, operator.zero_points, strict=True)
        )
        return first * second

    scaled = rescaled_stage("product", output.shape, product, operator.rescale)
    return Definition(inputs, (), clamped_output(scaled, operator.output_zero_point, operator.clamp, output))


def _extremum(
    operator: op.Maximum | op.Minimum, inputs: tuple[Any, ...], output: Tensor, larger: Callable[..., Any]
) -> Definition:
    def operand(position: int) -> Callable[..., Any]:
        """One operand as the output is stored."""
        data, zero_point = inputs[position], operator.zero_points[position]
        rescale = operator.rescales[position]
        if rescale is None:
            return lambda at: i32(_element(data, at))
        stage = rescaled_stage(
            f"operand{position}", output.shape, lambda *at: _centred(data, zero_point, at), rescale
        )
        return lambda at: stage[at] + i32(operator.output_zero_point)

    first, second = operand(0), operand(1)

    def value(*at: Any) -> Any:
        return saturate(larger(first(at), second(at)), operator.clamp.low, operator.clamp.high)

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def maximum(operator: op.Maximum, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return _extremum(operator, inputs, output, tirx.max)


def minimum(operator: op.Minimum, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return _extremum(operator, inputs, output, tirx.min)


def prelu(operator: op.PRelu, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data, slope = inputs
    straight, steep = operator.rescales
    centred = te.compute(
        output.shape, lambda *at: _centred(data, operator.zero_points[0], at), name="centred"
    )
    positive = rescaled_stage("positive", output.shape, lambda *at: centred[at], straight)
    negative = rescaled_stage(
        "negative",
        output.shape,
        lambda *at: centred[at] * _centred(slope, operator.zero_points[1], at),
        steep,
    )
    chosen = te.compute(
        output.shape,
        lambda *at: tirx.Select(centred[at] >= i32(0), positive[at], negative[at]),
        name="chosen",
    )
    return Definition(inputs, (), clamped_output(chosen, operator.output_zero_point, operator.clamp, output))


def lookup(operator: op.Lookup, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    table = const("table", operator.table)
    result = te.compute(output.shape, lambda *at: table[0][i32(inputs[0][at]) + i32(128)], name=OUTPUT)
    return Definition(inputs, (table,), result)


def requantize(operator: op.Requantize, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    scaled = rescaled_stage(
        "scaled",
        output.shape,
        lambda *at: i32(inputs[0][at]) - i32(operator.input_zero_point),
        operator.rescale,
    )
    return Definition(inputs, (), clamped_output(scaled, operator.output_zero_point, operator.clamp, output))


def quantize(operator: op.Quantize, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def f32(number: float) -> Any:
        return tirx.const(number, "float32")

    limit = 131072.0 if output.dtype == "int16" else 1024.0

    def value(*at: Any) -> Any:
        quotient = inputs[0][at] / f32(operator.scale)
        # Clamped as a float first, so that the conversion is defined for every input; NaN fails both
        # comparisons.
        bounded = tirx.Select(quotient > f32(-limit), tirx.min(quotient, f32(limit)), f32(-limit))
        whole = i32(bounded)
        fraction = bounded - tirx.Cast("float32", whole)
        away = i32(fraction >= f32(0.5)) - i32(fraction <= f32(-0.5))
        total = whole + away + i32(operator.zero_point)
        return saturate(total, operator.clamp.low, operator.clamp.high, output.dtype)

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def dequantize(operator: op.Dequantize, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def value(*at: Any) -> Any:
        centred = i32(inputs[0][at]) - i32(operator.zero_point)
        return tirx.Cast("float32", centred) * tirx.const(operator.scale, "float32")

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))
