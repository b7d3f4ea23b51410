"""The memory plan: one static arena, an offset for every activation and workspace.

A storage lives from the step that writes it to the last step that reads it; workspaces live for their own
step. Two that live at the same time never overlap. Where an operator can work in place and its input dies
there, the output takes the input's place. Offsets are found greedily, in several orders, and the smallest
arena wins (the approach of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.artifacts import Allocation
from edgekit.compiler.program import Program

__all__ = ["Plan", "in_place_steps", "plan_memory"]

ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """Offsets in bytes: of each storage (by id) and of each step's temporaries (by step, in order)."""

    arena_bytes: int
    storage_offsets: dict[int, int]
    workspace_offsets: dict[tuple[int, int], int]
    allocations: tuple[Allocation, ...]


@dataclass(slots=True, eq=False)
class _Block:
    """A piece of memory and the steps during which it is taken, both inclusive."""

    name: str
    kind: str
    size: int
    first: int
    last: int
    storages: list[int]
    workspace: tuple[int, int] | None = None
    offset: int = -1

    def overlaps(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def in_place_steps(program: Program) -> frozenset[int]:
    """Steps whose output may take the storage of their first input.

    That input is read there for the last time.
    """
    last_read = _last_reads(program)
    held = {program.tensors[tensor].storage for _, tensor in (*program.inputs, *program.outputs)}
    result = set()
    for position, step in enumerate(program.steps):
        source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
        others = {program.tensors[tensor].storage for tensor in step.inputs[1:]}
        if (
            step.operator.IN_PLACE
            and source.data is None
            and source.shape == output.shape
            and source.size_bytes == output.size_bytes
            and last_read[source.storage] == position
            and source.storage not in others
            and source.storage not in held
        ):
            result.add(position)
    return frozenset(result)


def plan_memory(program: Program, temporaries: Sequence[Sequence[int]]) -> Plan:
    """Plan the arena.

    Args:
        program: what runs, in order.
        temporaries: sizes in bytes of each step's workspaces.
    """
    blocks = _blocks(program, temporaries)
    best: list[tuple[_Block, int]] | None = None
    best_size = 0
    for order in _ORDERS:
        placed = _place(sorted(blocks, key=order))
        size = max((block.offset + block.size for block in placed), default=0)
        if best is None or size < best_size:
            best, best_size = [(block, block.offset) for block in placed], size
    storage_offsets: dict[int, int] = {}
    workspace_offsets: dict[tuple[int, int], int] = {}
    allocations = []
    for block, offset in best or []:
        for storage in block.storages:
            storage_offsets[storage] = offset
        if block.workspace is not None:
            workspace_offsets[block.workspace] = offset
        allocations.append(
            Allocation(block.name, offset, block.size, block.first, block.last, block.kind)  # type: ignore[arg-type]
        )
    allocations.sort(key=lambda each: (each.first, each.offset))
    return Plan(_aligned(best_size), storage_offsets, workspace_offsets, tuple(allocations))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _last_reads(program: Program) -> dict[int, int]:
    """The last step that reads each storage; outputs of the program are read after the last step."""
    last: dict[int, int] = {}
    for position, step in enumerate(program.steps):
        for tensor in step.inputs:
            last[program.tensors[tensor].storage] = position
    for _, tensor in program.outputs:
        last[program.tensors[tensor].storage] = len(program.steps)
    return last


def _blocks(program: Program, temporaries: Sequence[Sequence[int]]) -> list[_Block]:
    last_read = _last_reads(program)
    in_place = in_place_steps(program)
    outputs = {program.tensors[tensor].storage for _, tensor in program.outputs}
    end = max(len(program.steps) - 1, 0)
    blocks: dict[int, _Block] = {}
    for spec, tensor in program.inputs:
        storage = program.tensors[tensor].storage
        last = min(last_read.get(storage, 0), end)
        blocks[storage] = _Block(spec.name, "input", program.tensors[tensor].size_bytes, 0, last, [storage])
    for position, step in enumerate(program.steps):
        output = program.tensors[step.output]
        last = min(last_read.get(output.storage, position), end)
        kind = "output" if output.storage in outputs else "activation"
        if position in in_place:
            block = blocks[program.tensors[step.inputs[0]].storage]
            block.last, block.kind = last, kind
            block.storages.append(output.storage)
        else:
            block = _Block(output.name, kind, output.size_bytes, position, last, [output.storage])
        blocks[output.storage] = block
    result = list(dict.fromkeys(blocks.values()))
    for position, sizes in enumerate(temporaries):
        for index, size in enumerate(sizes):
            name = program.tensors[program.steps[position].output].name
            result.append(_Block(name, "workspace", size, position, position, [], (position, index)))
    return result


def _place(blocks: Sequence[_Block]) -> list[_Block]:
    """Give each block, in order, the lowest aligned offset that no block of the same time uses."""
    placed: list[_Block] = []
    for block in blocks:
        offset = 0
        for other in sorted((each for each in placed if each.overlaps(block)), key=lambda each: each.offset):
            if offset + block.size <= other.offset:
                break
            offset = max(offset, _aligned(other.offset + other.size))
        block.offset = offset
        placed.append(block)
    return placed


_ORDERS: tuple[Callable[[_Block], tuple[int, ...]], ...] = (
    lambda block: (-block.size, block.first),
    lambda block: (-(block.last - block.first), -block.size),
    lambda block: (block.first, -block.size),
    lambda block: (-(block.last - block.first + 1) * block.size, block.first),
)
