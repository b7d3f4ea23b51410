"""What a schedule returns: a kernel, ready for object code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kernel"]


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A scheduled PrimFunc and the constants it reads.

    The function's parameters are the operator's inputs, the constants in order, and the output. Buffers that
    it allocates itself (padding copies, packed panels) become a workspace pointer behind the output.
    """

    name: str
    """`<isa>.<operator>`, as reports show it."""
    function: Any
    constants: tuple[NDArray[np.generic], ...]
