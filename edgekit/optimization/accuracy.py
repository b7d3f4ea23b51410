"""What an int8 program answers on this machine, and how much accuracy it lost against another."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import DEFAULT_COMPILE, Model, Serving
from edgekit.data import to_stored
from edgekit.stages import STAGES, Stages
from edgekit.target import load_target
from edgekit.verify import infer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Drop", "accuracy_interval", "classes", "paired_drop", "predictions"]

Answers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Drop:
    """Accuracy before and after on the same rows, and the loss in points with its 95 % interval."""

    before: float
    after: float
    points: float
    low: float
    high: float
    rows: int


def predictions(model: Model, x: npt.NDArray[np.float32], *, stages: Stages = STAGES) -> Answers:
    """The class that the model's program answers for each row, (N,), computed on this machine.

    The program is integers, so that a board answers the same.

    Args:
        x: (N, …) float32.
    """
    host = load_target("host")
    with tempfile.TemporaryDirectory(prefix="edgekit-") as directory:
        compiled = stages.compile_model(model, host, DEFAULT_COMPILE)
        image = stages.build_image(compiled, host, Path(directory) / "host", {})
        (spec,) = compiled.inputs
        stored = to_stored(x, spec)
        answers = np.empty(len(x), np.int64)
        with stages.open_board(host, image, None, Serving()) as client:
            for row in range(len(x)):
                output = infer(client, (stored[row].tobytes(),), compiled.outputs)[0]
                answers[row] = int(np.argmax(output.reshape(-1)))
    return answers


def classes(module: nn.Module, x: npt.NDArray[np.float32], *, batch: int = 512) -> Answers:
    """The class that a float module answers for each row, (N,)."""
    import torch

    from edgekit.compress.modules import evaluation_mode

    with evaluation_mode(module), torch.no_grad():
        parts = [
            module(torch.from_numpy(x[start : start + batch])).argmax(dim=-1).numpy()
            for start in range(0, len(x), batch)
        ]
    return np.concatenate(parts).astype(np.int64)


def paired_drop(before: Answers, after: Answers, y: npt.NDArray[np.int64]) -> Drop:
    """Accuracies and their difference on the same rows.

    The interval is the normal one of the mean of paired differences (McNemar's setting): rows that both
    answer alike say nothing about the difference. Where all are alike it is bounded by how many rows may
    differ without one of them being seen (Clopper and Pearson, 1934).
    """
    right_before, right_after = before == y, after == y
    differences = right_before.astype(np.float64) - right_after.astype(np.float64)
    mean = float(differences.mean())
    if len(y) < 2:
        half = math.inf
    elif not differences.any():
        half = 1.0 - 0.025 ** (1.0 / len(y))
    else:
        half = 1.96 * float(differences.std(ddof=1)) / math.sqrt(len(y))
    return Drop(
        float(right_before.mean()),
        float(right_after.mean()),
        100.0 * mean,
        100.0 * (mean - half),
        100.0 * (mean + half),
        len(y),
    )


def accuracy_interval(accuracy: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share of that many rows (Wilson, "Probable inference, the law of succession,
    and statistical inference", 1927).
    """
    z = 1.96
    centre = (accuracy + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(accuracy * (1 - accuracy) / rows + z * z / (4 * rows * rows))
    return max(centre - half, 0.0), min(centre + half, 1.0)
