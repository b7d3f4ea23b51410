"""Pooling and means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import (
    OUTPUT,
    SUM,
    Definition,
    all_of,
    clamped_output,
    i32,
    rescaled_stage,
)
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["arg_extreme", "average_pool", "extreme", "max_pool", "mean"]


def _positions(window: op.Window, data: Any, y: Any, x: Any, ky: Any, kx: Any) -> tuple[Any, Any, Any]:
    """Row and column that a window position reads, and whether they lie inside the input."""
    row = y * window.stride[0] + ky * window.dilation[0] - window.padding[0]
    column = x * window.stride[1] + kx * window.dilation[1] - window.padding[1]
    inside = all_of([row >= 0, row < int(data.shape[1]), column >= 0, column < int(data.shape[2])])
    return row, column, inside


def _inside_count(position: Any, kernel: int, stride: int, before: int, size: int) -> Any:
    """How many of the `kernel` places of a window lie inside [0, size)."""
    start = position * stride - before
    return tirx.min(start + kernel, size) - tirx.max(start, 0)


def average_pool(operator: op.AveragePool, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window, data = operator.window, inputs[0]
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    outside = operator.zero_point if operator.count_padding else 0
    padded = any(window.padding)

    def term(n: Any, y: Any, x: Any, c: Any) -> Any:
        row, column, inside = _positions(window, data, y, x, ky, kx)
        value = i32(data[n, row, column, c])
        return tirx.if_then_else(inside, value, i32(outside)) if padded else value

    total = te.compute(output.shape, lambda *at: te.sum(term(*at), axis=[ky, kx]), name=SUM)

    def count(y: Any, x: Any) -> Any:
        if operator.count_padding or not padded:
            return i32(window.kernel[0] * window.kernel[1])
        rows = _inside_count(y, window.kernel[0], window.stride[0], window.padding[0], int(data.shape[1]))
        columns = _inside_count(x, window.kernel[1], window.stride[1], window.padding[1], int(data.shape[2]))
        return rows * columns

    def value(n: Any, y: Any, x: Any, c: Any) -> Any:
        sum_, elements = total[n, y, x, c], count(y, x)
        half = tirx.truncdiv(elements, i32(2))
        nudged = tirx.Select(sum_ > i32(0), sum_ + half, sum_ - half)
        quotient = tirx.truncdiv(nudged, elements)
        return saturate(quotient, operator.clamp.low, operator.clamp.high, output.dtype)

    return Definition(inputs, (), te.compute(output.shape, value, name=OUTPUT))


def max_pool(operator: op.MaxPool, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    window, data = operator.window, inputs[0]
    ky = te.reduce_axis((0, window.kernel[0]), name="ky")
    kx = te.reduce_axis((0, window.kernel[1]), name="kx")
    padded = any(window.padding)

    def term(n: Any, y: Any, x: Any, c: Any) -> Any:
        row, column, inside = _positions(window, data, y, x, ky, kx)
        value = data[n, row, column, c]
        return tirx.if_then_else(inside, value, tirx.min_value(data.dtype)) if padded else value

    largest = te.compute(output.shape, lambda *at: te.max(term(*at), axis=[ky, kx]), name=SUM)
    result = te.compute(
        output.shape,
        lambda *at: saturate(i32(largest[at]), operator.clamp.low, operator.clamp.high, output.dtype),
        name=OUTPUT,
    )
    return Definition(inputs, (), result)


def mean(operator: op.Mean, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data = inputs[0]
    reduced = {axis: te.reduce_axis((0, int(data.shape[axis])), name=f"k{axis}") for axis in operator.axes}
    elements = int(np.prod([int(data.shape[axis]) for axis in operator.axes]))
    total = te.compute(
        output.shape,
        lambda *at: te.sum(
            i32(data[tuple(reduced.get(axis, at[axis]) for axis in range(len(data.shape)))]),
            axis=list(reduced.values()),
        ),
        name=SUM,
    )
    scaled = rescaled_stage(
        "scaled",
        output.shape,
        lambda *at: total[at] - i32(elements * operator.input_zero_point),
        operator.rescale,
    )
    return Definition(inputs, (), clamped_output(scaled, operator.output_zero_point, operator.clamp, output))


def extreme(operator: op.Extreme, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data = inputs[0]
    reduced = {axis: te.reduce_axis((0, int(data.shape[axis])), name=f"k{axis}") for axis in operator.axes}
    choose = te.max if operator.largest else te.min

    def value(*at: Any) -> Any:
        place = tuple(reduced.get(axis, at[axis]) for axis in range(len(data.shape)))
        return choose(data[place], axis=list(reduced.values()))

    chosen = te.compute(output.shape, value, name=SUM)
    return Definition(inputs, (), te.compute(output.shape, lambda *at: chosen[at], name=OUTPUT))


def arg_extreme(operator: op.ArgExtreme, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    """The extreme value first, then the first place that holds it."""
    data, axis = inputs[0], operator.axis
    extent = int(data.shape[axis])
    scan = te.reduce_axis((0, extent), name="k")
    search = te.reduce_axis((0, extent), name="k")
    choose = te.max if operator.largest else te.min

    def place(at: Sequence[Any], index: Any) -> tuple[Any, ...]:
        return (*at[:axis], index, *at[axis + 1 :])

    best = te.compute(output.shape, lambda *at: choose(data[place(at, scan)], axis=scan), name="best")

    def first(*at: Any) -> Any:
        found = data[place(at, search)] == best[at]
        return te.min(tirx.Select(found, i32(search), i32(extent)), axis=search)

    where = te.compute(output.shape, first, name=SUM)
    return Definition(
        inputs, (), te.compute(output.shape, lambda *at: tirx.Cast(output.dtype, where[at]), name=OUTPUT)
    )
