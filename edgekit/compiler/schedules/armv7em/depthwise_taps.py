"""Depthwise convolutions of any window: what `depthwise` leaves, in a window of padded rows in scratch."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.last_four import in_fours
from edgekit.compiler.schedules.armv7em.memory import copy_bytes, fill_bytes
from edgekit.compiler.schedules.armv7em.requantize import Form, channel_parameters
from edgekit.compiler.schedules.armv7em.taps import FARTHEST_LEFT, convolve_taps, pack_taps
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = ["variants"]

NAME = "armv7em.depthwise_taps"


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The variant for a DepthwiseConv2D step; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.DepthwiseConv2D)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    channels = source.shape[3]
    # Of five channels two in four are computed twice, which costs more than it saves.
    if channels in (1, 2, 3, 5) or output.shape[3] != channels or operator.window.dilation[1] != 1:
        return ()
    parameters = channel_parameters(operator, operator.weights.reshape(-1, channels).T, FARTHEST_LEFT)
    if parameters is None:
        return ()
    taken = in_fours(channels)
    stream = pack_taps(operator.weights[:, :, taken], parameters.taken(taken))

    def build() -> Kernel:
        frame = Frame([source], {"stream": stream}, output)
        with frame:
            _emit(frame, operator, source, output, parameters.form)
        return frame.kernel(NAME, overlaps=[Overlap(0, _overlap_distance(operator, source, output))])

    return (Variant(NAME, build),)


def _reach(operator: op.DepthwiseConv2D, outputs: int, axis: int) -> int:
    """Input positions along an axis under so many output positions."""
    window = operator.window
    return (outputs - 1) * window.stride[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1


def _emit(frame: Frame, operator: op.DepthwiseConv2D, source: Tensor, output: Tensor, form: Form) -> None:
    batch, height, width, channels = source.shape
    _, rows, columns, _ = output.shape
    window = operator.window
    kernel_rows, kernel_columns = window.kernel
    # A pixel more: the last pair of an odd row reads one behind it.
    row_bytes = (_reach(operator, columns, 1) + 1) * channels
    copied_rows = _reach(operator, 1, 0)
    memory = frame.scratch(copied_rows * row_bytes)
    zero = word_of_bytes(operator.input_zero_point)
    frame.call(fill_bytes(), memory, zero, copied_rows * row_bytes)
    pairs = -(-kernel_columns // 2)
    rest = window.dilation[0] * row_bytes - 2 * pairs * channels
    with repeat(batch) as image, repeat(rows) as row:
        first = row * window.stride[0] - window.padding[0]
        image_start = offset(frame.inputs[0], image * (height * width * channels))
        with repeat(copied_rows) as line:
            _copy_row(frame, operator, source, output, image_start, memory, first, line, row_bytes)
        with repeat(columns) as column:
            frame.call(
                convolve_taps(form, ragged=channels % 4 != 0),
                offset(memory, column * (window.stride[1] * channels)),
                frame.constants["stream"],
                offset(frame.output, ((image * rows + row) * columns + column) * output.pitch),
                channels,
                kernel_rows,
                pairs,
                rest,
            )
    clamp_output(frame, operator.clamp, output)


def _copy_row(
    frame: Frame,
    operator: op.DepthwiseConv2D,
    source: Tensor,
    output: Tensor,
    image: Any,
    memory: Any,
    first: Any,
    line: Any,
    row_bytes: int,
) -> None:
    """Row `first + line` of the input to row `line` of the window; outside the input the zero point."""
    _, height, width, channels = source.shape
    left = operator.window.padding[1]
    copied = min(width, _reach(operator, output.shape[2], 1) - left) * channels
    if copied <= 0:
        return
    y = first + line
    to = offset(memory, line * row_bytes + left * channels)
    with ir.If(tirx.And(y >= 0, y < height)):
        with ir.Then():
            frame.call(copy_bytes(), to, offset(image, y * (width * channels)), copied)
        with ir.Else():
            frame.call(fill_bytes(), to, word_of_bytes(operator.input_zero_point), copied)


def _overlap_distance(operator: op.DepthwiseConv2D, source: Tensor, output: Tensor) -> int:
    """How far below the input the output may begin (see `Overlap`): a row follows the copy of its window."""
    batch, height, width, channels = source.shape
    _, rows, columns, _ = output.shape
    distance = -source.size_bytes
    for image in range(batch):
        for row in range(rows):
            written = (image * rows + row + 1) * columns * channels
            later = max(0, (row + 1) * operator.window.stride[0] - operator.window.padding[0])
            still = image * height + (min(later, height) if row + 1 < rows else height)
            distance = max(distance, written - still * width * channels)
    return distance
