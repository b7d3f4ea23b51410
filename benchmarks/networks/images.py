"""Classifiers of images by ordinary convolutions."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.networks.mobile import CLASSES, conv

__all__ = ["CspNet", "DenseNet", "Inception", "ResNet", "SqueezeNet"]


class Fire(nn.Module):
    """Squeeze to few channels, then expand by kernels of 1 and of 3, side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.small = nn.Conv2d(squeezed, expanded, 1)
        self.large = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.small(x)), self.activation(self.large(x))], 1)


class SqueezeNet(nn.Sequential):
    """Fire modules and a convolution as classifier, without batch normalisation (Iandola et al., 2016)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(16, 8, 16),
            Fire(32, 8, 16),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(32, 12, 24),
            nn.Dropout(0.5),
            nn.Conv2d(48, CLASSES, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )


class BasicBlock(nn.Module):
    """Two convolutions and a residual, projected where shapes differ."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(channels, filters, 3, stride), conv(filters, filters, 3, activation=None)
        )
        projected = stride != 1 or channels != filters
        self.shortcut = conv(channels, filters, 1, stride, activation=None) if projected else nn.Identity()
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.activation(self.layers(x) + self.shortcut(x))
        return y


class ResNet(nn.Sequential):
    """ResNet-18: four stages of two basic blocks (He et al., 2016), an eighth of its width."""

    def __init__(self) -> None:
        stages: list[nn.Module] = []
        for channels, filters, stride in ((8, 8, 1), (8, 16, 2), (16, 32, 2), (32, 64, 2)):
            stages += [BasicBlock(channels, filters, stride), BasicBlock(filters, filters, 1)]
        super().__init__(
            conv(3, 8, 7, 2),
            nn.MaxPool2d(3, 2, 1),
            *stages,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, CLASSES),
        )


class Mixed(nn.Module):
    """Kernels of 1, 3 and twice 3 and a pool, side by side."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        half = filters // 2
        self.branches = nn.ModuleList(
            (
                conv(channels, filters, 1),
                nn.Sequential(conv(channels, half, 1), conv(half, filters, 3)),
                nn.Sequential(conv(channels, half, 1), conv(half, filters, 3), conv(filters, filters, 3)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, filters, 1)),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Inception(nn.Sequential):
    """Two modules of four branches (Szegedy et al., 2015; the 5x5 kernel as two 3x3, 2016)."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 16, 3, 2),
            Mixed(16, 16),
            nn.MaxPool2d(2),
            Mixed(64, 32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, CLASSES),
        )


class DenseBlock(nn.Module):
    """Each layer reads what all before it wrote."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(conv(channels + growth * index, 4 * growth, 1), conv(4 * growth, growth, 3))
            for index in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class DenseNet(nn.Sequential):
    """Two dense blocks of three layers, growth 8, with bottlenecks (Huang et al., 2017)."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 16, 3, 2),
            DenseBlock(16, 8, 3),
            conv(40, 20, 1),
            nn.AvgPool2d(2),
            DenseBlock(20, 8, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(44, CLASSES),
        )


class SplitBlock(nn.Module):
    """One half of the channels goes on, the other through a residual first; all three are joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = conv(channels, channels, 1)
        self.inner = nn.Sequential(conv(half, half, 3), conv(half, half, 3))
        self.last = conv(3 * half, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = self.first(x).chunk(2, 1)
        y: torch.Tensor = self.last(torch.cat([kept, changed, changed + self.inner(changed)], 1))
        return y


class CspNet(nn.Sequential):
    """Cross-stage partial blocks (Wang et al., 2020), as the backbones of YOLO detectors have them."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 16, 3, 2),
            SplitBlock(16),
            conv(16, 32, 3, 2),
            SplitBlock(32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, CLASSES),
        )
