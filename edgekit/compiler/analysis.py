"""What a model consists of and what will become of each operator, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.artifacts import Allocation, CompiledOperator, Model, Preference, TensorSpec
from edgekit.compiler.compile import Assembly, assemble
from edgekit.compiler.lowering import Refusal, lower_partly
from edgekit.compiler.program import Program, Step

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["Form", "ModelAnalysis", "OperatorAnalysis", "analyze_model", "analyze_program"]

Form = Literal["integer", "float", "refused"]


@dataclass(frozen=True, slots=True)
class OperatorAnalysis:
    """One operator: shapes are as stored (NHWC), sizes in bytes. `reason` says why it is not integer.

    A refused one has no shapes. Where something was refused, no operator has a schedule: none will run.
    """

    name: str
    op: str
    form: Form
    schedule: str | None
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    macs: int
    parameters: int
    """Those that no operator before it holds: the steps of a recurrent layer share theirs."""
    weights_bytes: int
    activation_bytes: int
    workspace_bytes: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelAnalysis:
    """A model on a target, unbuilt. What a build adds is in neither size: code, stack, the agent's buffers.

    None where operators were refused, or where the target sets no limit.
    """

    operators: tuple[OperatorAnalysis, ...]
    inputs: tuple[TensorSpec, ...]
    arena_bytes: int | None
    """Of activations and workspaces, as the memory plan lays them out."""
    constants_bytes: int | None
    """Weights, biases, multipliers, tables."""
    ram_limit: int | None
    """The board's region that holds the arena."""
    flash_limit: int | None
    """The board's region that holds the constants."""
    allocations: tuple[Allocation, ...] = ()
    """The plan of the arena; empty where operators were refused."""

    def misfits(self) -> tuple[str, ...]:
        """What is larger than its region already, in words."""
        pairs = (
            ("the arena", self.arena_bytes, "RAM", self.ram_limit),
            ("the constants", self.constants_bytes, "flash", self.flash_limit),
        )
        return tuple(
            f"{what} of {size:,} B and the {memory} of {limit:,} B"
            for what, size, memory, limit in pairs
            if size is not None and limit is not None and size > limit
        )


def analyze_model(model: Model, target: Target, *, prefer: Preference = "speed") -> ModelAnalysis:
    """Every operator of the lowered model in the order in which it runs, then those that were refused."""
    program, refusals = lower_partly(model)
    return analyze_program(program, target, refusals, name=model.name, prefer=prefer)


def analyze_program(
    program: Program,
    target: Target,
    refusals: Sequence[Refusal] = (),
    *,
    name: str,
    prefer: Preference = "speed",
) -> ModelAnalysis:
    """The same of a lowered program.

    Raises:
        ModelError: it has no operators.
    """
    arena, flash = target.region("arena"), target.region("weights")
    ram_limit = None if arena is None else arena.size_bytes
    flash_limit = None if flash is None else flash.size_bytes
    inputs = tuple(spec for spec, _ in program.inputs)
    if refusals:
        partial = (
            _of_step(program, step, None, parameters)
            for step, parameters in zip(program.steps, program.own_parameters(), strict=True)
        )
        operators = (*partial, *map(_of_refusal, refusals))
        return ModelAnalysis(operators, inputs, None, None, ram_limit, flash_limit)
    assembly = assemble(
        program, target.schedules, threads=target.platform == "linux", name=name, prefer=prefer
    )
    return ModelAnalysis(
        _assembled(assembly, name),
        inputs,
        assembly.plan.arena_bytes,
        assembly.weights.size_bytes,
        ram_limit,
        flash_limit,
        assembly.plan.allocations,
    )


def _assembled(assembly: Assembly, name: str) -> tuple[OperatorAnalysis, ...]:
    compiled = assembly.compiled({}, "", name=name, target="").operators
    program = assembly.program
    each = zip(program.steps, compiled, program.own_parameters(), strict=True)
    return tuple(_of_step(program, step, operator, parameters) for step, operator, parameters in each)


def _of_step(
    program: Program, step: Step, compiled: CompiledOperator | None, parameters: int
) -> OperatorAnalysis:
    output = program.tensors[step.output]
    inputs = [program.tensors[tensor] for tensor in step.inputs]
    operands = sum(tensor.data.nbytes for tensor in inputs if tensor.data is not None)
    return OperatorAnalysis(
        name=output.name,
        op=step.operator.label,
        form="integer" if step.float_because is None else "float",
        schedule=None if compiled is None else compiled.schedule,
        input_shapes=tuple(tensor.shape for tensor in inputs if tensor.data is None),
        output_shape=output.shape,
        macs=step.operator.macs(output.shape),
        parameters=parameters,
        weights_bytes=operands if compiled is None else compiled.weights_bytes,
        activation_bytes=output.size_bytes,
        workspace_bytes=0 if compiled is None else compiled.workspace_bytes,
        reason=step.float_because,
    )


def _of_refusal(refusal: Refusal) -> OperatorAnalysis:
    place = refusal.place
    return OperatorAnalysis(
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
