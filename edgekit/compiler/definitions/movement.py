"""Padding, concatenation, transposition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, Definition, all_of, i32, rescaled
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["concat", "pad", "transpose"]


def pad(operator: op.Pad, inputs: tuple[Any, ...], output: Tensor) -> Definition:
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
        return tirx.if_then_else(all_of(conditions), data[source], tirx.const(operator.value, data.dtype))

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def concat(operator: op.Concat, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    axis = operator.axis

    def element(position: int, at: Sequence[Any], start: int) -> Any:
        place = (*at[:axis], at[axis] - start, *at[axis + 1 :])
        value = i32(inputs[position][place])
        rescale = operator.rescales[position]
        if rescale is not None:
            value = rescaled(value - i32(operator.zero_points[position]), rescale) + i32(
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


def transpose(operator: op.Transpose, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def value(*at: Any) -> Any:
        return inputs[0][tuple(at[operator.axes.index(axis)] for axis in range(len(at)))]

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))
