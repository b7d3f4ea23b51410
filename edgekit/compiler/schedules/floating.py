"""Schedules of float operators, on every target."""

from __future__ import annotations

from tvm import s_tir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Step
from edgekit.compiler.schedules.kernel import Kernel

__all__ = ["NAME", "schedule"]

NAME = "floating"


def schedule(step: Step, operator: op.FloatFunction) -> Kernel:
    """The kernel of a float operator; its constants are tensors of the program."""
    sch = s_tir.Schedule(operator.function.with_attr("tirx.noalias", True))
    return Kernel(f"{NAME}.{operator.title}", sch.mod["main"], ())
