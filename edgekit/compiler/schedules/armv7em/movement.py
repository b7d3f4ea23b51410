"""Concatenation of inputs that are stored as the output is: copies of whole runs."""

from __future__ import annotations

import math

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.armv7em.memory import copy_bytes
from edgekit.compiler.schedules.armv7em.requantize import needs_clamp
from edgekit.compiler.schedules.kernel import Kernel, Request, Variant

__all__ = ["concat_variants"]

SHORTEST_RUN = 8
"""Calling a routine for fewer bytes costs more than the loop of the portable schedule."""


def concat_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """A copy for each run of each input; none where an input is to be requantised."""
    operator = step.operator
    assert isinstance(operator, op.Concat)
    inputs = [program.tensors[tensor] for tensor in step.inputs]
    output = program.tensors[step.output]
    runs = [math.prod(tensor.shape[operator.axis :]) for tensor in inputs]
    if any(rescale is not None for rescale in operator.rescales) or needs_clamp(operator.clamp):
        return ()
    if min(runs) < SHORTEST_RUN:
        return ()
    name = "armv7em.concat"
    whole = math.prod(output.shape[operator.axis :])

    def build() -> Kernel:
        frame = Frame(inputs, {}, output)
        with frame, repeat(math.prod(output.shape[: operator.axis])) as index:
            start = 0
            for source, run in zip(frame.inputs, runs, strict=True):
                frame.call(
                    copy_bytes(),
                    offset(frame.output, index * whole + start),
                    offset(source, index * run),
                    run,
                )
                start += run
        return frame.kernel(name)

    return (Variant(name, build),)
