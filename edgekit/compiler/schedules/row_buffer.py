"""Keeps only the rows of a padded input that the window is on, in a ring, instead of a whole padded copy.

Before each row of the output (each pixel, where the output is a single row) the rows that the window
reaches for the first time are copied into the ring, over those that it has left. So the workspace is one
window high, and the output may lie over the input that has been copied.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import s_tir, tirx

from edgekit.compiler import definitions, operators as op

__all__ = ["finish_rows", "is_row_by_row", "keep_rows", "row_axis"]

_SPATIAL, _REDUCTION, _OPAQUE = 0, 2, 4  # IterVar's kinds


def row_axis(output_shape: tuple[int, ...]) -> int:
    """The axis of (N, H, W, C) along which the window moves from one output row to the next."""
    return 1 if output_shape[1] > 1 else 2


def is_row_by_row(sch: Any) -> bool:
    """Whether each output element sums over its own window only.

    Not where no output depends on the sum, since it is clamped to a constant: then all is summed anywhere.
    """
    total = sch.get_sblock(definitions.SUM)
    reductions = sum(each.iter_type == _REDUCTION for each in sch.get(total).iter_vars)
    own = len(sch.get_loops(sch.get_sblock(definitions.OUTPUT)))
    return bool(len(sch.get_loops(total)) <= own + reductions)


def keep_rows(sch: Any, window: op.Window, axis: int) -> bool:
    """Compute the padded stage row by row. True where rows are kept: then `finish_rows` must follow."""
    padded = sch.get_sblock(definitions.PADDED)
    loops = sch.get_loops(sch.get_sblock(definitions.OUTPUT))
    sch.compute_at(padded, loops[axis])
    span = (window.kernel[axis - 1] - 1) * window.dilation[axis - 1] + 1
    if span <= window.stride[axis - 1] or int(sch.get(loops[axis]).extent) == 1:
        return False  # no row is read twice
    sch.rolling_buffer(sch.get_sblock(definitions.PADDED), 0)
    return True


def finish_rows(function: Any) -> Any:
    """The scheduled function, its temporaries of one element back where they are used.

    The ring makes the loop over rows an ordered one, which keeps every buffer outside of it; that is meant
    for the ring alone.
    """

    def unordered(block: Any) -> Any:
        if block.name_hint == definitions.PADDED:
            return block
        iterators = [
            tirx.IterVar(each.dom, each.var, _SPATIAL) if each.iter_type == _OPAQUE else each
            for each in block.iter_vars
        ]
        return s_tir.SBlock(
            iterators,
            block.reads,
            block.writes,
            block.name_hint,
            block.body,
            block.init,
            block.alloc_buffers,
            block.match_buffers,
            block.annotations,
        )

    return function.with_body(tvm_ffi.structural_map(function.body, (s_tir.SBlock, unordered)))
