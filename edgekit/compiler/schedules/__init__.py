"""Schedules by instruction set. A target lists the ones that it can run, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules import floating, portable
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request
from edgekit.errors import TargetError

__all__ = ["SCHEDULES", "Kernel", "Overlap", "Request", "schedule_step"]

SCHEDULES: Mapping[str, Callable[..., Kernel]] = {portable.NAME: portable.schedule}


def schedule_step(names: Sequence[str], program: Program, step: Step, request: Request) -> Kernel:
    """The kernel of the first schedule in `names` that this version has.

    Raises:
        TargetError: none of them exists.
    """
    if isinstance(step.operator, op.FloatFunction):
        return floating.schedule(step, step.operator)
    for name in names:
        if name in SCHEDULES:
            return SCHEDULES[name](program, step, request)
    raise TargetError(
        f"no schedule among {', '.join(names) or 'none'} exists", hint=f"list one of: {', '.join(SCHEDULES)}"
    )
