"""Networks made for small machines: depthwise convolutions, inverted residuals, squeeze and excitation."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["EfficientNetB0", "McuNet", "MobileNetV1", "MobileNetV2", "MobileNetV3Small", "ShuffleNetV2"]

CLASSES = 10


def conv(
    channels: int,
    filters: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution, batch normalisation, activation."""
    parts: list[nn.Module] = [
        nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters),
    ]
    return nn.Sequential(*parts, *([] if activation is None else [activation()]))


class MobileNetV1(nn.Sequential):
    """Depthwise separable convolutions (Howard et al., 2017), width 0.25."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [conv(3, 8, 3, 2, activation=nn.ReLU6)]
        for channels, filters, stride in ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 128, 2)):
            layers += [
                conv(channels, channels, 3, stride, channels, nn.ReLU6),
                conv(channels, filters, 1, activation=nn.ReLU6),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES))


class SqueezeExcite(nn.Module):
    """Channels weighted by what all of them average to (Hu et al., 2018)."""

    def __init__(self, channels: int, squeezed: int, inner: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.inner = inner()
        self.excite = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale: torch.Tensor = self.gate(self.excite(self.inner(self.squeeze(self.pool(x)))))
        return x * scale


class InvertedResidual(nn.Module):
    """Expand, depthwise, perhaps squeeze and excite, project; a residual where shapes allow it."""

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: int,
        stride: int,
        expansion: int,
        activation: type[nn.Module],
        excite: SqueezeExcite | None = None,
    ) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv(channels, hidden, 1, activation=activation))
        layers.append(conv(hidden, hidden, kernel, stride, hidden, activation))
        if excite is not None:
            layers.append(excite)
        layers.append(conv(hidden, filters, 1, activation=None))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == filters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Sequential):
    """Inverted residuals with linear bottlenecks (Sandler et al., 2018)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [conv(3, 8, 3, 2, activation=nn.ReLU6)]
        for channels, filters, stride, expansion in (
            (8, 8, 1, 1), (8, 8, 2, 6), (8, 8, 1, 6), (8, 16, 2, 6), (16, 16, 1, 6), (16, 24, 1, 6),
        ):  # fmt: skip
            layers.append(InvertedResidual(channels, filters, 3, stride, expansion, nn.ReLU6))
        layers.append(conv(24, 64, 1, activation=nn.ReLU6))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


class MobileNetV3Small(nn.Sequential):
    """Hard-swish, squeeze and excitation with hard-sigmoid, kernels of 3 and 5 (Howard et al., 2019)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [conv(3, 16, 3, 2, activation=nn.Hardswish)]
        for channels, filters, kernel, stride, expansion, excited, activation in (
            (16, 16, 3, 2, 1, True, nn.ReLU),
            (16, 24, 3, 1, 4, False, nn.ReLU),
            (24, 24, 3, 1, 4, False, nn.ReLU),
            (24, 32, 5, 2, 4, True, nn.Hardswish),
            (32, 32, 5, 1, 4, True, nn.Hardswish),
        ):
            hidden = channels * expansion
            excite = SqueezeExcite(hidden, max(8, hidden // 4), nn.ReLU, nn.Hardsigmoid) if excited else None
            layers.append(InvertedResidual(channels, filters, kernel, stride, expansion, activation, excite))
        super().__init__(
            *layers,
            conv(32, 96, 1, activation=nn.Hardswish),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, 64),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(64, CLASSES),
        )


class EfficientNetB0(nn.Sequential):
    """Inverted residuals with SiLU and squeeze and excitation (Tan and Le, 2019)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [conv(3, 8, 3, 2, activation=nn.SiLU)]
        for channels, filters, kernel, stride, expansion in (
            (8, 8, 3, 1, 1), (8, 12, 3, 2, 6), (12, 12, 3, 1, 6), (12, 20, 5, 2, 6), (20, 20, 5, 1, 6),
        ):  # fmt: skip
            excite = SqueezeExcite(channels * expansion, max(4, channels // 4), nn.SiLU, nn.Sigmoid)
            layers.append(InvertedResidual(channels, filters, kernel, stride, expansion, nn.SiLU, excite))
        super().__init__(
            *layers,
            conv(20, 80, 1, activation=nn.SiLU),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(80, CLASSES),
        )


class McuNet(nn.Sequential):
    """Inverted residuals of mixed kernels and expansions, as MCUNet's search finds (Lin et al., 2020)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [conv(3, 8, 3, 2, activation=nn.ReLU6)]
        for channels, filters, kernel, stride, expansion in (
            (8, 8, 3, 1, 1), (8, 12, 7, 2, 3), (12, 12, 3, 1, 4), (12, 20, 7, 2, 5), (20, 20, 5, 1, 4),
            (20, 32, 5, 1, 6),
        ):  # fmt: skip
            layers.append(InvertedResidual(channels, filters, kernel, stride, expansion, nn.ReLU6))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Channels of all groups in turn."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class ShuffleUnit(nn.Module):
    """One half of the channels passes; at a stride of 2 both halves are computed from all of them."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        half = filters // 2
        self.stride = stride
        source = channels if stride == 2 else half
        self.right = nn.Sequential(
            conv(source, half, 1), conv(half, half, 3, stride, half, None), conv(half, half, 1)
        )
        self.left = nn.Sequential(
            *(
                [conv(channels, channels, 3, 2, channels, None), conv(channels, half, 1)]
                if stride == 2
                else []
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = (x, x) if self.stride == 2 else x.chunk(2, 1)
        return shuffled(torch.cat([self.left(left), self.right(right)], 1), 2)


class ShuffleNetV2(nn.Sequential):
    """Channel split and channel shuffle (Ma et al., 2018)."""

    def __init__(self) -> None:
        super().__init__(
            conv(3, 12, 3, 2),
            nn.MaxPool2d(3, 2, 1),
            ShuffleUnit(12, 24, 2),
            ShuffleUnit(24, 24, 1),
            ShuffleUnit(24, 48, 2),
            ShuffleUnit(48, 48, 1),
            conv(48, 96, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, CLASSES),
        )
