"""Softmax, a row at a time."""

from __future__ import annotations

import math

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.armv7em.softmax_routine import softmax_row
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant
from edgekit.compiler.softmax import SOFTMAX_MAX_CLASSES

__all__ = ["variants"]

NAME = "armv7em.softmax"


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The way to compute a Softmax; none where there are too many classes."""
    operator = step.operator
    assert isinstance(operator, op.Softmax)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    classes = output.shape[-1]
    if not 1 <= classes <= SOFTMAX_MAX_CLASSES:
        return ()

    def build() -> Kernel:
        frame = Frame([source], {"table": operator.table}, output)
        with frame, repeat(math.prod(output.shape[:-1])) as row:
            frame.call(
                softmax_row(),
                offset(frame.inputs[0], row * classes),
                frame.constants["table"],
                offset(frame.output, row * classes),
                classes,
            )
        return frame.kernel(NAME, overlaps=[Overlap(0, 0)])

    return (Variant(NAME, build),)
