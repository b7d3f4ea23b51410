"""Fully connected layers, four output channels at a time."""

from __future__ import annotations

import math

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.float_rule import dense_parameters
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.armv7em.vector_product import is_widened, vector_product
from edgekit.compiler.schedules.kernel import Kernel, Request, Variant

__all__ = ["variants"]


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute a Dense step, best first; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Dense)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    parameters = dense_parameters(operator)
    product = vector_product(operator.weights, parameters) if parameters is not None else None
    if product is None:
        return ()
    channels, k = operator.weights.shape
    rows = math.prod(source.shape) // k

    def variant(*, widened: bool) -> Variant:
        name = f"armv7em.dense_{'int16' if widened else 'int8'}"

        def build() -> Kernel:
            frame = Frame([source], {"stream": product.stream}, output)
            with frame:
                multiply = product.prepare(frame, request, widened=widened, readable=k)
                with repeat(rows) as row:
                    multiply(offset(frame.inputs[0], row * k), offset(frame.output, row * channels))
                clamp_output(frame, operator.clamp, output)
            return frame.kernel(name)

        return Variant(name, build)

    small = is_widened(k, request)
    return variant(widened=small), variant(widened=not small)
