"""What an image takes of its board, read back from the ELF."""

from __future__ import annotations

from edgekit.artifacts import MemoryUse
from edgekit.firmware.elf import Elf, SectionFlag
from edgekit.target import MemoryRegion, Target

__all__ = ["memory_use", "region_limit", "region_use"]

_FLASH = ("text", "weights")
_RAM = ("arena", "stack", "data")


def memory_use(elf: Elf, target: Target, *, arena_bytes: int, weights_bytes: int) -> MemoryUse:
    """Sizes of a linked image in bytes.

    Flash is everything stored: code, read-only data, weights and the initial values of `.data`. RAM is
    everything writable: `.data`, `.bss`, arena and stack. GNU size calls these text + data and data + bss.

    Args:
        arena_bytes: Size of `.bss.edgekit_arena` in the driver's object. A board's script keeps the arena in
            a section of its own, whose size is taken instead; on Linux it is part of `.bss`.
        weights_bytes: The same for `.rodata.edgekit_weights`.
    """
    allocated = [section for section in elf.sections if section.has(SectionFlag.ALLOC)]
    arena, weights = elf.section(".arena"), elf.section(".weights")
    stack = elf.section(".stack")
    return MemoryUse(
        flash_bytes=sum(section.size_bytes for section in allocated if section.stored),
        ram_bytes=sum(section.size_bytes for section in allocated if section.has(SectionFlag.WRITE)),
        arena_bytes=arena.size_bytes if arena is not None else arena_bytes,
        weights_bytes=weights.size_bytes if weights is not None else weights_bytes,
        stack_bytes=stack.size_bytes if stack is not None else 0,
        flash_limit=region_limit(target, _FLASH),
        ram_limit=region_limit(target, _RAM),
    )


def region_limit(target: Target, contents: tuple[str, ...]) -> int | None:
    """Bytes of all regions that hold one of `contents`; None on a platform without regions."""
    regions = [region for region in target.memory if set(region.holds) & set(contents)]
    return sum(region.size_bytes for region in regions) if regions else None


def region_use(elf: Elf, region: MemoryRegion) -> int:
    """Bytes of `region` up to the end of the last thing that is stored there or is there at run time."""
    end = region.start
    for section in elf.sections:
        if not section.has(SectionFlag.ALLOC) or not section.size_bytes:
            continue
        starts = {section.address, section.load_address} if section.stored else {section.address}
        for start in starts:
            if region.start <= start < region.end:
                end = max(end, start + section.size_bytes)
    return end - region.start
