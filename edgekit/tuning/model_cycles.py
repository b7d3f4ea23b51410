"""What the core's documented timing makes of the instructions that each operator executes on an emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgekit.artifacts import CompiledModel, Image
from edgekit.errors import DeviceError, MissingToolError
from edgekit.profile.cycles import REFILL, Instruction, block_cycles, cycle_model, read_disassembly
from edgekit.target import MachineEmulator, Target

__all__ = ["AROUND", "TOLERANCE", "modelled_core", "operator_cycles"]

TOLERANCE: Final = 0.02
AROUND: Final = 100
"""Instructions of the agent around an operator's own."""

_CLOCK: Final = "edgekit_port_ticks"
_OBJDUMP_S: Final = 120.0


def modelled_core(target: Target) -> str | None:
    """The core by whose timing an emulated target's instructions are weighed; None for other targets."""
    return cycle_model(target.compile.mcpu or "") if isinstance(target.emulator, MachineEmulator) else None


def operator_cycles(
    compiled: CompiledModel, image: Image, target: Target, instructions: Sequence[float]
) -> tuple[int, ...]:
    """Cycles of each operator of an image, by the model.

    Args:
        instructions: that the emulator's clock counted of each operator; the blocks must have as many.

    Raises:
        DeviceError: the emulator can't tell what it executes, or two operators are one function.
        MissingToolError: a program for it is not installed.
    """
    from edgekit.device.block_counts import count_blocks
    from edgekit.device.emulator import EmulatorSettings
    from edgekit.firmware.elf import parse_elf

    emulator = target.emulator
    assert isinstance(emulator, MachineEmulator)
    elf = parse_elf(image.path.read_bytes(), image.path.name)
    # Bit 0 of a function's address says that it is Thumb code.
    addresses = {symbol.name: symbol.value & ~1 for symbol in elf.symbols if symbol.defined}
    names = [f"operator_{operator.id}" for operator in compiled.operators]
    missing = [name for name in (*names, _CLOCK) if name not in addresses]
    if missing or len({addresses[name] for name in names}) != len(names):
        raise DeviceError("the image has no function of its own for every operator")
    counted = count_blocks(
        EmulatorSettings(emulator.machine, emulator.icount_shift),
        image.path,
        [addresses[name] for name in names],
        addresses[_CLOCK],
        [bytes(spec.size_bytes) for spec in compiled.inputs],
    )
    code = _disassemble(image.path, target)
    order = sorted(code)
    place = {address: index for index, address in enumerate(order)}
    cycles = []
    for blocks, expected in zip(counted, instructions, strict=True):
        executed = sum(block.times * block.instructions for block in blocks)
        if abs(executed - expected) > TOLERANCE * expected + AROUND:
            raise DeviceError(f"{executed} instructions in blocks, where the clock counts {expected:.0f}")
        total = 0
        for block in blocks:
            if block.start not in place:
                raise DeviceError(f"an operator executes what is no code of the image ({block.start:#x})")
            first = place[block.start]
            body = _instructions(code, order[first : first + block.instructions])
            total += block.times * block_cycles(body) + block.left * REFILL
        cycles.append(total)
    return tuple(cycles)


def _instructions(code: Mapping[int, Instruction], addresses: Sequence[int]) -> list[Instruction]:
    return [code[address] for address in addresses]


def _disassemble(image: Path, target: Target) -> dict[int, Instruction]:
    program = f"{target.toolchain.prefix}objdump"
    try:
        done = subprocess.run(
            [program, "-d", "--no-show-raw-insn", str(image)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_OBJDUMP_S,
            check=False,
        )
    except FileNotFoundError:
        raise MissingToolError(f"{program} is not installed") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{program} did not end in {_OBJDUMP_S:.0f} s") from None
    if done.returncode != 0:
        raise DeviceError(f"{program} can't read the image")
    return read_disassembly(done.stdout)
