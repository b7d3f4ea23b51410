"""Clamps that the saturation to int8 does not do: of what a kernel has written."""

from __future__ import annotations

from typing import Any

from edgekit.compiler import operators as op
from edgekit.compiler.program import Tensor
from edgekit.compiler.schedules.armv7em.frame import Frame, word_of_bytes
from edgekit.compiler.schedules.armv7em.memory import clamp_bytes

__all__ = ["clamp_at", "clamp_output"]


def clamp_output(frame: Frame, clamp: op.Clamp, output: Tensor) -> None:
    """All of the kernel's output."""
    clamp_at(frame, clamp, frame.output, output.size_bytes)


def clamp_at(frame: Frame, clamp: op.Clamp, place: Any, size_bytes: int) -> None:
    """So many bytes from a place on."""
    if (clamp.low, clamp.high) != (-128, 127):
        frame.call(clamp_bytes(), place, size_bytes, word_of_bytes(clamp.low), word_of_bytes(clamp.high))
