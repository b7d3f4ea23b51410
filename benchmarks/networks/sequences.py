"""Networks of sequences."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.networks.mobile import CLASSES

__all__ = ["Cnn1d", "Gru", "Lstm", "TransformerEncoder"]


class Cnn1d(nn.Sequential):
    """Convolutions over time: strided, dilated, depthwise; input (N, 4, 64)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(4, 16, 5, 2, 2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(16, 16, 3, padding=2, dilation=2, groups=16),
            nn.Conv1d(16, 24, 1),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(24, 32, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(32, CLASSES),
        )


class Gru(nn.Module):
    """A GRU over 10 steps and a classifier of its last state; input (N, 10, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(8, 16, batch_first=True)
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(x)
        y: torch.Tensor = self.classifier(states[:, -1])
        return y


class Lstm(nn.Module):
    """An LSTM over 10 steps and a classifier of its last state; input (N, 10, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 16, batch_first=True)
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(x)
        y: torch.Tensor = self.classifier(states[:, -1])
        return y


class TransformerEncoder(nn.Module):
    """Two encoder layers of two heads over 12 embedded steps (Vaswani et al., 2017); input (N, 12, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 16)
        self.positions = nn.Parameter(torch.randn(1, 12, 16) * 0.5)
        # Not nn.TransformerEncoder, whose layers begin as copies of one.
        self.encoder = nn.Sequential(
            *(nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True) for _ in range(2))
        )
        self.norm = nn.LayerNorm(16)
        self.classifier = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.embed(x) + self.positions)
        y: torch.Tensor = self.classifier(self.norm(x.mean(1)))
        return y
