"""The Linux runner around tests/device/toy_programs.c, for each machine that it can run on here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.device import toy

__all__ = ["FAULTS", "MACHINES", "NAME", "PLATFORM", "STATIC", "Machine", "build_program", "build_runner"]

PLATFORM = toy.TEMPLATES / "platform" / "linux"
AGENT = toy.TEMPLATES / "agent"
STATIC = ("-static", "-pthread")
FAULTS = "-DEDGEKIT_FAULT_INJECTION"
NAME = b"version-0000"
"""The board's name in every runner built here; a version of its own is a copy with other digits."""


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    gcc: str
    emulator: str | None  # a program of qemu-user; None where programs run as they are

    def missing(self) -> list[str]:
        tools = [self.gcc, *([self.emulator] if self.emulator else [])]
        return [tool for tool in tools if shutil.which(tool) is None]

    def command(self, program: Path) -> list[str]:
        return [*([self.emulator] if self.emulator else []), str(program)]


MACHINES = {
    "host": Machine("host", "gcc", None),
    "aarch64": Machine("aarch64", "aarch64-linux-gnu-gcc", "qemu-aarch64"),
    "armv7": Machine("armv7", "arm-linux-gnueabihf-gcc", "qemu-arm"),
}


def build_runner(machine: Machine, folder: Path, *flags: str, link: tuple[str, ...] = STATIC) -> Path:
    """With warnings as errors; `flags` may turn on the fault injection."""
    (folder / "edgekit_port.h").write_text(f'#define EDGEKIT_BOARD_NAME "{NAME.decode()}"\n')
    image = folder / "runner"
    sources = [*sorted(AGENT.glob("*.c")), *sorted(PLATFORM.glob("*.c")), toy.TESTS / "toy_programs.c"]
    compile_(machine, folder, flags, sources, link, image)
    return image


def build_program(
    machine: Machine,
    folder: Path,
    *sources: Path,
    flags: tuple[str, ...] = (),
    link: tuple[str, ...] = STATIC,
) -> Path:
    """A program of a test's own, out of some of the platform's files."""
    image = folder / sources[0].stem
    compile_(machine, folder, flags, list(sources), link, image)
    return image


def compile_(
    machine: Machine,
    folder: Path,
    flags: tuple[str, ...],
    sources: list[Path],
    link: tuple[str, ...],
    image: Path,
) -> None:
    includes = [f"-I{folder}", f"-I{AGENT}", f"-I{PLATFORM}"]
    options = [*toy.STRICT, "-O2", *flags, *includes]
    toy.run([machine.gcc, *options, *map(str, sources), *link, "-o", str(image)])
