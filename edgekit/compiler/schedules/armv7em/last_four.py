"""Four channels at a time of channels that are no fours: the last four overlap the ones before them.

What they share is computed twice and stored twice, so no channel more is read, stored or stands in the stream
beside the others. It takes four channels at least, and an output that is apart from the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import Assembler, Register

__all__ = ["emit_last_four", "in_fours"]


def in_fours(channels: int) -> NDArray[np.int64]:
    """Numbers of the channels in the order in which they are computed, (4 · fours,)."""
    firsts = np.minimum(np.arange(0, channels, 4), channels - 4)
    return (firsts[:, None] + np.arange(4)).reshape(-1)


def emit_last_four(
    code: Assembler, output: Register, end: Register, spare: Register, pointers: Sequence[Register]
) -> None:
    """Move `output` back to `end` − 4 where it is between that and `end`, and other pointers with it."""
    whole = code.new_label("whole")
    code.cmp(output, end)
    code.branch(whole, "eq")
    code.sub(spare, end, 4)
    code.cmp(output, spare)
    code.branch(whole, "ls")
    code.sub(spare, output, spare)
    for pointer in (output, *pointers):
        code.sub(pointer, pointer, spare)
    code.label(whole)
