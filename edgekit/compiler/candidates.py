"""Operators of a program that can be computed in several ways, for a measurement to choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.artifacts import Preference
from edgekit.compiler import operators as op
from edgekit.compiler.compile import request_for
from edgekit.compiler.memory import share_memory
from edgekit.compiler.probe import channels_of, operator_kind
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules import variants

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["Candidate", "list_candidates"]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One operator of a program, and the names of the variants that compute it, the default first."""

    program: Program
    step: Step
    kind: str
    channels: tuple[int, ...]
    variants: tuple[str, ...]

    @property
    def output(self) -> int:
        """Id of its output tensor, by which `compile_program` takes a choice."""
        return self.step.output

    @property
    def name(self) -> str:
        """Name of its output in the source file (untrusted text)."""
        return self.program.tensors[self.step.output].name


def list_candidates(program: Program, target: Target, prefer: Preference) -> tuple[Candidate, ...]:
    """Every operator that a target's schedules compute, in the order of the program.

    Operators in float have one way, which isn't listed.
    """
    program = share_memory(program)
    threads = target.platform == "linux"
    return tuple(
        Candidate(
            program,
            step,
            operator_kind(program, step),
            channels_of(program, step),
            tuple(
                variant.name
                for variant in variants(
                    target.schedules,
                    program,
                    step,
                    request_for(program, step, threads=threads, prefer=prefer),
                )
            ),
        )
        for step in program.steps
        if not isinstance(step.operator, op.FloatFunction)
    )
