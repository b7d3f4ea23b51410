"""Fully connected layers, four output channels at a time."""

from __future__ import annotations

import math

import numpy as np

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.dot_products import (
    dot_products,
    entry_offset,
    pack_channel_fours,
    widen,
)
from edgekit.compiler.schedules.armv7em.float_rule import dense_parameters
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.memory import clamp_bytes, copy_bytes
from edgekit.compiler.schedules.armv7em.pixel_blocks import FEW_STEPS, STEPS
from edgekit.compiler.schedules.armv7em.requantize import needs_clamp
from edgekit.compiler.schedules.kernel import Kernel, Request, Variant

__all__ = ["variants"]

LARGEST_WIDENED = 256
"""Inputs of a layer that are widened once; more would take more memory than the layer itself."""


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute a Dense step, best first; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Dense)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    parameters = dense_parameters(operator)
    if parameters is None:
        return ()
    channels, k = operator.weights.shape
    weights = np.zeros((_up(channels), _up(k)), np.int8)
    weights[:channels, :k] = operator.weights
    stream = pack_channel_fours(weights, parameters.filled(len(weights)))
    if stream is None:
        return ()

    unrolled = FEW_STEPS if request.prefer == "size" else STEPS

    def variant(*, widened: bool) -> Variant:
        name = f"armv7em.dense_{'int16' if widened else 'int8'}"

        def build() -> Kernel:
            frame = Frame([source], {"stream": stream}, output)
            with frame:
                _emit(frame, operator, source, widened=widened, unrolled=unrolled)
            return frame.kernel(name)

        return Variant(name, build)

    small = k <= LARGEST_WIDENED and request.prefer != "ram"
    return variant(widened=small), variant(widened=not small)


def _up(size: int) -> int:
    return -(-size // 4) * 4


def _emit(frame: Frame, operator: op.Dense, source: Tensor, *, widened: bool, unrolled: int) -> None:
    channels, k = operator.weights.shape
    rows = math.prod(source.shape) // k
    depth, wide = _up(k), _up(channels)
    padded = frame.scratch(depth) if depth != k else None
    vector = frame.scratch(2 * depth) if widened else None
    outputs = frame.scratch(wide) if wide != channels else None
    with repeat(rows) as row:
        inputs = offset(frame.inputs[0], row * k)
        target = offset(frame.output, row * channels)
        if padded is not None:
            frame.call(copy_bytes(), padded, inputs, k)
            inputs = padded
        if vector is not None:
            frame.call(widen(), inputs, vector, depth)
            inputs = vector
        frame.call(
            dot_products(widened=widened, unrolled=unrolled),
            inputs,
            frame.constants["stream"],
            target if outputs is None else outputs,
            wide,
            2 * depth if widened else depth,
            entry_offset(depth, widened=widened, unrolled=unrolled),
        )
        if outputs is not None:
            frame.call(copy_bytes(), target, outputs, channels)
    if needs_clamp(operator.clamp):
        low, high = word_of_bytes(operator.clamp.low), word_of_bytes(operator.clamp.high)
        frame.call(clamp_bytes(), frame.output, rows * channels, low, high)
