"""What a model consists of and what will become of each operator, before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekit.artifacts import Model
from edgekit.compiler import operators as op
from edgekit.compiler.lowering import lower_partly
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules import SCHEDULES, floating

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["OperatorAnalysis", "analyze_model"]


@dataclass(frozen=True, slots=True)
class OperatorAnalysis:
    """One operator: shapes are as stored (NHWC), sizes in bytes. `reason` says why it is not integer.

    A refused one has no shapes.
    """

    name: str
    op: str
    form: Literal["integer", "float", "refused"]
    schedule: str | None
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    macs: int
    parameters: int
    weights_bytes: int
    activation_bytes: int
    reason: str | None = None


def analyze_model(model: Model, target: Target) -> tuple[OperatorAnalysis, ...]:
    """Every operator of the lowered model in order, then those that were refused."""
    program, refusals = lower_partly(model)
    schedule = next((name for name in target.schedules if name in SCHEDULES), None)
    operators = [
        OperatorAnalysis(
            name=program.tensors[step.output].name,
            op=step.operator.label,
            form="integer" if step.float_because is None else "float",
            schedule=_schedule(step.operator, schedule),
            input_shapes=tuple(program.tensors[tensor].shape for tensor in step.inputs),
            output_shape=program.tensors[step.output].shape,
            macs=step.operator.macs(program.tensors[step.output].shape),
            parameters=step.operator.parameters(),
            weights_bytes=_constant_bytes(step.operator) + _operand_bytes(program, step),
            activation_bytes=program.tensors[step.output].size_bytes,
            reason=step.float_because,
        )
        for step in program.steps
    ]
    for refusal in refusals:
        place = refusal.place
        operators.append(
            OperatorAnalysis(
                name="" if place is None else place.name,
                op=refusal.relax_op.removeprefix("relax.") if place is None else place.op,
                form="refused",
                schedule=None,
                input_shapes=(),
                output_shape=(),
                macs=0,
                parameters=0,
                weights_bytes=0,
                activation_bytes=0,
                reason=refusal.reason,
            )
        )
    return tuple(operators)


def _schedule(operator: op.Operator, preferred: str | None) -> str | None:
    if isinstance(operator, op.FloatFunction):
        return f"{floating.NAME}.{operator.title}"
    return None if preferred is None else f"{preferred}.{operator.NAME}"


def _operand_bytes(program: Program, step: Step) -> int:
    tensors = (program.tensors[tensor] for tensor in step.inputs)
    return sum(tensor.data.nbytes for tensor in tensors if tensor.data is not None)


def _constant_bytes(operator: object) -> int:
    values = (getattr(operator, name) for name in getattr(operator, "__dataclass_fields__", ()))
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
