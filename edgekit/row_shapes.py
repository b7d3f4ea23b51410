"""Whether rows of data have the shape of a model's input, and what to do where they have another."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["fits", "shape_hint"]

Shape = tuple[int, ...]


def fits(row: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a row holds the bytes of an input in order: shapes that differ in dimensions of one only do."""
    return _without_ones(row) == _without_ones(shape)


def shape_hint(array: Sequence[int], shape: Sequence[int]) -> str:
    """How to mend an array (rows, …) whose rows don't fit an input of `shape`."""
    row, wanted = _without_ones(array[1:]), _without_ones(shape)
    axes, plain = tuple(range(1, len(array))), len(row) == len(array) - 1
    if plain and len(row) > 1 and (*row[-1:], *row[:-1]) == wanted:
        return f"the model takes channels first: save x.transpose{(0, *axes[-1:], *axes[:-1])}"
    if plain and len(row) > 1 and (*row[1:], *row[:1]) == wanted:
        return f"the model takes channels last: save x.transpose{(0, *axes[1:], *axes[:1])}"
    if _without_ones(array) == wanted:
        return "that is one row; the first dimension counts rows: save x[None]"
    if len(shape) > 1 and shape[0] > 1 and fits(row, shape[1:]):
        return f"the model takes {shape[0]} rows at a time; export it with a batch of 1"
    return "x is (rows, …), each row in the shape of the model's input; dimensions of one may be left out"


def _without_ones(shape: Sequence[int]) -> Shape:
    return tuple(size for size in shape if size != 1)
