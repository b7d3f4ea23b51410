"""The DS-CNN of MLPerf Tiny's keyword spotting benchmark, in torch.

Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", 2017, in the size that the benchmark takes
(Banbury et al., "MLPerf Tiny Benchmark", 2021): a 10x4 convolution and four depthwise-separable blocks of 64
channels. Batch normalisation is folded, as it is in the benchmark's file: 22,604 parameters, 2.7 million
MACs.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from torch import nn

__all__ = ["BLOCKS", "CLASSES", "INPUT_SHAPE", "build"]

INPUT_SHAPE: Final = (1, 1, 49, 10)
"""(N, C, frames, coefficients), float32: MFCCs as the benchmark computes them."""

CLASSES: Final = 12
CHANNELS: Final = 64
BLOCKS: Final = 4

# TensorFlow's SAME for a 10x4 window of stride 2 over 49x10: 9 rows, of which 5 below, and 2 columns.
STEM_PADDING: Final = (1, 1, 4, 5)
FRAMES: Final = 25
COLUMNS: Final = 5


def _block() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
            depthwise_relu=nn.ReLU(),
            pointwise=nn.Conv2d(CHANNELS, CHANNELS, 1),
            pointwise_relu=nn.ReLU(),
        )
    )


def build() -> nn.Module:
    """The network without its weights: (N, 1, 49, 10) float32 to logits (N, 12) float32.

    `import_weights.py` takes the weights from the benchmark's file.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        pad=nn.ZeroPad2d(STEM_PADDING),
        stem=nn.Conv2d(1, CHANNELS, (10, 4), stride=2),
        stem_relu=nn.ReLU(),
    )
    for number in range(1, BLOCKS + 1):
        layers[f"block{number}"] = _block()
    layers["pool"] = nn.AvgPool2d((FRAMES, COLUMNS))
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(CHANNELS, CLASSES)
    return nn.Sequential(layers)
