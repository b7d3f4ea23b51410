"""Schedules by instruction set. A target lists the ones that it can run, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules import armv7em, floating, portable
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Routine, Variant
from edgekit.errors import TargetError

__all__ = [
    "SCHEDULES",
    "Kernel",
    "Overlap",
    "Request",
    "Routine",
    "Variant",
    "schedule_step",
    "variants",
]

SCHEDULES: Mapping[str, Callable[[Program, Step, Request], tuple[Variant, ...]]] = {
    armv7em.NAME: armv7em.variants,
    portable.NAME: portable.variants,
}


def variants(names: Sequence[str], program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Every way in which the schedules of `names` can compute a step; the first is the default."""
    return tuple(
        variant for name in names if name in SCHEDULES for variant in SCHEDULES[name](program, step, request)
    )


def schedule_step(names: Sequence[str], program: Program, step: Step, request: Request) -> Kernel:
    """The kernel of the first variant that the schedules in `names` have.

    Raises:
        TargetError: none of them exists.
    """
    if isinstance(step.operator, op.FloatFunction):
        return floating.schedule(program, step, step.operator, request)
    found = variants(names, program, step, request)
    if found:
        return found[0].build()
    raise TargetError(
        f"no schedule among {', '.join(names) or 'none'} exists", hint=f"list one of: {', '.join(SCHEDULES)}"
    )
