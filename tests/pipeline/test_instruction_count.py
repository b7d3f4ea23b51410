"""edgekit's own count of instructions against an outside tool's: a QEMU plugin that counts between the
driver's marks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.firmware import load_bundle
from edgekit.pipeline import compile_bundle, profile_bundle


def symbol(elf: Path, name: str) -> int:
    listing = subprocess.run(
        ["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return next(int(line.split()[0], 16) for line in listing.splitlines() if line.split()[-1] == name)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    built = tmp_path / "count.so"
    source = Path(__file__).with_name("count_instructions.c")
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", str(source), "-o", str(built)],
        check=True,
        timeout=60,
    )
    return built


@pytest.mark.emulator
def test_the_count_is_that_of_an_outside_tool_between_the_marks(
    data_dir: Path, tmp_path: Path, emulator: str, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    compile_bundle(data_dir / "kws_ref_model.tflite", target=emulator, directory=bundle)
    image = load_bundle(bundle).image.path
    start, stop = (symbol(image, f"edgekit_mark_{end}") for end in ("start", "stop"))
    counts = tmp_path / "counts.txt"
    # a program of the same name before QEMU on PATH adds the plugin: edgekit itself passes no free arguments
    wrapper = tmp_path / "bin" / "qemu-system-arm"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\nexec {shutil.which("qemu-system-arm")} "$@" '
        f"-plugin {plugin},start={start:#x},stop={stop:#x},out={counts}\n"
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    measured = [profile_bundle(bundle, runs=2).measurement for _ in range(3)]
    outside = [int(line) for line in counts.read_text().split()]
    assert len(outside) == 3  # the warm-up and two runs of the last deployment
    assert max(outside) - min(outside) <= 0.001 * min(outside)
    for one in measured:
        assert one is not None
        assert one.p50 == pytest.approx(outside[-1], rel=0.02)
        assert one.p50 == pytest.approx(measured[0].p50, rel=0.001)  # type: ignore[union-attr]
