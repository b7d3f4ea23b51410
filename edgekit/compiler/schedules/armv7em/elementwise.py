"""Sums of two tensors, and tables."""

from __future__ import annotations

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.armv7em.frame import Frame, word_of_bytes
from edgekit.compiler.schedules.armv7em.linear_sum import add_linear, linear_sum
from edgekit.compiler.schedules.armv7em.lookup import look_up
from edgekit.compiler.schedules.armv7em.memory import clamp_bytes
from edgekit.compiler.schedules.armv7em.requantize import needs_clamp
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = ["lookup_variants", "sum_variants"]


def sum_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute an Add or Subtract of two tensors of one shape; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Add | op.Subtract)
    inputs = [program.tensors[tensor] for tensor in step.inputs]
    output = program.tensors[step.output]
    if any(tensor.shape != output.shape for tensor in inputs):
        return ()
    form = linear_sum(operator)
    if form is None:
        return ()
    name = f"armv7em.{operator.NAME}_linear"

    def build() -> Kernel:
        frame = Frame(inputs, {}, output)
        with frame:
            frame.call(
                add_linear(form.shift),
                *frame.inputs,
                frame.output,
                output.size_bytes,
                form.first,
                form.second,
                form.constant,
            )
            if needs_clamp(operator.clamp):
                low, high = word_of_bytes(operator.clamp.low), word_of_bytes(operator.clamp.high)
                frame.call(clamp_bytes(), frame.output, output.size_bytes, low, high)
        return frame.kernel(name, overlaps=[Overlap(operand, 0) for operand in range(2)])

    return (Variant(name, build),)


def lookup_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """A table of 256 values, four at a time."""
    operator = step.operator
    assert isinstance(operator, op.Lookup)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    if operator.table.dtype.itemsize != 1:
        return ()
    name = "armv7em.lookup"

    def build() -> Kernel:
        frame = Frame([source], {"table": operator.table}, output)
        with frame:
            frame.call(look_up(), *frame.inputs, frame.constants["table"], frame.output, output.size_bytes)
        return frame.kernel(name, overlaps=[Overlap(0, 0)])

    return (Variant(name, build),)
