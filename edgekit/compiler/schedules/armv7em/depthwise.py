"""3x3 depthwise convolutions, stride 1 and 2, any padding.

For four channels at a time, input rows are taken apart into planes of vertical pairs, a band of output rows
after another. Channels outermost, the last pair of a band is the first of the next; bands outermost, it is
taken apart again, and the output may lie over the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.last_four import in_fours
from edgekit.compiler.schedules.armv7em.memory import copy_bytes, fill_bytes
from edgekit.compiler.schedules.armv7em.plane_rows import convolve_rows
from edgekit.compiler.schedules.armv7em.planes import (
    CHANNEL_BYTES,
    FARTHEST_LEFT,
    Planes,
    pack_channels,
    split_rows,
)
from edgekit.compiler.schedules.armv7em.requantize import Form, channel_parameters
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = ["variants"]

_Order = Literal["channels", "rows"]
"""What is outermost: four channels at a time through all rows, or bands of rows through all channels."""

FOUR = 4
"""Channels at a time."""

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
    parameters = channel_parameters(operator, operator.weights.reshape(9, -1).T, FARTHEST_LEFT)
    if parameters is None:
        return ()
    taken = in_fours(source.shape[3])
    stream = pack_channels(operator.weights[:, :, taken], parameters.taken(taken))

    small = request.prefer == "size"

    def variant(order: _Order, band: int) -> Variant:
        name = f"armv7em.depthwise_3x3_{order}"

        def build() -> Kernel:
            frame = Frame([source], {"stream": stream}, output)
            with frame:
                _emit(frame, operator, output, shape, order, band, form=parameters.form, small=small)
            if order == "rows":
                return frame.kernel(name, overlaps=[Overlap(0, _overlap_distance(shape, band))])
            in_place = [Overlap(0, 0, exact=True)] if _is_in_place(shape, band) else []
            return frame.kernel(name, overlaps=in_place)

        return Variant(name, build)

    band = _channels_band(shape, source.size_bytes, request)
    by_channels = variant("channels", band)
    by_rows = variant("rows", _rows_band(shape, source.size_bytes, output.size_bytes))
    if request.prefer == "ram" and not _is_in_place(shape, band):
        return (by_rows, by_channels)
    return (by_channels, by_rows)


def _shape(operator: op.DepthwiseConv2D, source: Tensor, output: Tensor) -> _Shape | None:
    window = operator.window
    batch, height, width, channels = source.shape
    stride = window.stride[0]
    if (
        window.kernel != (3, 3)
        or window.dilation != (1, 1)
        or window.stride not in ((1, 1), (2, 2))
        or channels < FOUR
        or output.shape[3] != channels
    ):
        return None
    top, left = window.padding[:2]
    columns = (output.shape[2] - 1) * stride + 3
    filled = min(width, columns - left)
    if filled <= 0:
        return None
    planes = Planes(columns, filled, channels, output.shape[2], stride, output.pitch)
    if not planes.supported:
        return None
    return _Shape(batch, height, width, output.shape[1], top, left, planes)


def _channels_band(shape: _Shape, input_bytes: int, request: Request) -> int:
    """Passes in a band where four channels are finished before the next four: its planes are one more."""
    limit = 0 if request.prefer == "ram" else input_bytes // INPUT_PER_PLANES
    return max(1, min(shape.passes, limit // shape.planes.pair_bytes - 1))


def _rows_band(shape: _Shape, input_bytes: int, output_bytes: int) -> int:
    """Passes in a band where all channels of a band are finished before the next: the least memory.

    A tenth more is given for longer bands, of which fewer rows are taken apart twice.
    """

    def memory(band: int) -> int:
        together = max(input_bytes, output_bytes, input_bytes + _overlap_distance(shape, band))
        return together + (band + 1) * shape.planes.pair_bytes

    bands = range(1, shape.passes + 1)
    limit = min(memory(band) for band in bands) - max(input_bytes, output_bytes)
    return max(band for band in bands if memory(band) - max(input_bytes, output_bytes) <= 1.1 * limit)


def _overlap_distance(shape: _Shape, band: int) -> int:
    """How far below the input the output may begin where bands are finished in turn (see `Overlap`).

    Until a band's last channels are written, its first row is still read for them.
    """
    planes = shape.planes
    row_bytes, output_row_bytes = shape.width * planes.channels, planes.outputs * planes.channels
    band_rows = band * shape.rows_per_pass
    distance = -shape.batch * shape.height * row_bytes
    for image in range(shape.batch):
        for first in range(0, shape.rows, band_rows):
            written = image * shape.rows + min(first + band_rows, shape.rows)
            read = image * shape.height + max(0, first * planes.stride - shape.top)
            distance = max(distance, written * output_row_bytes - read * row_bytes)
    return distance


def _is_in_place(shape: _Shape, band: int) -> bool:
    """Whether the output may begin where the input does when four channels are finished before the next four.

    Where channels come in fours, they never touch the bytes of others; so it is enough that the rows of a
    band end before those which the next one splits.
    """
    planes = shape.planes
    if planes.channels % FOUR:
        return False
    if shape.batch > 1 and shape.rows * planes.outputs > shape.height * shape.width:
        return False
    return all(
        done * shape.rows_per_pass * planes.outputs <= max(0, 2 * (done + 1) - shape.top) * shape.width
        for done in range(band, shape.passes, band)
    )


def _emit(
    frame: Frame,
    operator: op.DepthwiseConv2D,
    output: Tensor,
    shape: _Shape,
    order: _Order,
    band: int,
    *,
    form: Form,
    small: bool,
) -> None:
    planes = shape.planes
    size = (band + 1) * planes.pair_bytes
    memory = frame.scratch(size)
    frame.call(fill_bytes(), memory, _pair_of(operator.input_zero_point), size)
    bands = -(-shape.passes // band)
    image_bytes = shape.height * shape.width * planes.channels
    output_bytes = shape.rows * planes.outputs * planes.output_pitch
    band_bytes = band * shape.rows_per_pass * planes.outputs * planes.output_pitch

    def split(image: Any, four: Any, index: Any, turn: Any) -> None:
        source = offset(frame.inputs[0], image * image_bytes + _first_channel(shape, four))
        to = offset(memory, turn * planes.pair_bytes)
        _split(frame, operator, shape, source, to, index * band + turn, small=small)

    def convolve(image: Any, four: Any, index: Any, passes: Any) -> None:
        first_byte = image * output_bytes + _first_channel(shape, four) + index * band_bytes
        target = offset(frame.output, first_byte)
        stream = offset(frame.constants["stream"], four * (FOUR * CHANNEL_BYTES))
        _convolve(frame, shape, memory, stream, target, passes, index == bands - 1, form=form, small=small)

    def passes_of(index: Any) -> Any:
        whole = tirx.const(band, "int32")
        return tirx.min(shape.passes - index * band, whole) if bands > 1 else whole

    fours = -(-planes.channels // FOUR)
    if order == "channels":
        with repeat(shape.batch) as image, repeat(fours) as four:
            split(image, four, tirx.const(0, "int32"), tirx.const(0, "int32"))
            with repeat(bands) as index:
                if bands > 1:
                    with ir.If(index > 0), ir.Then():
                        last = offset(memory, band * planes.pair_bytes)
                        frame.call(copy_bytes(), memory, last, planes.pair_bytes)
                passes = passes_of(index)
                with ir.serial(0, passes) as turn:
                    split(image, four, index, turn + 1)
                convolve(image, four, index, passes)
    else:
        with repeat(shape.batch) as image, repeat(bands) as index, repeat(fours) as four:
            passes = passes_of(index)
            with ir.serial(0, passes + 1) as turn:
                split(image, four, index, turn)
            convolve(image, four, index, passes)
    clamp_output(frame, operator.clamp, output)


def _first_channel(shape: _Shape, four: Any) -> Any:
    """Of four channels. The last four overlap those before them where the channels are no fours."""
    channels = shape.planes.channels
    if channels % FOUR == 0:
        return four * FOUR
    return tirx.min(four * FOUR, tirx.const(channels - FOUR, "int32"))


def _convolve(
    frame: Frame,
    shape: _Shape,
    memory: Any,
    stream: Any,
    target: Any,
    passes: Any,
    is_last: Any,
    *,
    form: Form,
    small: bool,
) -> None:
    """The output rows of a band. A single row at the very end has a routine of its own."""
    planes = shape.planes
    routine = convolve_rows(planes, rows=shape.rows_per_pass, form=form, small=small)
    if not shape.single_last:
        frame.call(routine, memory, stream, target, passes)
        return
    pass_bytes = shape.rows_per_pass * planes.outputs * planes.output_pitch
    full = passes - tirx.Cast("int32", is_last)
    with ir.If(full > 0), ir.Then():
        frame.call(routine, memory, stream, target, full)
    with ir.If(is_last), ir.Then():
        frame.call(
            convolve_rows(planes, rows=1, form=form, small=small),
            offset(memory, full * planes.pair_bytes),
            stream,
            offset(target, full * pass_bytes),
            1,
        )


def _split(
    frame: Frame,
    operator: op.DepthwiseConv2D,
    shape: _Shape,
    source: Any,
    plane: Any,
    pair: Any,
    *,
    small: bool,
) -> None:
    """Pair number `pair` of input rows to its planes; rows outside the input are the zero point.

    A pair at a border comes once: its code is the short one.
    """
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
                frame.call(split_rows(planes, "both", small=small), upper, lower, to)
            with ir.Else():
                frame.call(split_rows(planes, "upper", small=True), upper, missing, to)
        with ir.Else(), ir.If(inside_lower):
            with ir.Then():
                frame.call(split_rows(planes, "lower", small=True), missing, lower, to)
            with ir.Else():
                frame.call(fill_bytes(), plane, _pair_of(zero), planes.pair_bytes)


def _pair_of(value: int) -> int:
    """An int32 whose halves both are `value`."""
    return int(np.array([value] * 2, np.int16).view(np.int32)[0])
