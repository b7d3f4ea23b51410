"""A toolchain's programs: run as argument lists, in a bare environment, with a timeout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgekit.errors import MissingToolError, TargetError
from edgekit.text import printable

__all__ = ["Tool", "ToolResult", "Toolchain"]

_MAX_SHOWN_LINES: Final = 12


@dataclass(frozen=True, slots=True)
class ToolResult:
    """How one run of a tool ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    @property
    def first_lines(self) -> str:
        """What the tool complained about, short and safe to print."""
        lines = (self.stderr or self.stdout).splitlines()[:_MAX_SHOWN_LINES]
        return "\n".join(printable(line) for line in lines)


@dataclass(frozen=True, slots=True)
class Tool:
    """One program of a toolchain."""

    name: str
    """As a user types it."""
    argv: tuple[str, ...]
    """As edgekit starts it; arguments follow."""
    timeout_seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)
    """What it needs beside the few variables that every tool gets."""
    timeout_hint: str | None = None

    def run(self, arguments: Sequence[str], directory: Path) -> ToolResult:
        """Runs it to its end in `directory`; with relative paths the folder's name stays out of the output.

        The environment is cut to what a compiler needs, because CPATH, LIBRARY_PATH, GCC_EXEC_PREFIX and
        their like change its output; messages are in English since the linker's are read. Temporary files go
        to `directory`, where they vanish with the rest of an interrupted build.
        """
        argv = (*self.argv, *arguments)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": str(directory)}
        try:
            done = subprocess.run(
                argv,
                cwd=directory,
                env={**environment, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TargetError(
                f"{self.name} did not finish in {self.timeout_seconds:.0f} s", hint=self.timeout_hint
            ) from None
        except OSError as error:
            raise MissingToolError(f"{printable(argv[0])} cannot be run: {error.strerror}") from None
        return ToolResult(
            argv,
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Compiler and archiver of one target, and what the compiler's flags select."""

    gcc: Tool
    """gcc, or a compiler that takes its arguments."""
    ar: Tool
    flags: tuple[str, ...]
    versions: Mapping[str, str]
    """Program to the first line of what it says of its version; goes into the manifest."""
    static: bool
    """Whether a program can be linked without shared libraries."""
    shared: Toolchain | None = None
    """What makes shared libraries where it is not this one, because this one's C library cannot be loaded
    beside the board's own. The objects of the two don't mix."""

    def run_gcc(self, arguments: Sequence[str], directory: Path) -> ToolResult:
        """Runs the compiler in `directory`."""
        return self.gcc.run(arguments, directory)

    def archive(self, library: str, objects: Sequence[str], directory: Path) -> None:
        """Writes a static library: `D` leaves out times, owners and modes."""
        result = self.ar.run(("rcsD", library, *objects), directory)
        if result.returncode:
            raise TargetError(f"{self.ar.name} failed:\n{result.first_lines}")
