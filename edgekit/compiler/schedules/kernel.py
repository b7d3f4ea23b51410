"""What a schedule is asked for, and what it returns: a kernel, ready for object code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Preference

__all__ = ["STACK_BUFFER_BYTES", "Kernel", "Overlap", "Request", "Routine", "Variant"]


STACK_BUFFER_BYTES = 256
"""Buffers of less than this live on the stack, and those of scope "local", which are meant for registers.

Larger ones come from the arena's plan.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What decides between variants of a kernel, beside the operator and its shapes."""

    prefer: Preference = "speed"
    """ram: the least workspace, outputs that may lie over inputs; size: little code; speed: few cycles."""
    threads: bool = False
    """The outermost loops may be cut into parts that run at once: nothing may pass from turn to turn."""
    vectors: bool = False
    """The core has vector registers (those of application processors), and room for longer code."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The output may lie over an input that nobody reads later.

    It destroys nothing that is still to be read if it starts `distance` bytes below the start of input
    number `operand`, or lower. Negative where it may start that much above. In other words: when the
    kernel writes the output's byte k, it has read for the last time all bytes of the input before
    k + 1 − distance.
    """

    operand: int
    distance: int
    exact: bool = False
    """No other distance will do: a kernel that walks over the tensor several times, a few channels each."""


@dataclass(frozen=True, slots=True)
class Routine:
    """A function in the target's assembly language, for a kernel to call by `T.call_extern`.

    The name decides the code: kernels that need routines of the same name share one.
    """

    name: str
    text: str
    """Instructions and labels. What makes it a function of its own section is added when it is embedded."""


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A scheduled PrimFunc and the constants it reads.

    The function's parameters are the operator's inputs, the constants in order, and the output. Buffers that
    it allocates itself (padding copies, packed panels) become a workspace pointer behind the output, which
    never overlaps anything. Pointers are promised to be distinct (`noalias`) unless the memory plan makes use
    of `overlaps`.
    """

    name: str
    """`<isa>.<operator>`, as reports show it."""
    function: Any
    constants: tuple[NDArray[np.generic], ...]
    overlaps: tuple[Overlap, ...] = ()
    """At most one an input; an input without one must be apart from the output."""
    routines: tuple[Routine, ...] = ()
    """What the function calls."""
    operands: Mapping[int, NDArray[np.generic]] = field(default_factory=dict)
    """Inputs that are constants of the program, by position, as the function wants them laid out."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compute a step, whose preconditions hold. Building it is what costs."""

    name: str
    """`<isa>.<kernel>`; within a step's variants no two are the same."""
    build: Callable[[], Kernel]
