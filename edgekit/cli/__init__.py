"""The command line: one module a command, thin; what they share is in `app`, `session`, `options` and
`tables`.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the process's exit code."""
    try:
        _prepare_streams()
        # what is imported stays to the end: looking for garbage in it takes a tenth of a short command's time
        gc.disable()
        from edgekit.cli.app import app

        gc.enable()
        # a terminal that closes, or a supervisor that stops edgekit, must leave no emulator behind either
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        app(args=None if arguments is None else list(arguments), prog_name="edgekit")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        # between the commands' own handler and here only start-up and shut-down remain
        sys.stderr.write("interrupted\n")
        return 130
    return 0


def _prepare_streams() -> None:
    """Words that the terminal's encoding lacks become question marks, and a stream that was closed swallows
    what is written to it: neither may end a deployment.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open to the end
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
