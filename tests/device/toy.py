"""Builds the agent around tests/device/toy_programs.c, and works out what those programs answer."""

from __future__ import annotations

import shutil
import subprocess
import zlib
from pathlib import Path

from edgekit.firmware.headers import port_header
from edgekit.firmware.linker import linker_script
from edgekit.target import load_target

TESTS = Path(__file__).resolve().parent
TEMPLATES = TESTS.parents[1] / "firmware_templates"

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SANITIZE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DTOY_WITHOUT_FAULTY")

AFFINE, WIDE, FAULTY = 0, 1, 2
AFFINE_INPUT = bytes(range(1, 246)) * 2


def affine_outputs(data: bytes) -> list[bytes]:
    """What each operator of "affine" leaves in its output; to the last it adds the number of runs."""
    scaled = bytes((3 * value + 1) & 0xFF for value in data)
    sums = bytearray(12)
    for i, value in enumerate(scaled):
        sums[i % 12] = (sums[i % 12] + value) & 0xFF
    return [scaled, bytes(sums), bytes(sums[11 - i] for i in range(11))]


def affine_answer(data: bytes, runs: int) -> bytes:
    return affine_outputs(data)[2] + bytes([runs & 0xFF])


def affine_checksums(data: bytes, runs: int) -> tuple[int, ...]:
    first, second, last = affine_outputs(data)
    return zlib.crc32(first), zlib.crc32(second), zlib.crc32(last + bytes([runs & 0xFF]))


def wide_answer(first: bytes, second: tuple[int, ...]) -> tuple[bytes, bytes]:
    negated = bytes((-value) & 0xFF for value in first)
    squares = b"".join((value * value & 0xFFFFFFFF).to_bytes(4, "little") for value in second)
    return negated, squares


def build(
    target_name: str,
    folder: Path,
    *,
    flags: tuple[str, ...] = (),
    core: tuple[str, ...] | None = None,
    link: tuple[str, ...] = (),
) -> Path:
    """The agent with the toy programs for a shipped target, with its own header and linker script.

    `core` replaces the flags that say which core it is.
    """
    target = load_target(target_name)
    gcc = f"{target.toolchain.prefix}gcc"
    assert shutil.which(gcc) is not None
    (folder / "edgekit_port.h").write_text(port_header(target))
    platform = TEMPLATES / "platform" / target.platform
    sources = [
        *sorted((TEMPLATES / "agent").glob("*.c")),
        *sorted(platform.glob("*.c")),
        TESTS / "toy_programs.c",
    ]
    if target.port is not None:
        sources.append(TEMPLATES / "port" / f"{target.port.name}.c")
    # As edgekit.firmware builds it: sections that nothing refers to are left out.
    options = [*(core or target.toolchain.flags), *flags]
    options += ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    if target.platform != "linux":
        (folder / "linker.ld").write_text(linker_script(target))
        options += ["-nostartfiles", "--specs=nano.specs", "-T", str(folder / "linker.ld")]
    image = folder / ("runner" if target.platform == "linux" else "firmware.elf")
    includes = [f"-I{folder}", f"-I{TEMPLATES / 'agent'}"]
    run([gcc, *STRICT, *options, *includes, *map(str, sources), *link, "-o", str(image)])
    return image


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stderr}"
    return done.stdout
