"""Convolutions as inner products of pixel blocks: 1x1, k x k, first layers; all strides; padding fused.

Groups of output rows are computed one after another. Where there is padding, the input rows of a group are
copied with their border into a window of scratch, else they are read where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.clamping import clamp_at
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.gather import Tail, gather_bytes, gather_words, in_reach, packed_k
from edgekit.compiler.schedules.armv7em.memory import copy_bytes, fill_bytes
from edgekit.compiler.schedules.armv7em.pixel_blocks import (
    FEW_STEPS,
    PIXELS,
    STEPS,
    Pixels,
    entry_offset,
    pack_channel_pairs,
    pixel_block,
    scratch_bytes,
)
from edgekit.compiler.schedules.armv7em.requantize import Form, channel_parameters
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = ["of_one_channel", "variants"]

LARGEST_PACKED_ROW_SUM = 256
"""Rows that are no words are gathered by unrolled code up to here: it grows with their bytes."""

SPEED_WINDOW_BYTES = 3072
"""A window of more output rows than one saves turns that compute pixels twice; up to this much scratch."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Geometry: input (height, width, depth), output (rows, columns, channels)."""

    batch: int
    height: int
    width: int
    depth: int
    rows: int
    columns: int
    channels: int
    window: op.Window
    pitch: int
    """Bytes from pixel to pixel of the input: its depth, but where windows are single pixels."""
    output_pitch: int

    @property
    def padded(self) -> bool:
        return (
            self.height < self.reach(self.rows, 0)
            or self.width < self.reach(self.columns, 1)
            or any(self.window.padding[:2])
        )

    def reach(self, outputs: int, axis: int) -> int:
        """Input positions along an axis (0 rows, 1 columns) under so many output positions."""
        window = self.window
        return (outputs - 1) * window.stride[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1

    @property
    def kernel_row_bytes(self) -> int:
        return self.window.kernel[1] * self.depth

    @property
    def window_row_bytes(self) -> int:
        return -(-self.reach(self.columns, 1) * self.depth // 4) * 4

    @property
    def tail(self) -> Tail:
        return self.kernel_row_bytes % 4  # type: ignore[return-value]

    @property
    def row_step(self) -> int:
        """Distance from a window's row to its next, in bytes, where it is gathered from."""
        row_bytes = self.window_row_bytes if self.padded else self.width * self.pitch
        return row_bytes * self.window.dilation[0]

    @property
    def packed(self) -> bool:
        """Whether rows that are no words are gathered one behind another; else each is filled up to words."""
        rows = self.window.kernel[0]
        return (
            self.tail != 0
            and self.kernel_row_bytes * rows <= LARGEST_PACKED_ROW_SUM
            and in_reach(self.kernel_row_bytes, rows, self.row_step)
        )

    @property
    def k(self) -> int:
        row_bytes, rows = self.kernel_row_bytes, self.window.kernel[0]
        return packed_k(row_bytes, rows) if self.packed else packed_k(row_bytes, 1) * rows


@dataclass(frozen=True, slots=True)
class _Tiling:
    """`pixels` at once out of groups of `rows` output rows."""

    pixels: Pixels
    rows: int

    def blocks(self, shape: _Shape) -> int:
        return -(-self.rows * shape.columns // self.pixels)

    def cost(self, shape: _Shape) -> float:
        """Instructions, nearly: what two tilings of one shape differ in."""
        step, finish, gather = (24, 60, 16) if self.pixels == 4 else (17, 48, 13)
        groups = -(-shape.rows // self.rows)
        block = shape.channels / 2 * (shape.k / 4 * step + finish) + shape.k / 4 * gather + 60
        copied = shape.reach(self.rows, 0) * (shape.window_row_bytes * 0.3 + 40) if shape.padded else 0
        return groups * (self.blocks(shape) * block + copied)

    def window_bytes(self, shape: _Shape) -> int:
        return shape.reach(self.rows, 0) * shape.window_row_bytes if shape.padded else 0


def of_one_channel(operator: op.DepthwiseConv2D) -> op.Conv2D:
    """The convolution that a depthwise one over a single input channel is."""
    return op.Conv2D(
        window=operator.window,
        weights=np.ascontiguousarray(operator.weights.transpose(2, 0, 1))[:, :, :, None],
        bias=operator.bias,
        input_zero_point=operator.input_zero_point,
        output_zero_point=operator.output_zero_point,
        multipliers=operator.multipliers,
        shifts=operator.shifts,
        clamp=operator.clamp,
        rounding=operator.rounding,
    )


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute a Conv2D step in pixel blocks, best first; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Conv2D)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    shape = _shape(operator, source, output)
    if shape is None:
        return ()
    parameters = channel_parameters(operator, operator.weights.reshape(shape.channels, -1))
    if parameters is None:
        return ()
    stream = pack_channel_pairs(_in_scratch_order(operator.weights, shape), parameters)
    if stream is None:
        return ()
    small = request.prefer == "size"
    form = parameters.general().form if small else parameters.form
    unrolled = FEW_STEPS if small else STEPS
    return tuple(
        _variant(operator, source, output, shape, tiling, stream, form=form, unrolled=unrolled)
        for tiling in _tilings(shape, request)
    )


def _shape(operator: op.Conv2D, source: Tensor, output: Tensor) -> _Shape | None:
    batch, height, width, depth = source.shape
    _, rows, columns, channels = output.shape
    shape = _Shape(
        batch, height, width, depth, rows, columns, channels, operator.window, source.pitch, output.pitch
    )
    if operator.window.dilation[1] != 1 or operator.weights.shape[3] != depth:
        return None
    if not shape.packed and shape.kernel_row_bytes < 4:
        return None
    return shape


def _in_scratch_order(weights: NDArray[np.int8], shape: _Shape) -> NDArray[np.int8]:
    """(O, KH, KW, I) weights as (O, K), with zeros where the gathered windows are filled up."""
    channels, rows = weights.shape[:2]
    if shape.packed:
        flat = weights.reshape(channels, -1)
        return np.pad(flat, ((0, 0), (0, shape.k - flat.shape[1])))
    by_row = weights.reshape(channels, rows, -1)
    return np.pad(by_row, ((0, 0), (0, 0), (0, shape.k // rows - by_row.shape[2]))).reshape(channels, -1)


def _tilings(shape: _Shape, request: Request) -> list[_Tiling]:
    """Tilings from the least cost up: one for each number of pixels that a row, or the image, holds."""
    limit = 0 if request.prefer == "ram" else SPEED_WINDOW_BYTES
    heights = [shape.rows] if not shape.padded else range(1, shape.rows + 1)
    found = []
    for pixels in PIXELS:
        tilings = [_Tiling(pixels, rows) for rows in heights if rows * shape.columns >= pixels]
        least = min((tiling.window_bytes(shape) for tiling in tilings), default=0)
        fitting = [each for each in tilings if each.window_bytes(shape) <= max(limit, least)]
        if fitting:
            found.append(min(fitting, key=lambda each: (each.cost(shape), each.rows)))
    # Where code is to be small, the same three pixels in every layer.
    return sorted(found, key=lambda each: (request.prefer == "size" and each.pixels != 3, each.cost(shape)))


def _variant(
    operator: op.Conv2D,
    source: Tensor,
    output: Tensor,
    shape: _Shape,
    tiling: _Tiling,
    stream: NDArray[np.int8],
    *,
    form: Form,
    unrolled: int,
) -> Variant:
    name = f"armv7em.conv2d_{tiling.pixels}px"

    def build() -> Kernel:
        frame = Frame([source], {"stream": stream}, output)
        with frame:
            _emit(frame, operator, shape, tiling, form=form, unrolled=unrolled)
        return frame.kernel(name, overlaps=[Overlap(0, _overlap_distance(shape, tiling))])

    return Variant(name, build)


def _overlap_distance(shape: _Shape, tiling: _Tiling) -> int:
    """How far below the input the output may begin (see `Overlap`).

    A block, or a group with its window, has read its inputs when it writes; what matters is the first byte
    that a later one still reads.
    """
    down, along = shape.window.stride
    row_bytes, image_pixels = shape.width * shape.depth, shape.rows * shape.columns
    reads: list[int] = []
    writes: list[int] = []
    for image in range(shape.batch):
        start = image * shape.height * row_bytes
        if shape.padded:
            for group in range(-(-shape.rows // tiling.rows)):
                first = min(group * tiling.rows, shape.rows - tiling.rows)
                reads.append(start + max(0, first * down - shape.window.padding[0]) * row_bytes)
                writes.append((image * image_pixels + (first + tiling.rows) * shape.columns) * shape.channels)
            continue
        for block in range(tiling.blocks(shape)):
            first = min(block * tiling.pixels, image_pixels - tiling.pixels)
            # The leftmost input of any of the block's pixels: of its first, or of a row's first behind it.
            row, column = divmod(first, shape.columns)
            reads.append(start + row * down * row_bytes + column * along * shape.depth)
            writes.append((image * image_pixels + first + tiling.pixels) * shape.channels)
    reads.append(shape.batch * shape.height * row_bytes)
    # From the last to the first: what is still to be read begins at the least of the later reads.
    still = reads[-1]
    distance = -still
    for position in range(len(writes) - 1, -1, -1):
        still = min(still, reads[position + 1])
        distance = max(distance, writes[position] - still)
    return distance


def _emit(
    frame: Frame, operator: op.Conv2D, shape: _Shape, tiling: _Tiling, *, form: Form, unrolled: int
) -> None:
    pixels = tiling.pixels
    widened = frame.scratch(scratch_bytes(pixels, shape.k))
    spread = shape.output_pitch != shape.channels
    mac = pixel_block(pixels, form=form, unrolled=unrolled, odd=shape.channels % 2 == 1, spread=spread)
    clamp = operator.clamp
    count = tiling.rows * shape.columns
    for group in _groups(frame, operator, shape, tiling):
        gather = _gather(frame, shape, pixels, widened)
        with repeat(tiling.blocks(shape)) as block:
            first = tirx.min(block * pixels, tirx.const(count - pixels, "int32"))
            gather([offset(group.source, group.place(first + i)) for i in range(pixels)])
            place = offset(frame.output, (group.first_pixel + first) * shape.output_pitch)
            frame.call(
                mac,
                widened,
                frame.constants["stream"],
                place,
                shape.channels,
                scratch_bytes(pixels, shape.k),
                entry_offset(pixels, shape.k, unrolled),
                *((shape.output_pitch,) if spread else ()),
            )
            clamp_at(frame, clamp, place, pixels, shape.channels, shape.output_pitch)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Output rows whose inputs lie at `source`, in rows of `row_bytes`, from the first pixel's on."""

    source: Any
    row_bytes: int
    first_pixel: Any
    shape: _Shape

    def place(self, pixel: Any) -> Any:
        """Distance in bytes from `source` to the window of a pixel of the group."""
        shape = self.shape
        down, along = shape.window.stride
        step = along * shape.pitch
        if step * shape.columns == down * self.row_bytes:
            return pixel * step
        columns = tirx.const(shape.columns, "int32")
        return tirx.truncdiv(pixel, columns) * (down * self.row_bytes) + tirx.truncmod(pixel, columns) * step


def _groups(frame: Frame, operator: op.Conv2D, shape: _Shape, tiling: _Tiling) -> Iterator[_Group]:
    """Emits the loops over images and groups; the body of the innermost is what the caller emits."""
    image_bytes, image_pixels = shape.height * shape.width * shape.pitch, shape.rows * shape.columns
    zero = word_of_bytes(operator.input_zero_point)
    window = None
    if shape.padded:
        window = frame.scratch(tiling.window_bytes(shape))
        frame.call(fill_bytes(), window, zero, tiling.window_bytes(shape))
    with repeat(shape.batch) as image:
        source = offset(frame.inputs[0], image * image_bytes)
        if window is None:
            yield _Group(source, shape.width * shape.pitch, image * image_pixels, shape)
            return
        with repeat(-(-shape.rows // tiling.rows)) as group:
            first_row = tirx.min(group * tiling.rows, tirx.const(shape.rows - tiling.rows, "int32"))
            _copy_window(frame, shape, tiling, source, window, first_row, zero)
            yield _Group(
                window,
                shape.window_row_bytes,
                image * image_pixels + first_row * shape.columns,
                shape,
            )


def _copy_window(
    frame: Frame, shape: _Shape, tiling: _Tiling, source: Any, window: Any, first_row: Any, zero: int
) -> None:
    """The input rows under a group of output rows; rows outside the input become the zero point."""
    top, left = shape.window.padding[:2]
    copied = min(shape.width, shape.reach(shape.columns, 1) - left) * shape.depth
    if copied <= 0:
        return
    row_bytes = shape.width * shape.depth
    with repeat(shape.reach(tiling.rows, 0)) as row:
        y = first_row * shape.window.stride[0] + row - top
        to = offset(window, row * shape.window_row_bytes + left * shape.depth)
        with ir.If(tirx.And(y >= 0, y < shape.height)):
            with ir.Then():
                frame.call(copy_bytes(), to, offset(source, y * row_bytes), copied)
            with ir.Else():
                frame.call(fill_bytes(), to, zero, copied)


def _gather(frame: Frame, shape: _Shape, pixels: Pixels, widened: Any) -> Callable[[list[Any]], None]:
    """The call that widens the windows at the pointers given."""
    rows, step = shape.window.kernel[0], shape.row_step
    extra: tuple[int, ...] = ()
    if shape.packed:
        routine = gather_bytes(pixels, shape.kernel_row_bytes, rows, step)
    else:
        routine = gather_words(pixels, shape.tail)
        extra = (shape.kernel_row_bytes // 4, rows, step)
    assert routine is not None

    def gather(pointers: list[Any]) -> None:
        frame.call(routine, *pointers, widened, *extra)

    return gather
