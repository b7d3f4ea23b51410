"""C code compiled with the flags of each shipped Linux board runs on that board's core."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgekit.target import list_targets

SOURCE = Path(__file__).with_name("programs.c")
BOARDS = {target.name: target for target in list_targets() if target.transport.kind == "ssh"}

# The least core on which code for any board of the kind has to run.
GENERIC = {"aarch64": "cortex-a53", "armv7l": "cortex-a9"}


@pytest.mark.parametrize("name", BOARDS)
def test_it_runs_on_the_boards_core(name: str, tmp_path: Path) -> None:
    target = BOARDS[name]
    machine = (target.compile.mtriple or "").partition("-")[0]
    core = target.compile.mcpu if target.compile.mcpu != "generic" else GENERIC[machine]
    program = tmp_path / "program"
    compiler = f"{target.toolchain.prefix}gcc"
    argv = [
        compiler,
        *target.toolchain.flags,
        "-O2",
        "-static",
        "-Wall",
        "-Werror",
        "-o",
        str(program),
        str(SOURCE),
    ]
    subprocess.run(argv, check=True, timeout=60)
    qemu = "qemu-arm" if machine == "armv7l" else "qemu-aarch64"
    done = subprocess.run(
        [qemu, "-cpu", str(core), str(program), "machine"], capture_output=True, timeout=60, check=True
    )
    assert done.stdout == (b"armv7l 32\n" if machine == "armv7l" else b"aarch64 64\n")
    attributes = subprocess.run(
        [f"{target.toolchain.prefix}readelf", "-A", str(program)], capture_output=True, timeout=60, check=True
    )
    assert (b"VFP registers" in attributes.stdout) == (machine == "armv7l")
