"""Boards that QEMU plays: started with an image, reached over a pty, gone when they are closed.

QEMU gets named fields only, which are checked again here. Instructions are counted by `-icount`: with
`shift=N` an instruction takes 2^N virtual nanoseconds, and `sleep=off` keeps virtual time from following the
host's clock.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from edgekit.device.processes import OwnedProcess
from edgekit.errors import DeviceError, MissingToolError, TargetError
from edgekit.text import printable

__all__ = ["EmulatedBoard", "EmulatorSettings", "emulator_argv"]

_PROGRAM: Final = "qemu-system-arm"
_PACKAGE: Final = "qemu-system-arm"
_MACHINE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PTY: Final = re.compile(rb"char device redirected to (/dev/(?:pts/|tty)[A-Za-z0-9]+)")
_WORDS_SHOWN: Final = 2000


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """What of a board QEMU has to know. `icount_shift`: log2 of the virtual nanoseconds of an instruction."""

    machine: str
    icount_shift: int

    def __post_init__(self) -> None:
        if not _MACHINE.fullmatch(self.machine):
            raise TargetError(f"no QEMU machine is called {printable(self.machine)}")
        if not 0 <= self.icount_shift <= 10:
            raise TargetError(f"icount_shift is 0 to 10, not {self.icount_shift}")


def emulator_argv(
    program: str, settings: EmulatorSettings, image: Path, plugin: Path | None = None
) -> tuple[str, ...]:
    """The command line; the UART is QEMU's first serial port, everything else that could talk is off."""
    # In QEMU's options a comma ends a value; two of them are one in it.
    plugged = () if plugin is None else ("-plugin", f"file={plugin}".replace(",", ",,"))
    return (
        program,
        "-machine",
        settings.machine,
        "-nodefaults",
        "-nographic",
        "-monitor",
        "none",
        "-serial",
        "pty",
        "-icount",
        f"shift={settings.icount_shift},sleep=off",
        "-kernel",
        str(image.absolute()),
        *plugged,
    )


class EmulatedBoard:
    """A running emulator; `tty` is its UART. Stop it with `stop`, or use it as a context."""

    def __init__(
        self,
        settings: EmulatorSettings,
        image: Path,
        *,
        plugin: Path | None = None,
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = 20.0,
    ) -> None:
        """
        Args:
            plugin: one of edgekit's plugins for QEMU.
            environment: QEMU's; this process's own by default.
        """
        program = shutil.which(_PROGRAM)
        if program is None:
            raise MissingToolError(
                f"{_PROGRAM} is not installed; it plays {settings.machine}",
                hint=f"sudo apt-get install {_PACKAGE}",
            )
        if not image.is_file():
            raise DeviceError(f"there is no image at {printable(str(image))}", hint="compile it first")
        self._owned = OwnedProcess(
            emulator_argv(program, settings, image, plugin),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            environment=environment,
        )
        try:
            self.tty = self._wait_for_tty(start_timeout_s)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> EmulatedBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._owned.process.pid

    def stop(self) -> None:
        self._owned.stop()

    def _wait_for_tty(self, timeout_s: float) -> str:
        output = self._owned.process.stdout
        assert output is not None
        said = _read_until(output, _PTY, timeout_s)
        match = _PTY.search(said)
        if match is not None:
            return match[1].decode("ascii")
        words = printable(said[-_WORDS_SHOWN:].decode(errors="replace").strip(), _WORDS_SHOWN)
        raise DeviceError(f"{_PROGRAM} did not start: {words or f'nothing said in {timeout_s:.0f} s'}")


def _read_until(output: IO[bytes], wanted: re.Pattern[bytes], timeout_s: float) -> bytes:
    """What `output` says until `wanted` is in it, it ends, or the time is over."""
    said = b""
    deadline = time.monotonic() + timeout_s
    while not wanted.search(said) and len(said) < 65536:
        ready, _, _ = select.select([output], [], [], max(deadline - time.monotonic(), 0.0))
        chunk = os.read(output.fileno(), 4096) if ready else b""
        if not chunk:
            break
        said += chunk
    return said
