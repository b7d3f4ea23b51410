"""pyOCD: Arm boards with a CMSIS-DAP, ST-LINK or J-Link probe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PyocdFlasher"]


@dataclass(frozen=True, slots=True)
class PyocdFlasher:
    """`target` is pyOCD's name of the chip. See `Flasher`."""

    target: str
    program: str = "pyocd"

    @property
    def install_hint(self) -> str:
        return f"python -m pip install pyocd && pyocd pack install {self.target}"

    def argv(self, image: Path, probe: str | None) -> tuple[str, ...]:
        which = ("--probe", probe) if probe is not None else ()
        return (self.program, "flash", "--target", self.target, *which, str(image))
