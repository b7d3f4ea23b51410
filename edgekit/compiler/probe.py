"""Programs that exist to be measured: many operators side by side, none feeding another.

One image with such a program tells what each operator costs in one flash. All read the same bytes and each
output dies at once, so that the arena is that of the largest operator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgekit.artifacts import TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor

__all__ = ["channels_of", "operator_kind", "probe_program"]


def probe_program(selected: Sequence[tuple[Program, Step]]) -> Program:
    """A program of these steps, each as in its own program. The output of the step at place i is named
    `str(i)`: the compiler may order them anew.

    Raises:
        ValueError: no steps.
    """
    if not selected:
        raise ValueError("a probe needs a step")
    sources = [
        program.tensors[index]
        for program, step in selected
        for index in step.inputs
        if program.tensors[index].data is None
    ]
    largest = max((tensor.size_bytes for tensor in sources), default=1)
    shared = Tensor(0, "probe", (largest,), "int8", None, 0)
    tensors = [shared]
    steps = []
    for place, (program, step) in enumerate(selected):
        inputs = []
        for index in step.inputs:
            tensor = program.tensors[index]
            number = len(tensors)
            storage = number if tensor.data is not None else shared.storage
            tensors.append(replace(tensor, id=number, storage=storage))
            inputs.append(number)
        number = len(tensors)
        output = program.tensors[step.output]
        tensors.append(replace(output, id=number, storage=number, name=str(place)))
        steps.append(replace(step, inputs=tuple(inputs), output=number))
    last = tensors[steps[-1].output]
    return Program(
        tuple(tensors),
        tuple(steps),
        ((TensorSpec(shared.name, shared.shape, shared.dtype), shared.id),),
        ((TensorSpec("last", last.shape, last.dtype, last.quantization), last.id),),
    )


def channels_of(program: Program, step: Step) -> tuple[int, ...]:
    """The channel counts that an operator's cost depends on: (inputs, outputs) where it mixes channels, else
    (channels,) of the last axis.
    """
    output = program.tensors[step.output]
    if isinstance(step.operator, (op.Conv2D, op.Dense)):
        return (program.tensors[step.inputs[0]].shape[-1], output.shape[-1])
    return (output.shape[-1],) if output.shape else (1,)


def operator_kind(program: Program, step: Step) -> str:
    """All else that its cost depends on, as one line: operator, window, the other dimensions, types, whether
    it only moves values or rescales them.
    """
    operator = step.operator
    parts = [operator.NAME]
    window = getattr(operator, "window", None)
    if window is not None:
        parts += [
            f"k{'x'.join(map(str, window.kernel))}",
            f"s{'x'.join(map(str, window.stride))}",
            f"p{','.join(map(str, window.padding))}",
            f"d{'x'.join(map(str, window.dilation))}",
        ]
    for name in ("axis", "axes", "groups"):
        value = getattr(operator, name, None)
        if value is not None:
            parts.append(f"{name}={value}")
    if getattr(operator, "rescale", 0) is None:
        parts.append("unscaled")
    tensors = [program.tensors[index] for index in (*step.inputs, step.output)]
    parts += [f"{tensor.dtype}[{','.join(map(str, tensor.shape[:-1]))}]" for tensor in tensors]
    return " ".join(parts)
