"""A model of the cycles that a Cortex-M core takes, by the documented timing of its instructions.

An emulator counts instructions; a load of eight registers is one of them and takes nine cycles. This model
weighs each executed instruction by the "Cortex-M4 Technical Reference Manual" (Arm 100166), section 3.3, for
memory without wait states: it is an estimate and is called a model wherever it is shown. Loads that follow
loads or stores are pipelined and count one cycle less; a taken branch refills the pipeline in two cycles.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["REFILL", "Instruction", "block_cycles", "cycle_model", "read_disassembly"]

REFILL = 2
"""Cycles of a taken branch beside its own."""
DIVISION = 8
"""2 to 12 cycles, by the operands."""

_CORES: Mapping[str, str] = {
    "cortex-m4": "cortex-m4",
    "cortex-m7": "cortex-m4",
    "cortex-m33": "cortex-m4",
    "cortex-m55": "cortex-m4",
}

_LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*([^;@]*)")
_CONDITIONS = "eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"
_BRANCH = re.compile(rf"^(b|bl|bx|blx|cbz|cbnz|tbb|tbh)({_CONDITIONS})?(\.w|\.n)?$")


def cycle_model(core: str) -> str | None:
    """The core whose timing stands for that of `core` (a name of LLVM's); None where there is no model.

    Arm documents no timing of the M7's, M33's and M55's instructions: they get the M4's, by which a load of
    several words costs its words, and not what two instructions at once would save.
    """
    return _CORES.get(core)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the image: address, mnemonic without width, operands as objdump prints them."""

    address: int
    mnemonic: str
    operands: str

    @property
    def is_load(self) -> bool:
        return self.mnemonic.startswith(("ldr", "ldm", "pop"))

    @property
    def is_store(self) -> bool:
        return self.mnemonic.startswith(("str", "stm", "push"))

    @property
    def ends_block(self) -> bool:
        return bool(_BRANCH.match(self.mnemonic)) or (self.is_load and "pc" in self.operands.split("[")[0])

    @property
    def target(self) -> int | None:
        """Where a direct branch goes; None for other instructions."""
        match = re.match(r"(?:\w+, )?([0-9a-f]+) <", self.operands)
        return int(match[1], 16) if match and self.mnemonic.startswith(("b", "cb")) else None

    @property
    def registers(self) -> int:
        """How many registers a multiple load or store moves."""
        listed = self.operands[self.operands.index("{") + 1 : self.operands.index("}")]
        return len(listed.split(","))


def read_disassembly(text: str) -> dict[int, Instruction]:
    """Every instruction by address, of what `objdump -d --no-show-raw-insn` prints."""
    found = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and not match[2].startswith("."):
            mnemonic = match[2].removesuffix(".w").removesuffix(".n")
            found[int(match[1], 16)] = Instruction(int(match[1], 16), mnemonic, match[3])
    return found


def block_cycles(block: Iterable[Instruction]) -> int:
    """Cycles of instructions one after another, the last one's branch not taken."""
    cycles, pipelined = 0, False
    for each in block:
        name = each.mnemonic
        if name in ("ldrd", "strd"):
            cycles += 3
        elif name.startswith(("ldm", "stm", "push", "pop")):
            cycles += 1 + each.registers
        elif each.is_load:
            cycles += 1 if pipelined else 2
        elif name in ("sdiv", "udiv"):
            cycles += DIVISION
        else:
            cycles += 1
        pipelined = each.is_load or each.is_store
    return cycles
