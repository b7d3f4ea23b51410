"""What models cost on targets, side by side: deploys each model to each target, one line for each pair.

    python benchmarks/deployments.py kws.tflite --data kws.npz --target mps2-an386 --target host

Every figure is one that the target or the ELF gave. Instructions (emulated targets), cycles and microseconds
stand in the same column with their unit, and can't be compared with each other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import edgekit
from edgekit.text import printable

__all__ = ["Line", "measure"]


@dataclass(frozen=True, slots=True)
class Line:
    """One model on one target. Sizes in bytes, `seconds` is the whole deployment's wall time."""

    model: str
    target: str
    cost: float
    unit: str
    macs: int
    flash_bytes: int
    ram_bytes: int
    arena_bytes: int
    samples: int
    bit_exact: bool
    accuracy: float | None
    seconds: float

    @property
    def text(self) -> str:
        accuracy = "–" if self.accuracy is None else f"{100 * self.accuracy:.2f} %"
        return (
            f"{printable(self.model, 24):24} {self.target:14} {self.cost:>13,.0f} {self.unit:12} "
            f"{self.cost / max(self.macs, 1):>6.2f} {self.flash_bytes:>9,} {self.ram_bytes:>9,} "
            f"{self.arena_bytes:>9,} {self.samples:>6,} {'yes' if self.bit_exact else 'NO':>5} {accuracy:>8} "
            f"{self.seconds:>6.1f}"
        )


HEADER = (
    f"{'model':24} {'target':14} {'cost':>13} {'unit':12} {'/MAC':>6} {'flash B':>9} {'RAM B':>9} "
    f"{'arena B':>9} {'rows':>6} {'exact':>5} {'top1':>8} {'s':>6}"
)


def measure(
    model: Path, target: str, data: Path | None, calibration: Path | None, samples: int | None, folder: Path
) -> Line:
    """Deploy `model` to `target` into `folder`.

    Raises:
        edgekit.errors.EdgekitError: The deployment failed.
    """
    started = time.monotonic()
    deployment = edgekit.deploy(
        model,
        target=target,
        data=data,
        calibration=calibration,
        samples=samples,
        directory=folder,
        check=False,
    )
    document = deployment.document
    assert document.profile is not None
    assert document.verify is not None
    return Line(
        model=document.model.name,
        target=document.target.name,
        cost=document.profile.p50,
        unit=document.profile.unit,
        macs=document.model.macs,
        flash_bytes=document.memory.flash_bytes,
        ram_bytes=document.memory.ram_bytes,
        arena_bytes=document.memory.arena_bytes,
        samples=document.verify.samples,
        bit_exact=document.verify.bit_exact,
        accuracy=None if document.accuracy is None else document.accuracy.value,
        seconds=time.monotonic() - started,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Deploy models to targets and print what each pair costs.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--target", action="append", required=True, metavar="TARGET", help="may be repeated")
    parser.add_argument("--data", type=Path, help="rows for all of the models (default: 16 random ones)")
    parser.add_argument("--calibration", type=Path, help="rows to quantise a float model with")
    parser.add_argument("--samples", type=int, help="rows to run on each target (default: all)")
    arguments = parser.parse_args()
    print(HEADER)
    exact = True
    for model in arguments.models:
        for target in arguments.target:
            with tempfile.TemporaryDirectory() as folder:
                line = measure(
                    model, target, arguments.data, arguments.calibration, arguments.samples, Path(folder)
                )
            exact = exact and line.bit_exact
            print(line.text, flush=True)
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
