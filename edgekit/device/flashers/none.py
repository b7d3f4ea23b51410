"""Boards that are flashed by hand, or that run the image already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["NoFlasher"]


@dataclass(frozen=True, slots=True)
class NoFlasher:
    """Nothing to run. See `Flasher`."""

    program: str | None = None
    install_hint: str = ""

    def argv(self, image: Path, probe: str | None) -> None:
        return None
