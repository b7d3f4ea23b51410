"""The example network: a small depthwise-separable CNN for 28x28 grey images.

The block is MobileNet's (Howard et al., 2017, section 3.1): a 3x3 depthwise convolution and a 1x1
convolution, each with batch normalisation and ReLU. 20,314 parameters once the normalisation is folded,
1.9 million MACs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from torch import nn

__all__ = ["INPUT_SHAPE", "build"]

INPUT_SHAPE: Final = (1, 1, 28, 28)
"""(N, C, H, W), float32, pixel / 255."""

STEM_CHANNELS: Final = 16
# (output channels, stride of the depthwise convolution): 28x28 becomes 14x14, then 7x7.
BLOCKS: Final = ((32, 2), (48, 1), (64, 1), (80, 2), (80, 1))


def _separable(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=False),
            depthwise_norm=nn.BatchNorm2d(channels_in),
            depthwise_relu=nn.ReLU(),
            pointwise=nn.Conv2d(channels_in, channels_out, 1, bias=False),
            pointwise_norm=nn.BatchNorm2d(channels_out),
            pointwise_relu=nn.ReLU(),
        )
    )


def build(classes: int = 10) -> nn.Module:
    """The untrained network: (N, 1, 28, 28) float32 to logits (N, classes) float32."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Conv2d(1, STEM_CHANNELS, 3, 1, 1, bias=False),
        stem_norm=nn.BatchNorm2d(STEM_CHANNELS),
        stem_relu=nn.ReLU(),
    )
    channels = STEM_CHANNELS
    for number, (channels_out, stride) in enumerate(BLOCKS, start=1):
        layers[f"block{number}"] = _separable(channels, channels_out, stride)
        channels = channels_out
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)
