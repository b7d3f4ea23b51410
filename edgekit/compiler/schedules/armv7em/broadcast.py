"""Two tensors of different shapes as runs of bytes: in a run both go on, or the second stands still."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from edgekit.compiler.program import Tensor
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["Runs", "runs_of"]

SHORTEST_RUN = 8
"""Calling a routine for fewer bytes costs more than the loop of the portable schedule."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Output bytes in order: loops around runs of `length`.

    `order` has the number of the operand that always goes on in a run, then the other's.
    """

    order: tuple[int, int]
    loops: tuple[tuple[int, int, int], ...]
    """Turns, and by how many bytes both operands move in a turn, in `order`."""
    length: int
    is_scalar: bool
    """Whether the second operand is one byte in each run."""
    in_place: tuple[bool, bool]
    """Which operand, by its number, is as large as the output."""

    @contextmanager
    def each(self, frame: Frame, pointers: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
        """The loops; pointers to the run of either operand, in `order`, and of the output."""
        first, second = (pointers[number] for number in self.order)
        output = frame.output
        with ExitStack() as stack:
            size = self.length * math.prod(turns for turns, _, _ in self.loops)
            for turns, moved_first, moved_second in self.loops:
                size //= turns
                index = stack.enter_context(repeat(turns))
                first = offset(first, index * moved_first)
                second = offset(second, index * moved_second) if moved_second else second
                output = offset(output, index * size)
            yield first, second, output

    def overlaps(self, allowed: Sequence[int] = (0, 1)) -> tuple[Overlap, ...]:
        """Where a routine reads each element of the operands `allowed` before it writes it."""
        return tuple(Overlap(number, 0) for number in allowed if self.in_place[number])


def runs_of(inputs: Sequence[Tensor], output: Tensor) -> Runs | None:
    """Runs of two operands of equal rank, broadcast as numpy does; None where they are too short."""
    shapes = [tensor.shape for tensor in inputs]
    axes = [
        (size, first == size, second == size)
        for size, first, second in zip(output.shape, *shapes, strict=True)
        if size > 1
    ]
    groups: list[tuple[int, bool, bool]] = []  # Neighbours of one kind are one axis.
    for size, first, second in axes:
        if groups and groups[-1][1:] == (first, second):
            groups[-1] = (groups[-1][0] * size, first, second)
        else:
            groups.append((size, first, second))
    length, first_goes, second_goes = groups.pop() if groups else (1, True, True)
    if length < SHORTEST_RUN and groups:
        return None
    order = (0, 1) if first_goes else (1, 0)
    steps = [length if first_goes else 1, length if second_goes else 1]
    loops: list[tuple[int, int, int]] = []
    for size, *goes in reversed(groups):
        moved = [step if go else 0 for step, go in zip(steps, goes, strict=True)]
        loops.insert(0, (size, moved[order[0]], moved[order[1]]))
        steps = [step * size if go else step for step, go in zip(steps, goes, strict=True)]
    in_place = (shapes[0] == output.shape, shapes[1] == output.shape)
    return Runs(order, tuple(loops), length, not (first_goes and second_goes), in_place)
