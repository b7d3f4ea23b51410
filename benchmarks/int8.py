"""The int8 schedules on the four MLPerf Tiny shapes and the emulated Cortex-M boards.

    python -m benchmarks.int8 [--models FOLDER] [--target mps2-an386 …] [--prefer size] [--json FILE]

ic and kws are read from FOLDER (`pretrainedResnet_quant.tflite`, `kws_ref_model.tflite`) where they are
there; vww and ad are built with random weights. Instructions are whole inferences as deployed, by QEMU's
count, the same in every run. Model cycles are an estimate (`benchmarks.cycle_model`), for the Cortex-M4 only.
Each deployment's answers were equal to the host's, bit for bit, before it was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np

import edgekit
from benchmarks.cycle_model import cycles_of_trace, disassemble, trace_inference
from benchmarks.mlperf_tiny import MODELS
from edgekit.artifacts import CompileOptions, Preference
from edgekit.device.emulator import EmulatorSettings
from edgekit.target import load_target
from edgekit.target.schema import MachineEmulator

__all__ = ["CMSIS_NN", "Line", "measure"]

FILES: Mapping[str, str] = {"ic": "pretrainedResnet_quant.tflite", "kws": "kws_ref_model.tflite"}
TARGETS = ("mps2-an386", "mps2-an500", "mps2-an505")

# CMSIS-NN (July 2026, -Ofast; on the M4 kws and vww at -O2, which was less): executed instructions of the
# same models on the same emulated boards, kernels only, without an interpreter.
CMSIS_NN: Mapping[str, Mapping[str, int]] = {
    "mps2-an386": {"ic": 29_870_775, "kws": 7_696_713, "vww": 24_090_000, "ad": 579_208},
    "mps2-an500": {"ic": 29_934_592, "kws": 7_760_932, "vww": 24_473_899, "ad": 579_457},
}


@dataclass(frozen=True, slots=True)
class Line:
    """One model on one board. `text_bytes`: kernels and driver; `flash_bytes`: the image with the agent."""

    model: str
    target: str
    macs: int
    instructions: int
    model_cycles: int | None
    cmsis_nn_instructions: int | None
    arena_bytes: int
    text_bytes: int
    flash_bytes: int
    bit_exact: bool

    @property
    def text(self) -> str:
        cycles = "" if self.model_cycles is None else f"{self.model_cycles:,}"
        peer = "" if self.cmsis_nn_instructions is None else f"{self.cmsis_nn_instructions:,}"
        ratio = (
            ""
            if self.cmsis_nn_instructions is None
            else f"{self.cmsis_nn_instructions / self.instructions:.2f}"
        )
        return (
            f"{self.model:5} {self.target:11} {self.instructions:>12,} {self.instructions / self.macs:>6.3f} "
            f"{cycles:>12} {peer:>12} {ratio:>6} {self.arena_bytes:>8,} {self.text_bytes:>8,} "
            f"{self.flash_bytes:>9,} {'yes' if self.bit_exact else 'NO':>5}"
        )


HEADER = (
    f"{'model':5} {'target':11} {'instructions':>12} {'/MAC':>6} {'model cycles':>12} {'CMSIS-NN':>12} "
    f"{'ratio':>6} {'arena B':>8} {'text B':>8} {'flash B':>9} {'exact':>5}"
)


def measure(name: str, model: Path, target: str, folder: Path, *, prefer: Preference = "speed") -> Line:
    """Deploy a model to an emulated board into `folder` and measure it there.

    Raises:
        edgekit.errors.EdgekitError: the deployment failed.
    """
    deployment = edgekit.deploy(
        model,
        target=target,
        compile_options=CompileOptions(prefer=prefer),
        samples=4,
        directory=folder,
        check=False,
    )
    document = deployment.document
    assert document.profile is not None
    assert document.verify is not None
    return Line(
        model=name,
        target=target,
        macs=document.model.macs,
        instructions=round(document.profile.p50),
        model_cycles=_model_cycles(folder, target) if target == "mps2-an386" else None,
        cmsis_nn_instructions=CMSIS_NN.get(target, {}).get(name),
        arena_bytes=document.memory.arena_bytes,
        text_bytes=_text_bytes(folder),
        flash_bytes=document.memory.flash_bytes,
        bit_exact=document.verify.bit_exact,
    )


def _model_cycles(folder: Path, target: str) -> int:
    emulator = load_target(target).emulator
    assert isinstance(emulator, MachineEmulator)
    image = folder / "firmware.elf"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(-128, 128, int(np.prod(each["shape"]))).astype(np.int8).tobytes()
        for each in manifest["model"]["inputs"]
    ]
    trace = trace_inference(image, EmulatorSettings(emulator.machine, emulator.icount_shift), inputs)
    return cycles_of_trace(trace, disassemble(image))[1]


def _text_bytes(folder: Path) -> int:
    """Code of the functions that came from the model's own objects, as the linker kept them."""
    (library,) = folder.glob("lib*.a")
    own = {name for name, _ in _functions(library)}
    return sum(size for name, size in _functions(folder / "firmware.elf") if name in own)


def _functions(path: Path) -> list[tuple[str, int]]:
    done = subprocess.run(
        ["arm-none-eabi-nm", "-S", "--defined-only", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(row[3], int(row[1], 16)) for row in rows if len(row) == 4 and row[2] in "tTW"]


def _models(folder: Path | None, into: Path) -> dict[str, Path]:
    found = {}
    for name, file in FILES.items():
        if folder is not None and (folder / file).is_file():
            found[name] = folder / file
        else:
            print(f"{name}: no {file} (--models FOLDER)", file=sys.stderr)
    for name, build in MODELS.items():
        found[name] = into / f"{name}.tflite"
        found[name].write_bytes(build())
    return found


def main() -> int:
    """Measure every model on every target; 1 when an answer was wrong."""
    named = os.environ.get("EDGEKIT_TEST_DATA")
    parser = argparse.ArgumentParser(description="What the int8 schedules cost on emulated Cortex-M boards.")
    parser.add_argument("--models", type=Path, default=Path(named) if named else None, metavar="FOLDER")
    parser.add_argument("--target", action="append", metavar="TARGET", help="may be repeated")
    parser.add_argument("--prefer", choices=get_args(Preference), default="speed", help="default: speed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there, too")
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        models = _models(arguments.models, Path(directory))
        print(HEADER)
        for target in arguments.target or TARGETS:
            for name, model in models.items():
                folder = Path(directory) / f"{name}-{target}"
                lines.append(measure(name, model, target, folder, prefer=arguments.prefer))
                print(lines[-1].text, flush=True)
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps([asdict(line) for line in lines], indent=2) + "\n", encoding="utf-8"
        )
    return 0 if all(line.bit_exact for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
