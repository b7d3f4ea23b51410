"""Which answers of a program are the same bytes on every target, and which only nearly."""

from __future__ import annotations

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program

__all__ = ["is_exact", "requantises"]


def is_exact(program: Program) -> bool:
    """Whether no operator computes in float.

    Those that do differ in their last bits: targets contract multiplications and additions or do not, and
    their libraries round exponentials in ways of their own.
    """
    return not any(_is_inexact(step.operator) for step in program.steps)


def requantises(program: Program) -> bool:
    """Whether integers (or truth values) that float operators decide are computed with further.

    A difference in the last bits then becomes one of a whole step.
    """
    inexact: set[int] = set()
    for step in program.steps:
        read = [program.tensors[tensor] for tensor in step.inputs]
        inexact_read = [tensor for tensor in read if tensor.storage in inexact]
        if any(tensor.dtype != "float32" for tensor in inexact_read):
            return True
        if inexact_read or _is_inexact(step.operator):
            inexact.add(program.tensors[step.output].storage)
    return False


def _is_inexact(operator: op.Operator) -> bool:
    if isinstance(operator, op.FloatFunction):
        return operator.computes_in_float
    return isinstance(operator, op.Dequantize)
