"""What a flasher is, and how one is run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

from edgekit.errors import DeviceError, MissingToolError, VerificationError
from edgekit.text import printable

__all__ = ["Flasher", "find_program", "run_flasher"]

_TIMEOUT_S: Final = 180.0
_OUTPUT_SHOWN: Final = 4000


class Flasher(Protocol):
    """Data about one flash tool; nothing here runs anything."""

    @property
    def program(self) -> str | None:
        """The program that must be installed; None where none is needed."""
        ...

    @property
    def install_hint(self) -> str:
        """The command that installs it."""
        ...

    def argv(self, image: Path, probe: str | None) -> tuple[str, ...] | None:
        """The command that flashes `image`; its first item is `program`. None where there is nothing to run.

        `probe` is the serial number of the debug probe, None for the only one.
        """
        ...


def find_program(name: str) -> str | None:
    """The path of a program, also beside this interpreter: its environment need not be active."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def run_flasher(flasher: Flasher, image: Path, probe: str | None, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Flash, quietly.

    Raises MissingToolError, DeviceError (timeout), VerificationError with what the tool said.
    """
    argv = flasher.argv(image, probe)
    if argv is None:
        return
    program = find_program(argv[0])
    if program is None:
        raise MissingToolError(f"{argv[0]} is not installed; it flashes the board", hint=flasher.install_hint)
    try:
        done = subprocess.run(
            (program, *argv[1:]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{argv[0]} did not end within {timeout_s:.0f} s{_said(error.stdout)}",
            hint="unplug the board, plug it in and try again",
        ) from error
    if done.returncode != 0:
        raise VerificationError(f"{argv[0]} failed with exit code {done.returncode}{_said(done.stdout)}")


def _said(output: bytes | None) -> str:
    lines = (output or b"").decode(errors="replace").strip().splitlines()[-20:]
    return "".join(f"\n    {printable(line, _OUTPUT_SHOWN // 20)}" for line in lines)
