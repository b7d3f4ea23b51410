"""The arenas of models on targets: bytes, the lower bound, the time it took to plan, and what makes the peak.

    python -m benchmarks.arenas kws.tflite ic.tflite vww ad --target mps2-an386 --prefer speed --prefer ram

`vww` and `ad` are built with random weights (`benchmarks.mlperf_tiny`). Nothing is built or run: code and
stack come on top.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from benchmarks.mlperf_tiny import MODELS
from edgekit.arena import arena_line
from edgekit.artifacts import Model, Preference
from edgekit.compiler.compile import assemble
from edgekit.compiler.lowering import lower_model
from edgekit.frontend import load_model
from edgekit.target import load_target

__all__ = ["line"]


def line(model: Model, target: str, prefer: Preference) -> str:
    """One model on one target."""
    board = load_target(target)
    program = lower_model(model)
    started = time.perf_counter()
    assembly = assemble(
        program, board.schedules, threads=board.platform == "linux", name=model.name, prefer=prefer
    )
    seconds = time.perf_counter() - started
    operators = [(step.operator.label, "") for step in assembly.program.steps]
    peak = arena_line(assembly.plan.allocations, operators, assembly.plan.arena_bytes)
    return f"{peak}, bound {assembly.plan.lower_bound:,} B, {seconds:.1f} s"


def _open(name: str, folder: Path) -> Model:
    if name not in MODELS:
        return load_model(Path(name))
    path = folder / f"{name}.tflite"
    path.write_bytes(MODELS[name]())
    return load_model(path)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", help="files, or vww and ad")
    parser.add_argument("--target", action="append", help="default: mps2-an386")
    parser.add_argument("--prefer", action="append", choices=get_args(Preference), help="default: speed")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edgekit-arenas-") as folder:
        for name in chosen.models:
            model = _open(name, Path(folder))
            for target in chosen.target or ["mps2-an386"]:
                for prefer in chosen.prefer or ["speed"]:
                    print(f"{Path(name).stem[:24]:24} {target:14} {prefer:5} {line(model, target, prefer)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
