"""The portable schedule: every operator on every target, simple loops around the integer definition.

It is the oracle that faster schedules are checked against and the fallback where they have nothing to offer.
Reductions are computed next to the element that needs them, so that the only memory besides inputs and
outputs is for padded convolutions: the rows that their window is on, or a padded copy where threads share
the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, te

from edgekit.compiler import definitions, operators as op
from edgekit.compiler.definitions import define
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant
from edgekit.compiler.schedules.reading import element_overlaps, first_overlap, row_overlap
from edgekit.compiler.schedules.row_buffer import finish_rows, is_row_by_row, keep_rows, row_axis
from edgekit.compiler.schedules.runs import in_runs, whole_overlaps

__all__ = ["NAME", "nominal_overlaps", "schedule", "variants"]

NAME = "portable"

_ROW_BY_ROW = (op.Conv2D, op.DepthwiseConv2D)
"""Operators whose padded copy need not be whole."""

UNROLLED_WINDOW = 9
"""A depthwise window of up to this many positions is unrolled: its loops cost more than its work."""


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The one way in which this schedule computes a step."""
    return (Variant(f"{NAME}.{step.operator.NAME}", lambda: schedule(program, step, request)),)


def schedule(program: Program, step: Step, request: Request) -> Kernel:
    """The kernel for one step."""
    inputs = [program.tensors[tensor] for tensor in step.inputs]
    output = program.tensors[step.output]
    definition = define(step.operator, inputs, output)
    constants = tuple(placeholder for placeholder, _ in definition.constants)
    function = te.create_prim_func([*definition.inputs, *constants, definition.output])
    sch = s_tir.Schedule(function)
    padded = definitions.PADDED in _block_names(sch)
    if isinstance(step.operator, _BY_ROWS):
        attached = _schedule_rows(sch)
    else:
        attached = _schedule_elements(sch, step.operator, unrolled=request.prefer != "size")
    row_by_row = padded and isinstance(step.operator, _ROW_BY_ROW) and is_row_by_row(sch)
    _initialise_outside_reductions(sch, attached)
    kept = False
    if row_by_row and not request.threads and isinstance(step.operator, _ROW_BY_ROW):
        kept = keep_rows(sch, step.operator.window, row_axis(output.shape))
    overlaps: tuple[Overlap, ...] = ()
    if not padded or row_by_row:
        overlaps = _overlaps(step.operator, inputs, output, padded=padded, threads=request.threads)
    finished = finish_rows(sch.mod["main"]) if kept else sch.mod["main"]
    return Kernel(
        f"{NAME}.{step.operator.NAME}",
        in_runs(finished, inputs, output),
        tuple(values for _, values in definition.constants),
        overlaps,
    )


def nominal_overlaps(program: Program, step: Step) -> tuple[Overlap, ...]:
    """How an output could lie over its inputs on one thread, whatever the target's kernels do."""
    inputs, output = [program.tensors[tensor] for tensor in step.inputs], program.tensors[step.output]
    padded = isinstance(step.operator, _ROW_BY_ROW) and any(step.operator.window.padding)
    return whole_overlaps(
        program, step, _overlaps(step.operator, inputs, output, padded=padded, threads=False)
    )


def _overlaps(
    operator: op.Operator, inputs: Sequence[Tensor], output: Tensor, *, padded: bool, threads: bool
) -> tuple[Overlap, ...]:
    if padded and isinstance(operator, _ROW_BY_ROW):
        if threads:  # the padded copy is made first
            return (first_overlap(inputs[0]),)
        return (row_overlap(operator.window, inputs[0], output, row_axis(output.shape)),)
    return () if padded or threads else element_overlaps(operator, inputs, output)


_BY_ROWS = (op.Softmax, op.LayerNorm)
"""Operators whose stages before the output are computed once a row."""


def _block_names(sch: Any) -> list[str]:
    """Names of the stages, in the order in which they are computed."""
    return [str(sch.get(block).name_hint) for block in sch.get_child_blocks(sch.get_sblock("root"))]


def _schedule_elements(sch: Any, operator: op.Operator, *, unrolled: bool) -> int:
    """Compute every stage but the padded copy for one output element at a time.

    Returns the depth of that loop.
    """
    loops = sch.get_loops(sch.get_sblock(definitions.OUTPUT))
    if not loops:
        return 0  # One element without dimensions: its stages stand side by side.
    for name in reversed(_block_names(sch)):
        if name not in (definitions.OUTPUT, definitions.PADDED):
            sch.compute_at(sch.get_sblock(name), loops[-1])
    if unrolled and isinstance(operator, op.DepthwiseConv2D):
        rows, columns = operator.window.kernel
        if rows * columns <= UNROLLED_WINDOW:
            for loop in sch.get_loops(sch.get_sblock(definitions.SUM))[len(loops) :]:
                sch.unroll(loop)
    return len(loops)


def _schedule_rows(sch: Any) -> int:
    """Softmax, layer normalisation.

    Everything of a row is computed when that row's outputs are; returns the depth of the row loop.
    """
    loops = sch.get_loops(sch.get_sblock(definitions.OUTPUT))
    if len(loops) > 1:
        for name in reversed(_block_names(sch)):
            if name != definitions.OUTPUT:
                sch.compute_at(sch.get_sblock(name), loops[-2])
    return len(loops) - 1


def _initialise_outside_reductions(sch: Any, depth: int) -> None:
    """Set accumulators before the reduction loops instead of testing for the first turn inside them."""
    for name in _block_names(sch):
        block = sch.get_sblock(name)
        loops = sch.get_loops(block)
        if sch.get(block).init is not None and len(loops) > depth:
            sch.decompose_reduction(block, loops[depth])
