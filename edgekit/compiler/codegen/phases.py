"""Splits a lowered operator so that several threads can work on it.

A lowered operator is one or more loop nests in a row (a padded copy, then the output), each over independent
elements. Each nest becomes a function of its own that runs a part of the outermost loop, `[begin, end)`;
between two nests all threads meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from edgekit.compiler.codegen.objects import Lowered

__all__ = ["MINIMUM_MACS", "Phase", "split_phases"]

MINIMUM_MACS = 65_536
"""Waking a thread costs some tens of thousands of instructions: smaller operators stay on one."""


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One loop nest as a function with two more parameters, `int32_t begin, int32_t end` of [0, extent)."""

    function: Any
    extent: int


def split_phases(lowered: Lowered) -> tuple[Phase, ...]:
    """The operator's loop nests as phases; none where they share memory on the stack or are too short."""
    statements = list(lowered.function.body.seq)
    declarations = [each for each in statements if isinstance(each, tirx.DeclBuffer)]
    loops = [each for each in statements if isinstance(each, tirx.For)]
    if len(declarations) + len(loops) != len(statements):
        return ()
    if any(not isinstance(loop.extent, tirx.IntImm) or int(loop.min) != 0 for loop in loops):
        return ()
    if max(int(loop.extent) for loop in loops) < 2:
        return ()
    return tuple(_phase(lowered.function, declarations, loop) for loop in loops)


def _phase(function: Any, declarations: list[Any], loop: Any) -> Phase:
    begin, end = tirx.Var("begin", "int32"), tirx.Var("end", "int32")
    part = tirx.For(loop.loop_var, begin, end - begin, loop.kind, loop.body, annotations=loop.annotations)
    phase = tirx.PrimFunc([*function.params, begin, end], tirx.SeqStmt([*declarations, part]))
    for key, value in dict(function.attrs).items():
        phase = phase.with_attr(key, value)
    return Phase(phase, int(loop.extent))
