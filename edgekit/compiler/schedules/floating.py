"""Schedules of float operators, on every target.

The functions are TVM's own legalisations, a block a stage. Cheap stages move into the stage that reads them,
sums are kept in registers next to the element that needs them. Where the target has vector registers, a
sum of products is computed for a tile of outputs at a time: some positions by some channels, whose weights
are laid out side by side when the model is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.float_tiles import tile_product
from edgekit.compiler.schedules.kernel import Kernel, Request
from edgekit.compiler.schedules.stages import (
    elements,
    holds,
    is_copy,
    is_spatial,
    is_sum,
    reads_in_step,
    stages,
    variables,
)

__all__ = ["NAME", "schedule"]

NAME = "floating"


def schedule(program: Program, step: Step, operator: op.FloatFunction, request: Request) -> Kernel:
    """The kernel of a float operator; its constants are tensors of the program."""
    name = f"{NAME}.{operator.title}"
    function = operator.function.with_attr("tirx.noalias", True)
    if not _is_regular(function):
        return Kernel(name, function, ())
    sch = s_tir.Schedule(function)
    constants = {
        position: data
        for position, data in enumerate(program.tensors[tensor].data for tensor in step.inputs)
        if data is not None
    }
    _inline(sch)
    packed = tile_product(sch, constants) if request.vectors else None
    if packed is None:
        _attach_sums(sch)
    _initialise_outside_sums(sch)
    return Kernel(name, sch.mod["main"], (), operands=packed or {})


def _is_regular(function: Any) -> bool:
    """Whether each stage is a block that says what it reads and writes (scatters are loops in one block)."""
    realize = function.body
    if not isinstance(realize, s_tir.SBlockRealize) or realize.block.name_hint != "root":
        return False
    regular = True

    def visit(block: Any) -> None:
        nonlocal regular
        if block.name_hint != "root" and not block.writes:
            regular = False

    tvm_ffi.structural_walk(function.body, (s_tir.SBlock, visit))
    return regular


def _inline(sch: Any) -> None:
    """Move stages into the one stage that reads them, where nothing is computed twice by that."""
    for stage in stages(sch):
        block = sch.get(stage)
        consumers = sch.get_consumers(stage)
        if is_sum(block) or len(consumers) != 1:
            continue
        consumer = sch.get(consumers[0])
        reads = elements(consumer)
        if not is_copy(block) and elements(block, spatial_only=True) < reads:
            continue
        try:
            sch.compute_inline(stage)
        except tvm.s_tir.ScheduleError:
            continue


def _attach_sums(sch: Any) -> None:
    """Compute a sum where its one reader, element by element, needs it."""
    for stage in reversed(stages(sch)):
        if not is_sum(sch.get(stage)):
            continue
        consumers = sch.get_consumers(stage)
        if len(consumers) == 1 and reads_in_step(sch, stage, consumers[0]):
            sch.compute_at(stage, sch.get_loops(consumers[0])[-1])


def _initialise_outside_sums(sch: Any) -> None:
    """Set sums before the loops over what is added, instead of testing for the first turn inside them."""
    for stage in _all_sums(sch):
        loops = sch.get_loops(stage)
        first = _first_reduction(sch, stage, loops)
        if first is not None:
            sch.decompose_reduction(stage, first)


def _all_sums(sch: Any) -> list[Any]:
    return [stage for stage in stages(sch) if is_sum(sch.get(stage))]


def _first_reduction(sch: Any, stage: Any, loops: Sequence[Any]) -> Any | None:
    """The outermost loop that runs over what is added."""
    reductions = [each.dom.extent for each in sch.get(stage).iter_vars if not is_spatial(each)]
    realize = _realize_of(sch, stage)
    values = [
        value
        for value, each in zip(realize.iter_values, sch.get(stage).iter_vars, strict=True)
        if not is_spatial(each)
    ]
    used = variables(values)
    for loop in loops:
        if holds(used, sch.get(loop).loop_var):
            return loop
    return loops[-1] if loops and reductions else None


def _realize_of(sch: Any, stage: Any) -> Any:
    block = sch.get(stage)
    found: list[Any] = []

    def visit(realize: Any) -> None:
        if realize.block.same_as(block):
            found.append(realize)

    tvm_ffi.structural_walk(sch.mod["main"].body, (s_tir.SBlockRealize, visit))
    return found[0]
