"""Where things stand in the report's two charts. Pure arithmetic: numbers in, coordinates out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgekit.artifacts import Allocation

__all__ = ["MemoryChart", "Rectangle", "Tick", "memory_chart", "ticks"]

WIDTH: Final = 960.0
HEIGHT: Final = 340.0
LEFT: Final = 76.0
RIGHT: Final = 12.0
TOP: Final = 14.0
BOTTOM: Final = 40.0

CHARACTER_WIDTH: Final = 7.1
"""Of the chart's 11 px text, on average; decides how much of a name fits into its rectangle."""

MIN_LABEL: Final = 10
"""Fewer characters of a longer name tell nothing."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis, at `position` in the chart's own units."""

    position: float
    text: str


@dataclass(frozen=True, slots=True)
class Rectangle:
    """One tensor's or workspace's place in the arena, over the steps in which it is live."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str
    """As much of its name as fits inside."""
    title: str


@dataclass(frozen=True, slots=True)
class MemoryChart:
    """The arena over time: x is the operator step, y the offset in bytes, growing upwards."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    rectangles: tuple[Rectangle, ...]
    column: tuple[float, float] | None
    """Left edge and width of the step with the most bytes taken."""
    steps: tuple[Tick, ...]
    offsets: tuple[Tick, ...]


def ticks(limit: int, count: int) -> tuple[int, ...]:
    """At most `count` + 1 sizes from 0 to `limit` > 0 bytes, a power of two apart, whole KiB if many."""
    scale = 1024 if limit >= 4096 else 1
    step = scale
    while limit / step > count:
        step *= 2
    return tuple(range(0, limit + 1, step))


def memory_chart(
    allocations: Sequence[Allocation], names: Sequence[str], arena_bytes: int, peak: int | None = None
) -> MemoryChart:
    """Lay out `allocations` of an arena of `arena_bytes` > 0. `names` are theirs, safe to show.

    `peak` is the step to mark.
    """
    step_count = 1 + max((allocation.last for allocation in allocations), default=0)
    step_width = (WIDTH - LEFT - RIGHT) / step_count
    per_byte = (HEIGHT - TOP - BOTTOM) / max(arena_bytes, 1)
    floor = HEIGHT - BOTTOM

    def rectangle(allocation: Allocation, name: str) -> Rectangle:
        width = step_width * (allocation.last - allocation.first + 1)
        height = per_byte * allocation.size_bytes
        return Rectangle(
            x=round(LEFT + step_width * allocation.first, 2),
            y=round(floor - per_byte * (allocation.offset + allocation.size_bytes), 2),
            width=round(width, 2),
            height=round(height, 2),
            kind=allocation.kind,
            label=_label(name, width) if height >= 14 else "",
            title=(
                f"{name} ({allocation.kind}): {allocation.size_bytes:,} B at offset {allocation.offset:,}, "
                f"live in steps {allocation.first} to {allocation.last}"
            ),
        )

    every = -(-step_count // 24)
    return MemoryChart(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=floor,
        rectangles=tuple(
            rectangle(allocation, name) for allocation, name in zip(allocations, names, strict=True)
        ),
        column=None if peak is None else (round(LEFT + step_width * peak, 2), round(step_width, 2)),
        steps=tuple(
            Tick(round(LEFT + step_width * (step + 0.5), 2), str(step))
            for step in range(0, step_count, every)
        ),
        offsets=tuple(
            Tick(round(floor - per_byte * size, 2), f"{size:,} B") for size in ticks(max(arena_bytes, 1), 6)
        ),
    )


def _label(name: str, width: float) -> str:
    room = int((width - 8) / CHARACTER_WIDTH)
    if len(name) <= room:
        return name
    return name[: room - 1] + "…" if room >= MIN_LABEL else ""
