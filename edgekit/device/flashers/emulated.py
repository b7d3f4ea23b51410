"""Emulated boards: the emulator loads the image itself when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["EmulatedFlasher"]


@dataclass(frozen=True, slots=True)
class EmulatedFlasher:
    """Nothing to run. See `Flasher`."""

    program: str | None = None
    install_hint: str = ""

    def argv(self, image: Path, probe: str | None) -> None:
        return None
