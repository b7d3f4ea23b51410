"""Schedules by instruction set. A target lists the ones that it can run, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules import armv7em, floating, portable
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Routine, Variant
from edgekit.compiler.schedules.portable import nominal_overlaps
from edgekit.compiler.schedules.runs import is_listed, whole_overlaps
from edgekit.errors import TargetError

__all__ = [
    "SCHEDULES",
    "Kernel",
    "Overlap",
    "Request",
    "Routine",
    "Variant",
    "nominal_overlaps",
    "schedule_step",
    "variants",
]

SCHEDULES: Mapping[str, Callable[[Program, Step, Request], tuple[Variant, ...]]] = {
    armv7em.NAME: armv7em.variants,
    portable.NAME: portable.variants,
}


def variants(names: Sequence[str], program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Every way in which the schedules of `names` can compute a step; the first is the default."""
    if not is_listed(program, step):
        names = [name for name in names if name == portable.NAME]
    return tuple(
        variant for name in names if name in SCHEDULES for variant in SCHEDULES[name](program, step, request)
    )


def schedule_step(
    names: Sequence[str], program: Program, step: Step, request: Request, choice: str | None = None
) -> Kernel:
    """The kernel of the variant called `choice`, or of the first one that the schedules in `names` have.

    Raises:
        TargetError: there is no such variant.
    """
    if isinstance(step.operator, op.FloatFunction):
        return floating.schedule(program, step, step.operator, request)
    found = variants(names, program, step, request)
    chosen = next((variant for variant in found if choice in (None, variant.name)), None)
    if chosen is not None:
        kernel = chosen.build()
        return replace(kernel, overlaps=whole_overlaps(program, step, kernel.overlaps))
    if found:
        raise TargetError(
            f"{step.operator.NAME} has no variant {choice} here",
            hint=f"choose one of: {', '.join(variant.name for variant in found)}",
        )
    raise TargetError(
        f"no schedule among {', '.join(names) or 'none'} exists", hint=f"list one of: {', '.join(SCHEDULES)}"
    )
