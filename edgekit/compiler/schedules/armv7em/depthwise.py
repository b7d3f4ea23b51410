"""3x3 depthwise convolutions, stride 1 and 2, any padding.

For four channels at a time, input rows are taken apart into planes of vertical pairs, a band of output rows
after another; the last pair of a band is the first of the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.memory import clamp_bytes, copy_bytes, fill_bytes
from edgekit.compiler.schedules.armv7em.planes import (
    CHANNEL_BYTES,
    Planes,
    convolve_rows,
    pack_channels,
    split_rows,
)
from edgekit.compiler.schedules.armv7em.requantize import channel_parameters, needs_clamp
from edgekit.compiler.schedules.kernel import Kernel, Request, Variant

__all__ = ["variants"]

NAME = "armv7em.depthwise_3x3"

INPUT_PER_PLANES = 9
"""Planes may take a ninth of the input's size where that makes bands longer: their memory is beside it."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Geometry: images, input (height, width), output rows; `planes` has the rest."""

    batch: int
    height: int
    width: int
    rows: int
    top: int
    left: int
    planes: Planes

    @property
    def passes(self) -> int:
        """Turns of the row routine: two rows each with stride 1, the last one perhaps a single row."""
        return -(-self.rows // self.rows_per_pass)

    @property
    def rows_per_pass(self) -> Literal[1, 2]:
        return 2 if self.planes.stride == 1 else 1

    @property
    def single_last(self) -> bool:
        return self.rows % self.rows_per_pass != 0


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute a DepthwiseConv2D step; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.DepthwiseConv2D)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    shape = _shape(operator, source, output)
    if shape is None:
        return ()
    parameters = channel_parameters(operator, operator.weights.reshape(9, -1).T)
    if parameters is None:
        return ()
    stream = pack_channels(operator.weights, parameters)
    band = _band(shape, request, source.size_bytes)

    def build() -> Kernel:
        frame = Frame([source], {"stream": stream}, output)
        with frame:
            _emit(frame, operator, shape, band, one_sided=parameters.one_sided)
        return frame.kernel(NAME)

    return (Variant(NAME, build),)


def _shape(operator: op.DepthwiseConv2D, source: Tensor, output: Tensor) -> _Shape | None:
    window = operator.window
    batch, height, width, channels = source.shape
    stride = window.stride[0]
    if (
        window.kernel != (3, 3)
        or window.dilation != (1, 1)
        or window.stride not in ((1, 1), (2, 2))
        or channels % 4
        or output.shape[3] != channels
    ):
        return None
    top, left = window.padding[:2]
    columns = (output.shape[2] - 1) * stride + 3
    filled = min(width, columns - left)
    if filled <= 0:
        return None
    planes = Planes(columns, filled, channels, output.shape[2], stride)
    if not planes.supported:
        return None
    return _Shape(batch, height, width, output.shape[1], top, left, planes)


def _band(shape: _Shape, request: Request, input_bytes: int) -> int:
    """Passes in a band: its planes are one more."""
    limit = 0 if request.prefer == "ram" else input_bytes // INPUT_PER_PLANES
    return max(1, min(shape.passes, limit // shape.planes.pair_bytes - 1))


def _emit(frame: Frame, operator: op.DepthwiseConv2D, shape: _Shape, band: int, *, one_sided: bool) -> None:
    planes = shape.planes
    size = (band + 1) * planes.pair_bytes
    memory = frame.scratch(size)
    frame.call(fill_bytes(), memory, _pair_of(operator.input_zero_point), size)
    bands = -(-shape.passes // band)
    image_bytes = shape.height * shape.width * planes.channels
    output_bytes = shape.rows * planes.outputs * planes.channels
    band_bytes = band * shape.rows_per_pass * planes.outputs * planes.channels
    with repeat(shape.batch) as image, repeat(planes.channels // 4) as four:
        source = offset(frame.inputs[0], image * image_bytes + four * 4)
        target = offset(frame.output, image * output_bytes + four * 4)
        stream = offset(frame.constants["stream"], four * (4 * CHANNEL_BYTES))
        _split(frame, operator, shape, source, memory, tirx.const(0, "int32"))
        with repeat(bands) as index:
            if bands > 1:
                with ir.If(index > 0), ir.Then():
                    last = offset(memory, band * planes.pair_bytes)
                    frame.call(copy_bytes(), memory, last, planes.pair_bytes)
            left = shape.passes - index * band
            passes = tirx.min(left, tirx.const(band, "int32")) if bands > 1 else tirx.const(band, "int32")
            with ir.serial(0, passes) as turn:
                pair = index * band + turn + 1
                _split(frame, operator, shape, source, offset(memory, (turn + 1) * planes.pair_bytes), pair)
            to = offset(target, index * band_bytes)
            _convolve(frame, shape, memory, stream, to, passes, index == bands - 1, one_sided=one_sided)
    if needs_clamp(operator.clamp):
        low, high = word_of_bytes(operator.clamp.low), word_of_bytes(operator.clamp.high)
        frame.call(clamp_bytes(), frame.output, shape.batch * output_bytes, low, high)


def _convolve(
    frame: Frame,
    shape: _Shape,
    memory: Any,
    stream: Any,
    target: Any,
    passes: Any,
    is_last: Any,
    *,
    one_sided: bool,
) -> None:
    """The output rows of a band. A single row at the very end has a routine of its own."""
    planes = shape.planes
    routine = convolve_rows(planes, rows=shape.rows_per_pass, one_sided=one_sided)
    if not shape.single_last:
        frame.call(routine, memory, stream, target, passes)
        return
    pass_bytes = shape.rows_per_pass * planes.outputs * planes.channels
    full = passes - tirx.Cast("int32", is_last)
    with ir.If(full > 0), ir.Then():
        frame.call(routine, memory, stream, target, full)
    with ir.If(is_last), ir.Then():
        frame.call(
            convolve_rows(planes, rows=1, one_sided=one_sided),
            offset(memory, full * planes.pair_bytes),
            stream,
            offset(target, full * pass_bytes),
            1,
        )


def _split(
    frame: Frame, operator: op.DepthwiseConv2D, shape: _Shape, source: Any, plane: Any, pair: Any
) -> None:
    """Pair number `pair` of input rows to its planes; rows outside the input are the zero point."""
    planes = shape.planes
    zero = operator.input_zero_point
    first = pair * 2 - shape.top
    row_bytes = shape.width * planes.channels
    to = offset(plane, 4 * shape.left)
    upper, lower = offset(source, first * row_bytes), offset(source, (first + 1) * row_bytes)
    inside_upper = tirx.And(first >= 0, first < shape.height)
    inside_lower = tirx.And(first >= -1, first < shape.height - 1)
    missing = word_of_bytes(zero)
    with ir.If(inside_upper):
        with ir.Then(), ir.If(inside_lower):
            with ir.Then():
                frame.call(split_rows(planes, "both"), upper, lower, to)
            with ir.Else():
                frame.call(split_rows(planes, "upper"), upper, missing, to)
        with ir.Else(), ir.If(inside_lower):
            with ir.Then():
                frame.call(split_rows(planes, "lower"), missing, lower, to)
            with ir.Else():
                frame.call(fill_bytes(), plane, _pair_of(zero), planes.pair_bytes)


def _pair_of(value: int) -> int:
    """An int32 whose halves both are `value`."""
    return int(np.array([value] * 2, np.int16).view(np.int32)[0])
