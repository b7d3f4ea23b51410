"""3x3 depthwise convolutions of small images, whose planes of four channels are held whole."""

from __future__ import annotations

import math

import numpy as np

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.armv7em.planes import FARTHEST, FARTHEST_LEFT, FARTHEST_PAIR, pack_channels
from edgekit.compiler.schedules.armv7em.requantize import (
    ChannelParameters,
    channel_parameters,
)
from edgekit.compiler.schedules.armv7em.small_plane import SmallPlane
from edgekit.compiler.schedules.armv7em.small_plane_routine import convolve_small_plane, unrolled_outputs
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = ["variants"]

NAME = "armv7em.depthwise_3x3_plane"

WIDEST = 12
"""Columns of the input, which are all unrolled."""

MOST_OUTPUTS = 24
"""For so many outputs the code is no longer than that of the other variants."""

INPUT_PER_PLANES = 8
"""Planes may take an eighth of the input's size: their memory is beside it."""


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The way to compute a DepthwiseConv2D step of a small image; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.DepthwiseConv2D)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    plane = _plane(operator, source, output)
    if plane is None:
        return ()
    parameters = channel_parameters(operator, operator.weights.reshape(9, -1).T, FARTHEST_LEFT)
    if parameters is None:
        return ()
    stream = pack_channels(operator.weights, _without_zero_point(parameters, operator))

    def build() -> Kernel:
        frame = Frame([source], {"stream": stream}, output)
        image_bytes, output_bytes = (
            math.prod(tensor.shape[1:3]) * tensor.pitch for tensor in (source, output)
        )
        routine = convolve_small_plane(plane, form=parameters.form)
        with frame:
            memory = frame.scratch(4 * plane.plane_bytes)
            with repeat(source.shape[0]) as image:
                frame.call(
                    routine,
                    offset(frame.inputs[0], image * image_bytes),
                    frame.constants["stream"],
                    offset(frame.output, image * output_bytes),
                    memory,
                    _pair_of(-operator.input_zero_point),
                )
            clamp_output(frame, operator.clamp, output)
        # Four channels are taken apart before their output is written, which has no bytes of others.
        in_place = source.shape[0] == 1 or output_bytes <= image_bytes
        return frame.kernel(NAME, overlaps=[Overlap(0, 0, exact=True)] if in_place else [])

    return (Variant(NAME, build),)


def is_small(step: Step, program: Program) -> bool:
    """Whether the planes of a DepthwiseConv2D step are small beside its input."""
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    assert isinstance(step.operator, op.DepthwiseConv2D)
    plane = _plane(step.operator, source, output)
    return plane is not None and 4 * plane.plane_bytes * INPUT_PER_PLANES <= source.size_bytes


def _plane(operator: op.DepthwiseConv2D, source: Tensor, output: Tensor) -> SmallPlane | None:
    window = operator.window
    _, height, width, channels = source.shape
    if (
        window.kernel != (3, 3)
        or window.dilation != (1, 1)
        or window.stride not in ((1, 1), (2, 2))
        or channels % 4
        or output.shape[3] != channels
        or width > WIDEST
        or width * channels > FARTHEST
    ):
        return None
    rows, columns = output.shape[1:3]
    plane = SmallPlane(
        height, width, channels, rows, columns, window.stride[0], *window.padding[:2], output.pitch
    )
    fits = 4 * plane.plane_bytes <= FARTHEST and plane.plane_bytes <= FARTHEST_PAIR
    if not fits or not plane.is_covered or unrolled_outputs(plane) > MOST_OUTPUTS:
        return None
    return plane


def _without_zero_point(parameters: ChannelParameters, operator: op.DepthwiseConv2D) -> ChannelParameters:
    """With the bias as the operator has it: the zero point is taken from the input instead.

    Sums wrap around on their way as they may: where they end fits.
    """
    bias = (2 * operator.bias.astype(np.int64)) << parameters.left.astype(np.int64)
    return ChannelParameters(
        bias.astype(np.int32),
        parameters.multiplier,
        parameters.constant,
        parameters.exponent,
        parameters.left,
        parameters.form,
    )


def _pair_of(value: int) -> int:
    """An int32 whose halves both are `value`."""
    return int(np.array([value] * 2, np.int16).view(np.int32)[0])
