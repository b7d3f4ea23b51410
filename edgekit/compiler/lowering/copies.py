"""Programs of models that compute nothing: their outputs are copies of their inputs, or constants."""

from __future__ import annotations

from dataclasses import replace

from edgekit.artifacts import TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor

__all__ = ["with_copies"]


def with_copies(program: Program) -> Program:
    """The program with a copy of every output that is a constant, and of all where it has no other step.

    So a program has at least one operator, and its outputs lie in the arena.
    """
    tensors, steps = list(program.tensors), list(program.steps)
    outputs: list[tuple[TensorSpec, int]] = []
    for spec, index in program.outputs:
        source = tensors[index]
        if program.steps and source.data is None:
            outputs.append((spec, index))
            continue
        copy = Tensor(
            len(tensors), source.name, source.shape, source.dtype, source.quantization, len(tensors)
        )
        tensors.append(copy)
        steps.append(Step(op.Copy(), (index,), copy.id, None))
        outputs.append((spec, copy.id))
    return replace(program, tensors=tuple(tensors), steps=tuple(steps), outputs=tuple(outputs))
