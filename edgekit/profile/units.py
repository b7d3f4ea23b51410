"""The agent's ticks in the unit that a target's measurements have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.target import MachineEmulator, Target, UserEmulator

__all__ = ["TickUnit", "tick_unit"]


@dataclass(frozen=True, slots=True)
class TickUnit:
    """`amount = ticks · per_tick`, in `unit`. `trusted` says that the clock shows the real speed of the
    target.
    """

    unit: Literal["instructions", "cycles", "us"]
    per_tick: float
    trusted: bool

    def amount(self, ticks: int) -> float:
        """Instructions are whole: a tick of an emulated clock is less or more than one, never a part of
        it.
        """
        exact = ticks * self.per_tick
        return float(round(exact)) if self.unit == "instructions" else exact


def tick_unit(target: Target) -> TickUnit:
    """How a target's ticks are counted.

    An emulator that gives each instruction 2^shift ns of virtual time (QEMU's `-icount shift=`) makes a tick
    of a clock of `hz` worth (10⁹ / hz) / 2^shift instructions: 0.625 for 25 MHz and shift 6. A counter of
    core cycles, or of instructions, is taken as it stands; any other clock gives microseconds.
    """
    unit = target.unit
    if isinstance(target.emulator, UserEmulator):
        return TickUnit(unit, 1.0, target.clock.trusted)  # QEMU's plugin: a tick an instruction
    if isinstance(target.emulator, MachineEmulator):
        return TickUnit(unit, (1e9 / target.clock.hz) / 2**target.emulator.icount_shift, target.clock.trusted)
    if unit == "us":
        return TickUnit(unit, 1e6 / target.clock.hz, target.clock.trusted)
    return TickUnit(unit, 1.0, target.clock.trusted)
