"""Where each storage lies: a search for the lowest arena.

What may lie where is given by pairs: open intervals that the distance between two offsets must not be in.
Storages are placed one after the other, each as low as those before it allow, so that the order decides.
Several orders by size and time come first (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural
Net Inference", 2020); then what stands highest is moved to the front, again and again; then, for few
storages, a branch and bound over the orders in which offsets rise. Each stage ends where the lower bound is
met. All is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from edgekit.compiler.memory.lifetimes import Storage

__all__ = ["ALIGNMENT", "Placement", "aligned", "place"]

ALIGNMENT = 16
"""Bytes that every storage starts at a multiple of."""

IMPROVEMENTS = 300
IMPROVEMENT_STEPS = 600_000
"""Orders that are tried from each of the first ones, and how many intervals they may look at in all: where
everything lives at the same time, orders take long and make little difference.
"""

SEARCHED_STORAGES = 40
SEARCH_STEPS = 20_000
"""Branch and bound: up to how many storages, and how many placements of one it may try."""

Intervals = Sequence[tuple[int, int]]
Forbidden = Mapping[tuple[int, int], Intervals]
"""By (i, j): open intervals that offset j − offset i must not be in; both (i, j) and (j, i) are there."""


@dataclass(frozen=True, slots=True)
class Placement:
    """An offset in bytes for each storage, in their order, and the end of the highest."""

    offsets: tuple[int, ...]
    size: int


def aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(storages: Sequence[Storage], forbidden: Forbidden, lower_bound: int) -> Placement:
    """Offsets that keep clear of all forbidden distances; the arena is as low as was found."""
    near = _neighbours(len(storages), forbidden)
    best = Placement((), 0)
    for number, key in enumerate(_ORDERS):
        order = sorted(range(len(storages)), key=lambda index: (key(storages[index]), index))
        found = _improved(storages, near, order, lower_bound)
        if number == 0 or found.size < best.size:
            best = found
        if best.size <= lower_bound:
            return best
    if len(storages) <= SEARCHED_STORAGES:
        best = _Search(storages, near, best, lower_bound).run()
    return best


def _neighbours(count: int, forbidden: Forbidden) -> list[list[tuple[int, Intervals]]]:
    near: list[list[tuple[int, Intervals]]] = [[] for _ in range(count)]
    for (one, other), intervals in forbidden.items():
        near[other].append((one, intervals))
    return near


def _lowest(near: Sequence[tuple[int, Intervals]], offsets: Mapping[int, int], floor: int = 0) -> int:
    """The lowest aligned offset from `floor` on that no placed neighbour forbids."""
    blocked = sorted(
        (offsets[one] + low, offsets[one] + high)
        for one, intervals in near
        if one in offsets
        for low, high in intervals
    )
    offset = floor
    for low, high in blocked:
        if low < offset < high:
            offset = aligned(high)
    return offset


def _placed(
    storages: Sequence[Storage], near: Sequence[Sequence[tuple[int, Intervals]]], order: Sequence[int]
) -> Placement:
    offsets: dict[int, int] = {}
    for index in order:
        offsets[index] = _lowest(near[index], offsets)
    size = max((offsets[index] + storages[index].size for index in order), default=0)
    return Placement(tuple(offsets[index] for index in range(len(storages))), size)


def _improved(
    storages: Sequence[Storage],
    near: Sequence[Sequence[tuple[int, Intervals]]],
    order: Sequence[int],
    lower_bound: int,
) -> Placement:
    """The best of the orders that follow from `order` by moving what stands highest to the front.

    Where that leads back to an order that was tried, one storage of the best order is moved at random.
    """
    choice = Random(0)
    intervals = sum(len(each) for neighbours in near for _, each in neighbours)
    order = best_order = list(order)
    current = best = _placed(storages, near, order)
    seen = {tuple(order)}
    for _ in range(min(IMPROVEMENTS, IMPROVEMENT_STEPS // max(1, intervals))):
        if best.size <= lower_bound:
            break
        top = next(index for index in order if current.offsets[index] + storages[index].size == current.size)
        order = [top, *(index for index in order if index != top)]
        if tuple(order) in seen:
            order = list(best_order)
            moved = order.pop(choice.randrange(len(order)))
            order.insert(choice.randrange(len(order) + 1), moved)
        seen.add(tuple(order))
        current = _placed(storages, near, order)
        if current.size < best.size:
            best, best_order = current, order
    return best


class _Search:
    """Branch and bound: storages in order of rising offsets, each as low as those below it allow."""

    def __init__(
        self,
        storages: Sequence[Storage],
        near: Sequence[Sequence[tuple[int, Intervals]]],
        best: Placement,
        lower_bound: int,
    ) -> None:
        self.storages, self.near = storages, near
        self.best, self.lower_bound = best, lower_bound
        self.left = SEARCH_STEPS
        self.offsets: dict[int, int] = {}

    def run(self) -> Placement:
        self._extend(0, 0)
        return self.best

    def _extend(self, floor: int, size: int) -> None:
        if len(self.offsets) == len(self.storages):
            self.best = Placement(tuple(self.offsets[index] for index in range(len(self.storages))), size)
            return
        candidates = []
        for index, storage in enumerate(self.storages):
            if index in self.offsets:
                continue
            self.left -= 1
            offset = _lowest(self.near[index], self.offsets, floor)
            if offset + storage.size >= self.best.size:
                return  # it can only end higher once more is placed
            candidates.append((offset, -storage.size, index))
        for offset, _, index in sorted(candidates):
            if self.left <= 0 or self.best.size <= self.lower_bound:
                return
            self.offsets[index] = offset
            end = max(size, offset + self.storages[index].size)
            if end < self.best.size:
                self._extend(offset, end)
            del self.offsets[index]


def _first(storage: Storage) -> int:
    return min(part.first for part in storage.parts)


def _last(storage: Storage) -> int:
    return max(part.last for part in storage.parts)


_ORDERS: tuple[Callable[[Storage], tuple[int, ...]], ...] = (
    lambda storage: (-storage.size, _first(storage)),
    # What comes later lies lower: an output that moves down over its input finds room there.
    lambda storage: (-_first(storage), -storage.size),
    lambda storage: (-_last(storage), -storage.size),
    lambda storage: (_first(storage), -storage.size),
    lambda storage: (-(_last(storage) - _first(storage)), -storage.size),
    lambda storage: (-(_last(storage) - _first(storage) + 1) * storage.size, _first(storage)),
)
