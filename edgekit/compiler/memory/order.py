"""The order of the operators that needs the least memory at once.

Which order that is depends on the program alone (sizes of activations and how outputs may lie over inputs;
no workspaces, which differ from target to target), so that every target runs the operators in the same
order. The search goes through the sets of steps that can have run, the least peak first, and is exact where
these sets are few: on a chain there is one for each step, on a graph of many parallel branches more than can
be looked at. Then a beam of the best sets of each size is followed instead.

Method: the minimax path over down-sets, as in Ahn et al., "Ordering Chaos: Memory-Aware Scheduling of
Irregularly Wired Neural Networks for Edge Devices" (MLSys 2020).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.compiler.memory.footprint import shared_bytes
from edgekit.compiler.memory.lifetimes import Part, storages_of
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["order_steps"]

EXACT_SETS = 20_000
"""Sets of steps that the exact search may look at."""
EXACT_STEPS = 200_000
"""Steps that it may try after them: of many branches next to each other it would not come to an end."""
BEAM_WIDTH = 50


@dataclass(frozen=True, slots=True)
class _Node:
    """A step. Sets of steps are ints, bit i for step i, and one more bit for the caller, who reads last."""

    needs: int
    """The steps that must have run."""
    output: int
    """Bytes that it alone writes."""
    kept: int
    """Those of them that anybody reads."""
    joint: tuple[tuple[int, int], ...]
    """Size in bytes, and the steps that write there, of what is taken by the first of several to write."""
    frees: tuple[tuple[int, int], ...]
    """Size in bytes, and the steps that read it, of each piece of memory that it reads."""
    shares: tuple[tuple[int, int], ...]
    """Bytes that the output may share with an input once the steps given have all run."""


def order_steps(program: Program, overlaps: Sequence[Sequence[Overlap]]) -> Program:
    """The program with its steps in the order of the lowest peak; as it is where none is lower."""
    graph = _Graph(program, overlaps)
    order = graph.search()
    if order is None:
        return program
    return replace(program, steps=tuple(program.steps[position] for position in order))


class _Graph:
    """Peaks of orders."""

    def __init__(self, program: Program, overlaps: Sequence[Sequence[Overlap]]) -> None:
        self.count = len(program.steps)
        self.start = 0
        pieces: dict[int, list[tuple[Part, int]]] = {}
        readers: dict[tuple[int, int], int] = {}
        joint = {tensor.storage for tensor in program.tensors if tensor.runs is not None}
        for storage in storages_of(program, [()] * self.count):
            assert isinstance(storage.key, int)
            if storage.key in joint:
                first = storage.parts[0]
                writers = _writers(program, storage.key)
                self.start += 0 if writers else storage.size
                pieces[storage.key] = [(replace(first, start=0, size=storage.size), writers)]
                continue
            for part in storage.parts:
                writer = _writer(program, storage.key, part)
                self.start += part.size if writer is None else 0
                pieces.setdefault(storage.key, []).append((part, 0 if writer is None else 1 << writer))
        for position, step in enumerate((*program.steps, None)):
            tensors = step.inputs if step is not None else [tensor for _, tensor in program.outputs]
            for tensor in (program.tensors[index] for index in tensors):
                for part, _ in _pieces_of(tensor, pieces):
                    key = (tensor.storage, part.start)
                    readers[key] = readers.get(key, 0) | 1 << position
        self.nodes = tuple(
            _node(program, step, overlaps[position], pieces, readers, joint)
            for position, step in enumerate(program.steps)
        )

    def run(self, done: int, live: int, position: int) -> tuple[int, int]:
        """Bytes at once while a step runs, and bytes that live after it."""
        node = self.nodes[position]
        after = done | 1 << position
        freed = sum(size for size, readers in node.frees if readers & ~after == 0)
        shared = sum(most for most, readers in node.shares if readers & ~after == 0)
        if node.joint:
            live += sum(size for size, writers in node.joint if not writers & done)
        return live + node.output - min(node.output, shared), live + node.kept - freed

    def ready(self, done: int) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if not done >> i & 1 and node.needs & ~done == 0]

    def search(self) -> tuple[int, ...] | None:
        """A better order than the given one, if there is one and it is found."""
        peak, done, live, least = self.start, 0, self.start, 0
        for position in range(self.count):
            during, live = self.run(done, live, position)
            done |= 1 << position
            peak = max(peak, during)
            node = self.nodes[position]
            shared = min(node.output, sum(most for most, _ in node.shares))
            taken = sum(size for size, _ in {*node.frees, *node.joint})
            least = max(least, taken + node.output - shared)
        if peak <= max(least, self.start):
            return None
        found = self._exact(peak)
        return self._beam(peak) if found is None else found or None

    def _exact(self, limit: int) -> tuple[int, ...] | None:
        """Down-sets in the order of their peaks; the first that is complete is the best.

        Empty where no order stays below `limit`, None where there are too many sets.
        """
        whole = (1 << self.count) - 1
        heap: list[tuple[int, int, int, tuple[int, ...]]] = [(self.start, 0, self.start, ())]
        looked_at: set[int] = set()
        tried = 0
        while heap and len(looked_at) < EXACT_SETS and tried < EXACT_STEPS:
            peak, done, live, order = heapq.heappop(heap)
            if done in looked_at:
                continue
            looked_at.add(done)
            if done == whole:
                return order
            for position in self.ready(done):
                tried += 1
                during, after = self.run(done, live, position)
                grown = done | 1 << position
                if max(peak, during) < limit and grown not in looked_at:
                    heapq.heappush(heap, (max(peak, during), grown, after, (*order, position)))
        return None if heap else ()

    def _beam(self, limit: int) -> tuple[int, ...] | None:
        """The best sets of each size, and only those."""
        beam: list[tuple[int, int, int, tuple[int, ...]]] = [(self.start, self.start, 0, ())]
        for _ in range(self.count):
            grown: dict[int, tuple[int, int, int, tuple[int, ...]]] = {}
            for peak, live, done, order in beam:
                for position in self.ready(done):
                    during, after = self.run(done, live, position)
                    state = (max(peak, during), after, done | 1 << position, (*order, position))
                    if state[0] < limit and (state[2] not in grown or state < grown[state[2]]):
                        grown[state[2]] = state
            beam = sorted(grown.values())[:BEAM_WIDTH]
        return beam[0][3] if beam else None


def _writer(program: Program, storage: int, part: Part) -> int | None:
    """The step that writes a piece; None for an input of the program."""
    for position, step in enumerate(program.steps):
        output = program.tensors[step.output]
        if output.storage == storage and _within(part, output):
            return position
    return None


def _writers(program: Program, storage: int) -> int:
    """All steps that write into a storage."""
    return sum(
        1 << position
        for position, step in enumerate(program.steps)
        if program.tensors[step.output].storage == storage
    )


def _needed(program: Program, tensor: Tensor) -> int:
    """The steps that write what a tensor has, in a storage where tensors lie between each other."""
    needed = 0
    for position, step in enumerate(program.steps):
        output = program.tensors[step.output]
        if output.storage == tensor.storage and tensor.meets(output):
            needed |= 1 << position
    return needed


def _within(part: Part, tensor: Tensor) -> bool:
    return tensor.offset <= part.start and part.end <= tensor.offset + tensor.size_bytes


def _pieces_of(tensor: Tensor, pieces: Mapping[int, Sequence[tuple[Part, int]]]) -> list[tuple[Part, int]]:
    if tensor.data is not None:
        return []
    start, end = tensor.offset, tensor.offset + tensor.span_bytes
    return [
        (part, writers) for part, writers in pieces[tensor.storage] if part.start < end and start < part.end
    ]


def _node(
    program: Program,
    step: Step,
    overlaps: Sequence[Overlap],
    pieces: Mapping[int, Sequence[tuple[Part, int]]],
    readers: Mapping[tuple[int, int], int],
    joint: Collection[int],
) -> _Node:
    output = program.tensors[step.output]
    needs = 0
    frees: dict[tuple[int, int], tuple[int, int]] = {}
    for tensor in (program.tensors[index] for index in step.inputs):
        for part, writers in _pieces_of(tensor, pieces):
            between = tensor.storage in joint
            needs |= _needed(program, tensor) if between else writers
            last = readers[tensor.storage, part.start] | (writers if between else 0)
            frees[tensor.storage, part.start] = (part.size, last)
    shares: dict[int, tuple[int, int]] = {}
    for overlap in overlaps:
        tensor = program.tensors[step.inputs[overlap.operand]]
        if tensor.data is None:
            all_readers = 0
            for part, _ in _pieces_of(tensor, pieces):
                all_readers |= readers[tensor.storage, part.start]
            most = shared_bytes(tensor.size_bytes, output.size_bytes, overlap.distance)
            shares[tensor.storage] = (most, all_readers)
    if output.storage in joint:
        ((whole, writers),) = pieces[output.storage]
        fresh = ((whole.size, writers),)
        return _Node(needs, 0, 0, fresh, tuple(frees.values()), tuple(shares.values()))
    kept = sum(part.size for part, _ in _pieces_of(output, pieces) if (output.storage, part.start) in readers)
    return _Node(needs, output.size_bytes, kept, (), tuple(frees.values()), tuple(shares.values()))
