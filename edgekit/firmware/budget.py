"""Does the image fit the board: asked of the ELF after linking, and of the linker where it gave up."""

from __future__ import annotations

import re
from typing import Final

from edgekit.arena import arena_line
from edgekit.artifacts import CompiledModel
from edgekit.errors import DoesNotFitError
from edgekit.firmware.elf import Elf
from edgekit.firmware.linker import REGION_PREFIX
from edgekit.firmware.sizes import region_use
from edgekit.target import MemoryRegion, Target
from edgekit.text import printable

__all__ = ["check_budget", "check_linker_overflow"]

_SHOWN: Final = 5
_OVERFLOW: Final = re.compile(
    rf"region [`']{REGION_PREFIX}([a-z0-9_]+)' overflowed by ([0-9]{{1,19}}) bytes?"
)


def check_budget(elf: Elf, target: Target, compiled: CompiledModel) -> None:
    """Every memory region of the target has room for what the image puts there.

    Raises:
        DoesNotFitError: one has not; says what is needed, what there is, and what takes the most.
    """
    needed = {region.name: region_use(elf, region) for region in target.memory}
    _refuse(
        {name: size for name, size in needed.items() if size > _region(target, name).size_bytes},
        target,
        compiled,
    )


def check_linker_overflow(stderr: str, target: Target, compiled: CompiledModel) -> None:
    """The same error out of the linker's own words, when it could not place everything.

    Raises:
        DoesNotFitError: the linker said that a region overflowed.
    """
    names = {region.name for region in target.memory}
    needed = {
        name: _region(target, name).size_bytes + int(excess)
        for name, excess in _OVERFLOW.findall(stderr)
        if name in names
    }
    _refuse(needed, target, compiled)


def _region(target: Target, name: str) -> MemoryRegion:
    return next(region for region in target.memory if region.name == name)


def _refuse(needed: dict[str, int], target: Target, compiled: CompiledModel) -> None:
    if not needed:
        return
    lines = [
        f"{printable(compiled.name, 60)} does not fit {target.name}: {name} needs {size} bytes and has "
        f"{_region(target, name).size_bytes} ({size - _region(target, name).size_bytes} too few)"
        for name, size in sorted(needed.items())
    ]
    held = {content for name in needed for content in _region(target, name).holds}
    hints = []
    if held & {"arena", "stack", "data"}:
        lines.append(f"in RAM: arena {compiled.arena_bytes}, stack {target.stack_bytes}, the agent's data")
    if "arena" in held and compiled.allocations:
        steps = [(operator.op, operator.name) for operator in compiled.operators]
        lines.append(arena_line(compiled.allocations, steps, compiled.arena_bytes))
        hints.append("--prefer ram takes kernels with less workspace")
    operators = sorted(compiled.operators, key=lambda item: (-item.weights_bytes, item.id))[:_SHOWN]
    heavy = [item for item in operators if item.weights_bytes]
    if "weights" in held and heavy:
        shown = ", ".join(f"{item.op} {printable(item.name, 40)} ({item.weights_bytes})" for item in heavy)
        lines.append(f"weights of {compiled.weights_bytes} bytes; largest operators: {shown}")
    if "text" in held:
        hints.append("--prefer size takes less code")
    raise DoesNotFitError(
        "\n".join(lines),
        hint="; ".join([*hints, "else make the model smaller, or choose a board with more memory"]),
        excess_bytes=sum(size - _region(target, name).size_bytes for name, size in needed.items()),
    )
