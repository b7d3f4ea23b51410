"""Boards of a user's own: other cores on QEMU's other MPS2 machines, each a TOML file and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.pipeline import deploy
from edgekit.resources import targets_directory

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fashion_mnist"
M4_FLAGS = '"-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"'

# machine, core, triple, compiler flags
CORES = {
    "m7": (
        "mps2-an500",
        "cortex-m7",
        "thumbv7em-unknown-none-eabihf",
        '"-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"',
    ),
    "m3": (
        "mps2-an385",
        "cortex-m3",
        "thumbv7m-unknown-none-eabi",
        '"-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft"',
    ),
    # Armv6-M code, which has neither wide multiplication nor a count of leading zeros, on the M3.
    "m0plus": (
        "mps2-an385",
        "cortex-m0plus",
        "thumbv6m-unknown-none-eabi",
        '"-mcpu=cortex-m0plus", "-mthumb", "-mfloat-abi=soft"',
    ),
}


@pytest.mark.emulator
@pytest.mark.parametrize("core", CORES)
def test_another_core_needs_a_file_only(core: str, tmp_path: Path, emulator: str) -> None:
    machine, mcpu, triple, flags = CORES[core]
    text = (targets_directory() / f"{emulator}.toml").read_text(encoding="utf-8")
    changes = (
        ('name = "mps2-an386"', f'name = "own-{core}"'),
        ('machine = "mps2-an386"', f'machine = "{machine}"'),
        ("thumbv7em-unknown-none-eabihf", triple),
        ('mcpu = "cortex-m4"', f'mcpu = "{mcpu}"'),
        (M4_FLAGS, flags),
        ('schedules = ["armv7em", "portable"]', 'schedules = ["portable"]'),
    )
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    target = tmp_path / f"{core}.toml"
    target.write_text(text, encoding="utf-8")
    deployment = deploy(
        EXAMPLE / "model.onnx",
        target=str(target),
        data=EXAMPLE / "sample.npz",
        calibration=EXAMPLE / "calibration.npz",
        samples=4,
        directory=tmp_path / "build",
    )
    assert deployment.verification is not None
    assert deployment.verification.bit_exact
    assert deployment.measurement is not None
    assert deployment.measurement.unit == "instructions"
    assert deployment.measurement.p50 > 1_000_000
