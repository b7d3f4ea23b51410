"""Clamps that the saturation to int8 does not do: of what a kernel has written."""

from __future__ import annotations

from typing import Any

from edgekit.compiler import operators as op
from edgekit.compiler.program import Tensor
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.memory import clamp_bytes

__all__ = ["clamp_at", "clamp_output"]


def clamp_output(frame: Frame, clamp: op.Clamp, output: Tensor) -> None:
    """All of the kernel's output."""
    if output.runs is None:
        clamp_at(frame, clamp, frame.output, 1, output.size_bytes, output.size_bytes)
    else:
        runs = output.runs
        clamp_at(frame, clamp, frame.output, output.size_bytes // runs.size, runs.size, runs.pitch)


def clamp_at(frame: Frame, clamp: op.Clamp, place: Any, pixels: int, channels: int, pitch: int) -> None:
    """So many bytes of each pixel from a place on, in one piece or `pitch` bytes apart."""
    if (clamp.low, clamp.high) == (-128, 127):
        return
    bounds = word_of_bytes(clamp.low), word_of_bytes(clamp.high)
    if pitch == channels:
        frame.call(clamp_bytes(), place, pixels * channels, *bounds)
        return
    with repeat(pixels) as pixel:
        frame.call(clamp_bytes(), offset(place, pixel * pitch), channels, *bounds)
