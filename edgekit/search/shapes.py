"""How the operators of a pruned network follow from the channels that its groups keep.

A network's steps stay the same when it is pruned; only their channel counts change, and each count is a whole
linear function of the groups' counts: one group's own, a sum over a concatenation, a multiple behind a
flatten, or fixed. The functions are learned from a few networks that were really pruned and lowered, and
checked against all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Design", "NetworkShapes", "OperatorKey"]


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """An operator as far as its cost goes: its kind with all its geometry, and its channels apart."""

    kind: str
    """Operator, window, spatial shape, types: everything but the channels, as one text."""
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Design:
    """One network that was lowered: its groups' channels, and its operators in order."""

    channels: Mapping[str, int]
    operators: tuple[OperatorKey, ...]


class NetworkShapes:
    """The operators of any pruned network, from its groups' channels."""

    def __init__(self, groups: Sequence[str], designs: Sequence[Design]) -> None:
        """Learn from designs; the first one decides the kinds of the operators.

        Raises:
            ValueError: the designs' operators differ in more than channels, or the counts are no linear
                functions of the groups'.
        """
        if len({tuple(key.kind for key in design.operators) for design in designs}) != 1:
            raise ValueError("pruning changed the network's operators")
        self._groups = tuple(groups)
        self._kinds = tuple(key.kind for key in designs[0].operators)
        self._axes = tuple(len(key.channels) for key in designs[0].operators)
        inputs = np.array(
            [[*(design.channels[name] for name in groups), 1] for design in designs], np.float64
        )
        counts = np.array([_flat(design.operators) for design in designs], np.float64)
        solution = np.linalg.lstsq(inputs, counts, rcond=None)[0]
        self._weights: npt.NDArray[np.float64] = np.round(solution * 64) / 64
        wrong = np.abs(inputs @ self._weights - counts).max(initial=0.0)
        if wrong > 0.01:
            raise ValueError(f"a channel count is no linear function of the groups' (off by {wrong:g})")

    def operators(self, channels: Mapping[str, int]) -> tuple[OperatorKey, ...]:
        """The operators of the network whose groups keep these channels."""
        row = np.array([*(channels[name] for name in self._groups), 1], np.float64)
        counts = iter(np.round(row @ self._weights).astype(int).tolist())
        return tuple(
            OperatorKey(kind, tuple(next(counts) for _ in range(axes)))
            for kind, axes in zip(self._kinds, self._axes, strict=True)
        )


def _flat(operators: Sequence[OperatorKey]) -> list[int]:
    return [count for key in operators for count in key.channels]
