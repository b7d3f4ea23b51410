"""Padding, concatenation, transposition, and selection of places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, Definition, all_of, const, i32, rescaled
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["cast", "concat", "copy", "gather", "pad", "slice_", "tile", "transpose"]


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
        return saturate(value, operator.clamp.low, operator.clamp.high, output.dtype)

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


def slice_(operator: op.Slice, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def value(*at: Any) -> Any:
        places = zip(at, operator.begin, operator.strides, strict=True)
        return inputs[0][tuple(index * stride + begin for index, begin, stride in places)]

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def gather(operator: op.Gather, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    tables = [
        None if indices is None else const(f"indices{axis}", indices)
        for axis, indices in enumerate(operator.indices)
    ]

    def value(*at: Any) -> Any:
        places = zip(at, tables, strict=True)
        return inputs[0][tuple(index if table is None else table[0][index] for index, table in places)]

    constants = tuple(table for table in tables if table is not None)
    return Definition(inputs, constants, te.compute(output.shape, value, name=OUTPUT))


def tile(operator: op.Tile, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    def place(index: Any, size: int, extent: int) -> Any:
        if size == extent:
            return index
        return 0 if size == 1 else tirx.floormod(index, size)

    def value(*at: Any) -> Any:
        sizes = (int(size) for size in inputs[0].shape)
        places = zip(at, sizes, output.shape, strict=True)
        return inputs[0][tuple(place(index, size, extent) for index, size, extent in places)]

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def copy(operator: op.Copy, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    return Definition(inputs, (), te.compute(output.shape, lambda *at: inputs[0][at], name=OUTPUT))


def cast(operator: op.Cast, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    value = te.compute(output.shape, lambda *at: tirx.Cast(output.dtype, inputs[0][at]), name=OUTPUT)
    return Definition(inputs, (), value)
