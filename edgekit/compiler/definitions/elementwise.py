"""Addition and changes of representation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, Definition, clamped_output, i32, rescaled_stage
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["ADD_LEFT_SHIFT", "add", "dequantize", "quantize", "requantize"]

ADD_LEFT_SHIFT = 20


def add(operator: op.Add, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def element(data: Any, at: Sequence[Any]) -> Any:
        """data at `at` under numpy broadcasting: axes of size 1 stand still."""
        return data[tuple(0 if int(size) == 1 else index for size, index in zip(data.shape, at, strict=True))]

    def centred(data: Any, zero_point: int) -> Callable[..., Any]:
        return lambda *at: (i32(element(data, at)) - i32(zero_point)) << i32(ADD_LEFT_SHIFT)

    first, second = (
        rescaled_stage(f"operand{position}", output.shape, centred(data, zero_point), rescale)
        for position, (data, zero_point, rescale) in enumerate(
            zip(inputs, operator.zero_points, operator.rescales, strict=True)
        )
    )
    total = rescaled_stage("total", output.shape, lambda *at: first[at] + second[at], operator.output_rescale)
    return Definition(inputs, (), clamped_output(total, operator.output_zero_point, operator.clamp, output))


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
