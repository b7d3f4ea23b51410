"""The C toolchain of a target: gcc found on PATH, else for Linux boards the Python package `ziglang`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgekit.errors import MissingToolError, TargetError
from edgekit.firmware.tool import Tool, Toolchain, ToolResult
from edgekit.firmware.zig import find_zig, install_zig, serves
from edgekit.target import Target
from edgekit.text import printable

__all__ = ["ToolResult", "Toolchain", "find_toolchain"]

RUN_TIMEOUT_SECONDS: Final = 120.0

_DEBIAN_PACKAGES: Final[Mapping[str, str]] = {
    "": "gcc libc6-dev",
    "arm-none-eabi-": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "aarch64-linux-gnu-": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "riscv64-unknown-elf-": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
}


def find_toolchain(target: Target) -> Toolchain:
    """The toolchain that `target` names, or the one that takes its place.

    Raises:
        MissingToolError: its compiler or its C library is not installed; the hint installs it on Debian.
        TargetError: the compiler does not know the target's flags.
    """
    if shutil.which(f"{target.toolchain.prefix}gcc") is None and serves(target):
        try:
            return find_zig(target)
        except MissingToolError as error:
            raise MissingToolError(error.message, hint=_install(target.toolchain.prefix)) from None
    return _find_gcc(target)


def _find_gcc(target: Target) -> Toolchain:
    gcc, ar = _program("gcc", target), _program("ar", target)
    flags = target.toolchain.flags
    # gcc answers questions about its files for any flags; only compiling something makes it read them.
    tried = gcc.run((*flags, "-xc", "-fsyntax-only", os.devnull), Path.cwd())
    if tried.returncode:
        raise TargetError(f"toolchain.flags: {gcc.name} refuses them:\n{tried.first_lines}")
    library = "libc.a" if target.platform == "linux" else "libc_nano.a"
    start = "crt1.o" if target.platform == "linux" else library
    if _file_of(gcc, flags, start) is None:
        raise MissingToolError(
            f"{gcc.name} is installed, but not its C library", hint=_install(target.toolchain.prefix)
        )
    return Toolchain(
        gcc=gcc,
        ar=ar,
        flags=flags,
        versions={tool.name: _version(tool) for tool in (gcc, ar)},
        static=_file_of(gcc, flags, library) is not None,
    )


def _program(program: str, target: Target) -> Tool:
    prefix = target.toolchain.prefix
    found = shutil.which(f"{prefix}{program}")
    if found is None:
        instead = install_zig(target)
        hint = _install(prefix) + ("" if instead is None else f", or {instead}")
        raise MissingToolError(f"{prefix}{program} is not installed", hint=hint)
    # Absolute, since it is run from other folders.
    return Tool(f"{prefix}{program}", (str(Path(found).absolute()),), RUN_TIMEOUT_SECONDS)


def _install(prefix: str) -> str:
    packages = _DEBIAN_PACKAGES.get(prefix, f"gcc-{prefix.rstrip('-')}")
    return f"sudo apt-get install -y {packages}"


def _file_of(gcc: Tool, flags: tuple[str, ...], name: str) -> str | None:
    """Where gcc finds the library file `name` for these flags; it answers with the bare name if nowhere."""
    answer = gcc.run((*flags, f"-print-file-name={name}"), Path.cwd()).stdout.strip()
    return answer if "/" in answer else None


def _version(tool: Tool) -> str:
    lines = tool.run(("--version",), Path.cwd()).stdout.splitlines()
    return printable(lines[0]) if lines else "unknown"
