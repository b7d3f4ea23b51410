"""Trains the example network and writes everything this folder ships.

    python train.py            about 10 minutes on one core; the files are written beside this script

The best epoch is chosen on 5,000 images held out of the training set; the test set is looked at once, at
the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dataset import Dataset, Images, Labels, load, save_npz
from model import INPUT_SHAPE, build
from safetensors.torch import save
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["VALIDATION_IMAGES", "Settings", "accuracy", "augment", "split", "train"]

HERE = Path(__file__).resolve().parent
CALIBRATION_IMAGES = 200
VALIDATION_IMAGES = 5000
SAMPLE_IMAGES = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the result, besides the data."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    validation: int


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of the training set: `fit` trains, `select` chooses the epoch."""

    fit: torch.Tensor
    select: torch.Tensor


def split(count: int, validation: int, seed: int) -> Split:
    """Rows to train on and rows to choose the epoch by."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    validation = min(validation, count // 5)
    return Split(fit=order[validation:], select=order[:validation])


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrors half of the images and shifts the batch by up to two pixels. (N, 1, H, W) to the same."""
    mirror = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirror, x.flip(-1), x)
    down, right = (int(v) for v in torch.randint(0, 5, (2,), generator=generator))
    height, width = x.shape[-2:]
    return functional.pad(x, (2, 2, 2, 2))[..., down : down + height, right : right + width]


@torch.no_grad()
def accuracy(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of rows whose largest logit is the label's."""
    network.eval()
    batches = zip(torch.split(x, 500), torch.split(y, 500), strict=True)
    return sum(int((network(images).argmax(1) == labels).sum().item()) for images, labels in batches) / len(y)


def train(x: torch.Tensor, y: torch.Tensor, settings: Settings, *, mirror: bool) -> tuple[nn.Module, float]:
    """The network of the best epoch, in eval mode, and its accuracy on the held-out rows."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    parts = split(len(y), settings.validation, settings.seed)
    network = build()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=1e-3)
    steps = -(-len(parts.fit) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.2
    )
    best, best_state = -1.0, copy.deepcopy(network.state_dict())
    for epoch in range(1, settings.epochs + 1):
        started = time.monotonic()
        network.train()
        loss_sum = 0.0
        order = parts.fit[torch.randperm(len(parts.fit), generator=generator)]
        for rows in torch.split(order, settings.batch):
            images = augment(x[rows], generator) if mirror else x[rows]
            loss = functional.cross_entropy(network(images), y[rows], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(rows)
        selected = accuracy(network, x[parts.select], y[parts.select])
        seconds = time.monotonic() - started
        print(
            f"epoch {epoch:2d}/{settings.epochs}  loss {loss_sum / len(order):.4f}  "
            f"validation accuracy {selected:.4f}  {seconds:.0f} s",
            flush=True,
        )
        if selected > best:
            best, best_state = selected, copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return network.eval(), best


def _fold(network: nn.Module) -> nn.Module:
    """The same function with every normalisation folded into the convolution before it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for path, layer in network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            name, convolution = layers.popitem()
            assert isinstance(convolution, nn.Conv2d)
            layers[name] = fuse_conv_bn_eval(convolution, layer)
        elif not isinstance(layer, nn.Sequential):
            layers[path.replace(".", "_")] = layer
    return nn.Sequential(layers).eval()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def export(network: nn.Module, directory: Path) -> None:
    """Writes `model.onnx` (float32, opset 17, static shape, BN folded) and `model.safetensors` (BN apart)."""
    temporary = directory / "model.onnx.tmp"
    with warnings.catch_warnings():
        # The TorchScript exporter is the one that needs no further package; torch announces its successor.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        torch.onnx.export(
            _fold(network),
            (torch.zeros(INPUT_SHAPE),),
            str(temporary),
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamo=False,
        )
    _write(directory / "model.onnx", temporary.read_bytes())
    temporary.unlink(missing_ok=True)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    _write(directory / "model.safetensors", save(state))


def _balanced(labels: Labels, count: int, seed: int) -> list[int]:
    """`count` row numbers with as many of each class as possible, in a seeded order."""
    rng = np.random.default_rng(seed)
    queues = [list(rng.permutation(np.flatnonzero(labels == label))) for label in np.unique(labels)]
    picked: list[int] = []
    while len(picked) < count and any(queues):
        picked += [int(queue.pop()) for queue in queues if queue]
    return picked[:count]


def write_samples(dataset: Dataset, fit: torch.Tensor, directory: Path, seed: int) -> None:
    """`calibration.npz` from rows that trained the network, `sample.npz` from the test set."""
    x_fit: Images = dataset.x_train[fit.numpy()]
    y_fit: Labels = dataset.y_train[fit.numpy()]
    rows = _balanced(y_fit, CALIBRATION_IMAGES, seed)
    save_npz(directory / "calibration.npz", x_fit[rows], y_fit[rows], dataset.classes)
    rows = _balanced(dataset.y_test, SAMPLE_IMAGES, seed)
    save_npz(directory / "sample.npz", dataset.x_test[rows], dataset.y_test[rows], dataset.classes)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the example network and write its files.")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for the files (default: this one)")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=None, help="train on the first ROWS images only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    arguments.output.mkdir(parents=True, exist_ok=True)

    dataset = load()
    x = torch.from_numpy(dataset.x_train[: arguments.rows])
    y = torch.from_numpy(dataset.y_train[: arguments.rows])
    settings = Settings(
        arguments.epochs, arguments.batch, arguments.learning_rate, arguments.seed, VALIDATION_IMAGES
    )
    print(f"{dataset.name}: {len(y)} training images, {len(dataset.y_test)} test images", flush=True)
    started = time.monotonic()
    # A mirrored digit is another character.
    network, validation = train(x, y, settings, mirror=dataset.name == "Fashion-MNIST")
    test = accuracy(network, torch.from_numpy(dataset.x_test), torch.from_numpy(dataset.y_test))
    export(network, arguments.output)
    write_samples(
        dataset, split(len(y), settings.validation, settings.seed).fit, arguments.output, settings.seed
    )
    summary = {
        "data": dataset.name,
        "torch": torch.__version__,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "parameters": sum(p.numel() for p in _fold(network).parameters()),
        "validation_accuracy": round(validation, 4),
        "test_accuracy": round(test, 4),
    }
    _write(arguments.output / "training.json", (json.dumps(summary, indent=2) + "\n").encode())
    print(
        f"validation accuracy {validation:.4f}, test accuracy {test:.4f}, {time.monotonic() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
