"""Small networks and rows for the tests of the compression methods."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit.compress.training import Labelled

__all__ = ["EXAMPLE", "Branches", "blobs", "classifier"]

EXAMPLE = (torch.zeros(1, 3, 12, 12),)


def _block(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Branches(nn.Module):
    """All that ties channels together: depthwise, grouped, a residual addition, a concatenation, flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(3, 16, 3, 2)
        self.depthwise = _block(16, 16, 3, 1, 16)
        self.pointwise = _block(16, 32, 1)
        self.residual = _block(32, 32, 3)
        self.grouped = _block(32, 32, 3, 1, 4)
        self.left = _block(32, 8, 1)
        self.right = _block(32, 24, 3)
        self.head = nn.Conv2d(32, 20, 1)
        self.classes = nn.Linear(20 * 6 * 6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pointwise(self.depthwise(self.stem(x)))
        x = self.grouped(x + self.residual(x))
        x = torch.cat([self.left(x), self.right(x)], 1)
        answer: torch.Tensor = self.classes(torch.flatten(torch.relu(self.head(x)), 1))
        return answer


def classifier(width: int = 16) -> nn.Sequential:
    """(N, 4) to 3 classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def blobs(rows: int, seed: int) -> Labelled:
    """Three clouds of points in four dimensions, far enough apart to be told from each other."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    centres = np.array([[2, 0, 0, 1], [0, 2, 1, 0], [-2, -2, 0, 0]], np.float32)
    x = centres[y] + rng.normal(0, 0.5, (rows, 4)).astype(np.float32)
    return Labelled(x.astype(np.float32), y.astype(np.int64))
