"""Architectures as this project defines them: every kind of block of the original, few of each, small inputs.

Weights are random; statistics of batch normalisations are of random rows, so that activations are sensible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.networks.dense_outputs import ConvAutoencoder, DenseAutoencoder, ResizeUNet, TransposedUNet
from benchmarks.networks.images import CspNet, DenseNet, Inception, ResNet, SqueezeNet
from benchmarks.networks.mobile import (
    EfficientNetB0,
    McuNet,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3Small,
    ShuffleNetV2,
)
from benchmarks.networks.sequences import Cnn1d, Gru, Lstm, TransformerEncoder

__all__ = ["ARCHITECTURES", "Architecture", "build", "rows"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network and what it takes."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of the one input, float32, batch 1."""


_IMAGE = (1, 3, 32, 32)

ARCHITECTURES: Mapping[str, Architecture] = {
    "mobilenet_v1": Architecture(MobileNetV1, _IMAGE),
    "mobilenet_v2": Architecture(MobileNetV2, _IMAGE),
    "mobilenet_v3_small": Architecture(MobileNetV3Small, _IMAGE),
    "shufflenet_v2": Architecture(ShuffleNetV2, _IMAGE),
    "squeezenet": Architecture(SqueezeNet, _IMAGE),
    "inception": Architecture(Inception, _IMAGE),
    "densenet": Architecture(DenseNet, _IMAGE),
    "cspnet": Architecture(CspNet, _IMAGE),
    "resnet18": Architecture(ResNet, _IMAGE),
    "efficientnet_b0": Architecture(EfficientNetB0, _IMAGE),
    "mcunet": Architecture(McuNet, _IMAGE),
    "cnn_1d": Architecture(Cnn1d, (1, 4, 64)),
    "gru": Architecture(Gru, (1, 10, 8)),
    "lstm": Architecture(Lstm, (1, 10, 8)),
    "transformer": Architecture(TransformerEncoder, (1, 12, 16)),
    "dense_autoencoder": Architecture(DenseAutoencoder, (1, 64)),
    "conv_autoencoder": Architecture(ConvAutoencoder, (1, 1, 16, 16)),
    "unet_transposed": Architecture(TransposedUNet, (1, 3, 16, 16)),
    "unet_resized": Architecture(ResizeUNet, (1, 3, 16, 16)),
}


def rows(architecture: Architecture, count: int, seed: int = 1) -> NDArray[np.float32]:
    """Seeded normal values (count, 1, …), each row with a scale and an offset of its own, as data have."""
    rng = np.random.default_rng(seed)
    shape = (count, *architecture.shape)
    each = (count, *(1 for _ in architecture.shape))
    values = rng.normal(size=shape) * rng.uniform(0.5, 1.5, each) + rng.normal(0, 0.3, each)
    return values.astype(np.float32)


def build(architecture: Architecture, seed: int = 0) -> nn.Module:
    """The network in evaluation mode. The same seed gives the same weights."""
    torch.manual_seed(seed)
    network = architecture.make()
    for part in network.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
        elif isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.momentum = None  # the mean over all batches
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    network.train()
    batches = torch.from_numpy(rows(architecture, 64, seed=2)).flatten(0, 1)
    with torch.no_grad():
        for batch in batches.split(16):
            network(batch)
    return network.eval()
