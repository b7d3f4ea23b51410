"""The C toolchain of a target: found on PATH, run as argument lists with a timeout, its version recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.errors import MissingToolError, TargetError
from edgekit.target import Target
from edgekit.text import printable

__all__ = ["ToolResult", "Toolchain", "find_toolchain"]

RUN_TIMEOUT_SECONDS: Final = 120.0
_MAX_SHOWN_LINES: Final = 12

_DEBIAN_PACKAGES: Final[Mapping[str, str]] = {
    "": "gcc libc6-dev",
    "arm-none-eabi-": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "aarch64-linux-gnu-": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "riscv64-unknown-elf-": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
}


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
class Toolchain:
    """gcc and ar of one target, and what its compiler's flags select."""

    gcc: Path
    ar: Path
    flags: tuple[str, ...]
    versions: Mapping[str, str]
    """Program to the first line of its `--version`; goes into the manifest."""
    static: bool
    """Whether a program can be linked without shared libraries."""

    def run_gcc(self, arguments: Sequence[str], directory: Path) -> ToolResult:
        """Runs gcc in `directory`; with relative paths the folder's name stays out of the output."""
        return _run((str(self.gcc), *arguments), directory)

    def archive(self, library: str, objects: Sequence[str], directory: Path) -> None:
        """Writes a static library: `D` leaves out times, owners and modes."""
        result = _run((str(self.ar), "rcsD", library, *objects), directory)
        if result.returncode:
            raise TargetError(f"{self.ar.name} failed:\n{result.first_lines}")


def find_toolchain(target: Target) -> Toolchain:
    """The toolchain that `target` names.

    Raises:
        MissingToolError: its compiler or its C library is not installed; the hint installs it on Debian.
        TargetError: the compiler does not know the target's flags.
    """
    prefix = target.toolchain.prefix
    gcc, ar = _program(f"{prefix}gcc", prefix), _program(f"{prefix}ar", prefix)
    flags = target.toolchain.flags
    # gcc answers questions about its files for any flags; only compiling something makes it read them.
    tried = _run((str(gcc), *flags, "-xc", "-fsyntax-only", os.devnull), Path.cwd())
    if tried.returncode:
        raise TargetError(f"toolchain.flags: {gcc.name} refuses them:\n{tried.first_lines}")
    library = "libc.a" if target.platform == "linux" else "libc_nano.a"
    start = "crt1.o" if target.platform == "linux" else library
    if _file_of(gcc, flags, start) is None:
        raise MissingToolError(f"{gcc.name} is installed, but not its C library", hint=_install(prefix))
    return Toolchain(
        gcc=gcc,
        ar=ar,
        flags=flags,
        versions={tool.name: _version(tool) for tool in (gcc, ar)},
        static=_file_of(gcc, flags, library) is not None,
    )


def _program(name: str, prefix: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise MissingToolError(f"{name} is not installed", hint=_install(prefix))
    return Path(found).absolute()  # it is run from other folders


def _install(prefix: str) -> str:
    packages = _DEBIAN_PACKAGES.get(prefix, f"gcc-{prefix.rstrip('-')}")
    return f"sudo apt-get install -y {packages}"


def _file_of(gcc: Path, flags: tuple[str, ...], name: str) -> str | None:
    """Where gcc finds the library file `name` for these flags; it answers with the bare name if nowhere."""
    answer = _run((str(gcc), *flags, f"-print-file-name={name}"), Path.cwd()).stdout.strip()
    return answer if "/" in answer else None


def _version(tool: Path) -> str:
    lines = _run((str(tool), "--version"), Path.cwd()).stdout.splitlines()
    return printable(lines[0]) if lines else "unknown"


def _run(argv: tuple[str, ...], directory: Path) -> ToolResult:
    """Runs one tool to its end.

    The environment is cut to what a compiler needs, because CPATH, LIBRARY_PATH, GCC_EXEC_PREFIX and their
    like change its output; messages are in English since the linker's are read. Temporary files go to
    `directory`, where they vanish with the rest of an interrupted build.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TMPDIR": str(directory)}
    try:
        done = subprocess.run(
            argv,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TargetError(f"{Path(argv[0]).name} did not finish in {RUN_TIMEOUT_SECONDS:.0f} s") from None
    except OSError as error:
        raise MissingToolError(f"{printable(argv[0])} cannot be run: {error.strerror}") from None
    return ToolResult(
        argv, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )
