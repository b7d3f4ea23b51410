"""The small search of the tests: three clouds of points, a dense network, a board that counts.

python -m tests.optimization.searches FOLDER LATENCY_US     prints a line an event, for tests that kill it
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.artifacts import TorchProgram
from edgekit.budget import Budget
from edgekit.compress.training import Training, train
from edgekit.optimization import Optimization, Settings, optimize
from edgekit.progress import Progress, silent
from edgekit.search.netadapt import NetAdapt
from edgekit.search.problem import Trial
from tests.compress.networks import blobs, classifier
from tests.optimization.boards import CountingBoard

__all__ = ["SETTINGS", "network", "search", "write_rows"]

SETTINGS = Settings(
    strategy=NetAdapt(reduction=0.12),
    short_rows=96,
    final_epochs=2,
    qat_epochs=0,
    batch_size=32,
    multiple_of=2,
)


def write_rows(path: Path) -> Path:
    train_rows, validation, test = blobs(300, 0), blobs(120, 1), blobs(150, 2)
    np.savez(
        path,
        x_train=train_rows.x,
        y_train=train_rows.y,
        x_val=validation.x,
        y_val=validation.y,
        x_test=test.x,
        y_test=test.y,
    )
    return path


def network() -> TorchProgram:
    module = classifier(16)
    train(module, Training(epochs=8, batch_size=32, learning_rate=1e-2), blobs(300, 0), None)
    return TorchProgram(module, (torch.zeros(1, 4),), "clouds")


def search(
    folder: Path,
    latency_us: float,
    *,
    board: CountingBoard | None = None,
    settings: Settings = SETTINGS,
    progress: Progress = silent,
    tried: Callable[[Trial], None] = lambda trial: None,
    data: Path | None = None,
    model: TorchProgram | None = None,
    **more: Any,
) -> Optimization:
    """The search in `folder`, resumed where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = data or folder / "rows.npz"
    if not rows.exists():
        write_rows(rows)
    return optimize(
        model or network(),
        target="host",
        data=rows,
        budget=Budget(max_latency_us=latency_us),
        settings=settings,
        directory=folder / "out",
        progress=progress,
        tried=tried,
        stages=(board or CountingBoard()).stages(),
        **more,
    )


def main() -> None:
    torch.set_num_threads(1)

    def say(event: object) -> None:
        sys.stdout.write(f"{event}\n")
        sys.stdout.flush()

    search(Path(sys.argv[1]), float(sys.argv[2]), progress=say, tried=say)


if __name__ == "__main__":
    main()
