"""Geometry of 3x3 depthwise convolutions whose planes are small enough to be held whole.

Input rows are taken apart into vertical pairs, as in `planes`, but less their zero point: padding then adds
nothing, and what a window has outside the input is left out, column by column and row by row. A pair of which
only one row is inside is only read through the half that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from edgekit.compiler.schedules.armv7em.instructions import Half

__all__ = ["PairTerm", "RowGroup", "SmallPlane", "column_blocks"]

ACCUMULATORS = 4

WeightWord = Literal["P", "Q"]
"""Of a window's column: P = (w0, w1), Q = (w1, w2)."""

_WORD_OF_ROW: dict[int, tuple[WeightWord, Half]] = {0: ("P", "b"), 1: ("P", "t"), 2: ("Q", "t")}


@dataclass(frozen=True, slots=True)
class PairTerm:
    """What a pair adds to an output row: `smlad` with a word of weights, or halves of both."""

    word: WeightWord
    halves: tuple[Half, Half] | None = None
    """Of the pair and of the word; None for both halves of each."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Output rows that need the same pairs.

    `terms` has, for each output row, what each of the pairs from `pair` on adds to it.
    """

    row: int
    pair: int
    terms: tuple[tuple[PairTerm, ...], ...]

    @property
    def rows(self) -> int:
        return len(self.terms)

    @property
    def pairs(self) -> int:
        return len(self.terms[0])


@dataclass(frozen=True, slots=True)
class SmallPlane:
    """An input (height, width) of which four channels at a time are planes [channel][pair][column], words."""

    height: int
    width: int
    channels: int
    """Of the tensors, that is bytes from pixel to pixel of the input."""
    rows: int
    columns: int
    """Of the output."""
    stride: int
    top: int
    left: int
    output_pitch: int
    """Bytes from pixel to pixel of the output."""

    @property
    def first_row(self) -> int:
        """The upper row of the first pair, 0 or −1: whichever needs fewer multiplications."""
        return min((0, -1), key=lambda first: (self._work(first), -first))

    @property
    def pairs(self) -> int:
        return (self.height - self.first_row + 1) // 2

    @property
    def plane_bytes(self) -> int:
        return 4 * self.width * self.pairs

    def inside(self, column: int, kernel_column: int) -> int | None:
        """The input column that an output column meets at a kernel column; None outside."""
        at = column * self.stride - self.left + kernel_column
        return at if 0 <= at < self.width else None

    def groups(self) -> tuple[RowGroup, ...]:
        """All output rows: up to two of the same pairs together."""
        first = self.first_row
        rows = [self._terms(row, first) for row in range(self.rows)]
        groups = []
        for _, same in groupby(range(self.rows), key=lambda row: tuple(rows[row])):
            each = list(same)
            for start in range(0, len(each), 2):
                together = each[start : start + 2]
                terms = tuple(tuple(rows[row].values()) for row in together)
                groups.append(RowGroup(together[0], min(rows[together[0]]), terms))
        return tuple(groups)

    @property
    def is_covered(self) -> bool:
        """Whether every window meets the input."""
        return all(self._terms(row, 0) for row in range(self.rows)) and all(
            any(self.inside(column, kernel) is not None for kernel in range(3))
            for column in range(self.columns)
        )

    def _work(self, first: int) -> int:
        return sum(len(self._terms(row, first)) for row in range(self.rows))

    def _terms(self, row: int, first: int) -> dict[int, PairTerm]:
        """By pair, where pairs begin at input row `first`."""
        inside: dict[int, list[tuple[int, Half]]] = {}
        for kernel_row in range(3):
            at = row * self.stride - self.top + kernel_row
            if 0 <= at < self.height:
                pair, lower = divmod(at - first, 2)
                inside.setdefault(pair, []).append((kernel_row, "t" if lower else "b"))
        terms = {}
        for pair, taps in inside.items():
            (kernel_row, half), *second = taps
            if second:
                terms[pair] = PairTerm("P" if kernel_row == 0 else "Q")
            else:
                word, weight_half = _WORD_OF_ROW[kernel_row]
                terms[pair] = PairTerm(word, (half, weight_half))
        return terms


def column_blocks(columns: int, rows: int) -> tuple[tuple[int, int], ...]:
    """(first, size) of blocks of output columns of nearly equal size that accumulators suffice for."""
    limit = ACCUMULATORS // rows
    count = -(-columns // limit)
    sizes = [columns // count + (index < columns % count) for index in range(count)]
    return tuple((sum(sizes[:index]), size) for index, size in enumerate(sizes))
