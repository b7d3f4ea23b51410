"""Networks whose output is as large as their input: autoencoders and U-Nets."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.networks.mobile import conv

__all__ = ["ConvAutoencoder", "DenseAutoencoder", "ResizeUNet", "TransposedUNet"]


class DenseAutoencoder(nn.Sequential):
    """Dense layers to 8 values and back, batch normalisation behind each; input (N, 64)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((64, 32), (32, 32), (32, 8), (8, 32), (32, 32)):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        super().__init__(*layers, nn.Linear(32, 64))


class ConvAutoencoder(nn.Sequential):
    """Strided convolutions and transposed ones back; input (N, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__(
            conv(1, 8, 3, 2),
            conv(8, 16, 3, 2),
            nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, 2),
            nn.Sigmoid(),
        )


def _pair(channels: int, filters: int) -> nn.Sequential:
    return nn.Sequential(conv(channels, filters, 3), conv(filters, filters, 3))


class TransposedUNet(nn.Module):
    """Two levels down, transposed convolutions up, skips by concatenation (Ronneberger et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _pair(3, 8), _pair(8, 16), _pair(16, 24)
        self.pool = nn.MaxPool2d(2)
        self.up2, self.up1 = nn.ConvTranspose2d(24, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.merge2, self.merge1 = _pair(32, 16), _pair(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.bottom(self.pool(second))
        y = self.merge2(torch.cat([self.up2(y), second], 1))
        y = self.merge1(torch.cat([self.up1(y), first], 1))
        found: torch.Tensor = self.head(y)
        return found


class ResizeUNet(nn.Module):
    """The same with resizes: nearest on the lower level, bilinear on the upper."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _pair(3, 8), _pair(8, 16), _pair(16, 16)
        self.pool = nn.MaxPool2d(2)
        self.merge2, self.merge1 = _pair(32, 8), _pair(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        y = self.bottom(self.pool(second))
        y = functional.interpolate(y, scale_factor=2.0, mode="nearest")
        y = self.merge2(torch.cat([y, second], 1))
        y = functional.interpolate(y, scale_factor=2.0, mode="bilinear")
        y = self.merge1(torch.cat([y, first], 1))
        found: torch.Tensor = self.head(y)
        return found
