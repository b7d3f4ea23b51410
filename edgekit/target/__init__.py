"""Boards as data: the strict schema of a target file, its rules, and where the files are found."""

from __future__ import annotations

from edgekit.target.flashing import FLASH_METHODS, FlashMethod, NoFlash, PyocdFlash
from edgekit.target.load import parse_target, read_target
from edgekit.target.ports import PORTS, CmsdkPort, Port, Stm32f4Port
from edgekit.target.rules import RULES, Rule, problems
from edgekit.target.schema import (
    Clock,
    Compile,
    Emulator,
    MachineEmulator,
    MemoryRegion,
    Target,
    Toolchain,
    Transport,
    UserEmulator,
)
from edgekit.target.search import TargetFile, list_targets, load_target, survey_targets

__all__ = [
    "FLASH_METHODS",
    "PORTS",
    "RULES",
    "Clock",
    "CmsdkPort",
    "Compile",
    "Emulator",
    "FlashMethod",
    "MachineEmulator",
    "MemoryRegion",
    "NoFlash",
    "Port",
    "PyocdFlash",
    "Rule",
    "Stm32f4Port",
    "Target",
    "TargetFile",
    "Toolchain",
    "Transport",
    "UserEmulator",
    "list_targets",
    "load_target",
    "parse_target",
    "problems",
    "read_target",
    "survey_targets",
]
