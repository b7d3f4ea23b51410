"""A small CNN with an operator of each kind, for comparing front ends on Fashion-MNIST.

Convolutions plain, depthwise and grouped, with batch normalisations; a residual sum, a join, maximum and
global average pooling, hard-swish and a linear layer. 19,658 parameters.

    python -m benchmarks.mixed_cnn      trains it (minutes) and writes mixed_cnn.safetensors beside this file
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

__all__ = ["EXAMPLE", "INPUT_SHAPE", "MixedCnn", "trained"]

INPUT_SHAPE: Final = (1, 1, 28, 28)
WEIGHTS: Final = Path(__file__).resolve().with_suffix(".safetensors")
EXAMPLE: Final = Path(__file__).resolve().parents[1] / "examples" / "fashion_mnist"


def _unit(
    channels_in: int, channels_out: int, kernel: int, *, groups: int = 1, activation: nn.Module | None = None
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation]))


class MixedCnn(nn.Module):
    """(N, 1, 28, 28) float32 to logits (N, 10) float32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(1, 16, 3, activation=nn.Hardswish())
        self.depthwise = _unit(16, 16, 3, groups=16, activation=nn.ReLU())
        self.point = _unit(16, 16, 1)
        self.grouped = _unit(16, 32, 3, groups=4, activation=nn.Hardswish())
        self.wide = _unit(32, 48, 1, activation=nn.ReLU6())
        self.side = _unit(32, 16, 3, groups=4, activation=nn.ReLU())
        self.last = _unit(64, 96, 3, groups=4, activation=nn.Hardswish())
        self.classifier = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(self.stem(image), 2)
        x = functional.relu(x + self.point(self.depthwise(x)))
        x = functional.max_pool2d(self.grouped(x), 2)
        x = self.last(torch.cat([self.wide(x), self.side(x)], 1))
        logits: torch.Tensor = self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def trained() -> MixedCnn:
    """The network with the weights beside this file, in evaluation mode."""
    network = MixedCnn()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the network that the front ends are compared on.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rows", type=int, default=None, help="train on the first ROWS images only")
    arguments = parser.parse_args()
    sys.path.insert(0, str(EXAMPLE))
    from dataset import load
    from train import accuracy

    torch.manual_seed(0)
    torch.set_num_threads(1)
    dataset = load()
    x, y = (torch.from_numpy(part[: arguments.rows]) for part in (dataset.x_train, dataset.y_train))
    network = MixedCnn().train()
    steps = arguments.epochs * -(-len(y) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps, pct_start=0.2)
    for epoch in range(1, arguments.epochs + 1):
        started = time.monotonic()
        network.train()
        for rows in torch.split(torch.randperm(len(y)), 128):
            loss = functional.cross_entropy(network(x[rows]), y[rows], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}/{arguments.epochs}  {time.monotonic() - started:.0f} s", flush=True)
    found = accuracy(network, torch.from_numpy(dataset.x_test), torch.from_numpy(dataset.y_test))
    print(f"test accuracy {found:.4f}")
    with tempfile.TemporaryDirectory(dir=WEIGHTS.parent) as folder:
        written = Path(folder) / WEIGHTS.name
        save_file(network.state_dict(), written)
        os.replace(written, WEIGHTS)  # noqa: PTH105
    return 0


if __name__ == "__main__":
    sys.exit(main())
