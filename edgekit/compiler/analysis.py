"""What a model consists of and what will become of each operator, before anything is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgekit.artifacts import Model
from edgekit.compiler.lowering import lower_partly
from edgekit.compiler.schedules import SCHEDULES

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["OperatorAnalysis", "analyze_model"]


@dataclass(frozen=True, slots=True)
class OperatorAnalysis:
    """One operator: shapes are as stored (NHWC), sizes in bytes. A refused one has a reason and no shapes."""

    name: str
    op: str
    form: Literal["integer", "refused"]
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
            op=step.operator.NAME,
            form="integer",
            schedule=None if schedule is None else f"{schedule}.{step.operator.NAME}",
            input_shapes=tuple(program.tensors[tensor].shape for tensor in step.inputs),
            output_shape=program.tensors[step.output].shape,
            macs=step.operator.macs(program.tensors[step.output].shape),
            parameters=step.operator.parameters(),
            weights_bytes=_constant_bytes(step.operator),
            activation_bytes=program.tensors[step.output].size_bytes,
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


def _constant_bytes(operator: object) -> int:
    values = (getattr(operator, name) for name in getattr(operator, "__dataclass_fields__", ()))
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))
