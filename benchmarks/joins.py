"""What copies at joins and splits cost: networks that have any, with them and with tensors in runs.

    python -m benchmarks.joins                          every architecture that joins or splits tensors
    python -m benchmarks.joins inception --target mps2-an500

The copies that are left, the arena and the instructions of an inference, of two programs on the same board:
one in which each concatenation and slice along an inner axis copies, and the one that is deployed
(docs/memory.md).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

import edgekit
from benchmarks.networks import ARCHITECTURES, build, rows
from edgekit import Model

__all__ = ["Cost", "cost"]

MOVES = ("concat", "slice", "requantize")
"""A requantisation copies an input of a concatenation that can't be computed in its place."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A program on a board."""

    copies: int
    arena_bytes: int
    instructions: int


def cost(model: Model, target: str, folder: Path, *, copied: bool) -> Cost:
    """Deploys; with `copied` no tensor lies between the bytes of others."""
    if copied:
        with patch("edgekit.compiler.compile.interleave", lambda program, _: program):
            deployment = edgekit.deploy(model, target=target, directory=folder)
    else:
        deployment = edgekit.deploy(model, target=target, directory=folder)
    profile = deployment.document.profile
    assert profile is not None
    operators = deployment.compiled.operators
    return Cost(
        sum(operator.op in MOVES for operator in operators),
        deployment.compiled.arena_bytes,
        round(profile.p50),
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *ARCHITECTURES], help="all by default")
    parser.add_argument("--target", default="mps2-an386", help="default: mps2-an386")
    chosen = parser.parse_args(arguments)
    print(f"{'architecture':19} {'copies':>11} {'arena':>17} {'instructions':>23}")
    for name in chosen.names or ARCHITECTURES:
        architecture = ARCHITECTURES[name]
        calibration = [np.asarray(rows(architecture, 16))]
        model = edgekit.load_torch(
            build(architecture), (torch.zeros(architecture.shape),), calibration=calibration
        )
        with tempfile.TemporaryDirectory(prefix="edgekit-joins-") as folder:
            before = cost(model, chosen.target, Path(folder) / "copied", copied=True)
            if not before.copies:
                continue
            after = cost(model, chosen.target, Path(folder) / "shared", copied=False)
        print(
            f"{name:19} {before.copies:>4} to {after.copies:>3} "
            f"{before.arena_bytes:>7,} to {after.arena_bytes:>6,} "
            f"{before.instructions:>10,} to {after.instructions:>9,}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
