"""Trains the example for its integers: int8 after training, and quantisation-aware training, against float.

    python qat.py                      2 epochs, 6 minutes on one core
    python qat.py --board mps2-an386   and some of the answers on a board

Prints the accuracy on all test images of the float network, of int8 after training (PTQ), and of int8 after
quantisation-aware training (QAT) at its three stages: as trained, as converted, as deployed on this machine.
Exit code 1 when QAT loses more than 0.2 points or conversion changes more than 0.1.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from dataset import Dataset, load, save_npz
from model import INPUT_SHAPE, build
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from train import accuracy, augment

import edgekit
from edgekit import Deployment, ImportOptions

__all__ = ["Agreement", "agreement", "train_quantized"]

HERE: Final = Path(__file__).resolve().parent
MAX_LOSS_POINTS: Final = 0.2
MAX_CONVERSION_POINTS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two sets of logits: the share of values within one step, and of rows with the same largest one."""

    within_one_step: float
    same_answer: float


def agreement(one: np.ndarray, other: np.ndarray, step: float) -> Agreement:
    """Compare reals (N, classes); `step` is what one count of the stored integers is worth."""
    close = np.abs(one - other) <= 1.001 * step
    return Agreement(float(close.mean()), float((one.argmax(1) == other.argmax(1)).mean()))


def train_quantized(
    prepared: nn.Module, dataset: Dataset, *, epochs: int, batch: int, learning_rate: float, rows: int | None
) -> None:
    """Train on `rows` images, or on all; ranges of activations stay as they are in the last epoch's half."""
    x, y = (torch.from_numpy(part[:rows]) for part in (dataset.x_train, dataset.y_train))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=learning_rate, weight_decay=1e-4)
    steps = epochs * -(-len(y) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    done = 0
    for epoch in range(1, epochs + 1):
        started = time.monotonic()
        prepared.train()
        loss_sum = 0.0
        for chosen in torch.split(torch.randperm(len(y), generator=generator), batch):
            images = augment(x[chosen], generator) if dataset.name == "Fashion-MNIST" else x[chosen]
            loss = functional.cross_entropy(prepared(images), y[chosen], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += loss.item() * len(chosen)
            done += 1
            if done == steps * 3 // 4:
                edgekit.freeze_qat(prepared)
        seconds = time.monotonic() - started
        print(f"epoch {epoch}/{epochs}  loss {loss_sum / len(y):.4f}  {seconds:.0f} s", flush=True)


def _deployed(model: edgekit.Model, data: Path, build: Path, target: str, samples: int | None) -> Deployment:
    return edgekit.deploy(
        model,
        target=target,
        data=data,
        samples=samples,
        directory=build / f"{model.name}-{target}",
        check=False,
    )


@torch.no_grad()
def _logits(network: nn.Module, x: torch.Tensor) -> np.ndarray:
    found: np.ndarray = torch.cat([network(images) for images in torch.split(x, 500)]).numpy()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="int8 after training and trained for int8, against float.")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--rows", type=int, default=None, help="train on the first ROWS images only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--board", metavar="TARGET", help="also run sample.npz on this target")
    parser.add_argument(
        "--samples", type=int, help="rows of sample.npz to run on the board (default: all 256)"
    )
    parser.add_argument("--build", type=Path, default=HERE / "build", help="folder for what is built")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    dataset = load()
    test = arguments.build / "test.npz"
    save_npz(test, dataset.x_test, dataset.y_test, dataset.classes)
    x, y = torch.from_numpy(dataset.x_test), torch.from_numpy(dataset.y_test)
    network = build()
    network.load_state_dict(load_file(HERE / "model.safetensors"))
    exact = accuracy(network, x, y)
    print(f"float32           {exact:.4f}  ({len(y)} test images of {dataset.name}, torch)", flush=True)

    example = (torch.zeros(INPUT_SHAPE),)
    calibration = np.load(HERE / "calibration.npz")["x"]
    ptq = edgekit.load_torch(network, example, [calibration], ImportOptions(name="fashion_mnist_ptq"))
    after = _deployed(ptq, test, arguments.build, "host", None)
    assert after.accuracy is not None
    print(f"int8 PTQ          {after.accuracy.value:.4f}  (edgekit on this machine)", flush=True)

    prepared = edgekit.prepare_qat(network, example)
    train_quantized(
        prepared,
        dataset,
        epochs=arguments.epochs,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        rows=arguments.rows,
    )
    trained = accuracy(prepared, x, y)
    print(f"int8 QAT trained  {trained:.4f}  (torch, fake quantisation)", flush=True)
    converted = edgekit.convert_qat(prepared)
    logits = _logits(converted, x)
    kept = float((logits.argmax(1) == dataset.y_test).mean())
    print(f"int8 QAT converted {kept:.4f} (torch, int8 weights)", flush=True)
    model = edgekit.load_torch(converted, example, options=ImportOptions(name="fashion_mnist_qat"))
    deployment = _deployed(model, test, arguments.build, "host", None)
    assert deployment.accuracy is not None
    print(f"int8 QAT deployed {deployment.accuracy.value:.4f}  (edgekit on this machine)", flush=True)

    output = deployment.compiled.outputs[0]
    assert output.quantization is not None
    (stored,) = edgekit.run_bundle(deployment.image.directory, [dataset.x_test])
    scale, zero_point = output.quantization.scale, output.quantization.zero_point
    found = agreement((stored.reshape(logits.shape) - float(zero_point)) * scale, logits, scale)
    print(
        f"torch and the program agree within one step on {found.within_one_step:.2%} of the values, "
        f"in the answer on {found.same_answer:.2%} of the images",
        flush=True,
    )
    passed = (
        100 * (exact - deployment.accuracy.value) <= MAX_LOSS_POINTS
        and 100 * abs(trained - kept) <= MAX_CONVERSION_POINTS
    )
    if arguments.board is not None:
        on_board = _deployed(model, HERE / "sample.npz", arguments.build, arguments.board, arguments.samples)
        assert on_board.verification is not None
        exactly = on_board.verification.bit_exact
        answer = "equal the host's to the bit" if exactly else "DIFFER from the host's"
        print(f"{arguments.board}: the answers to {on_board.verification.samples} images {answer}")
        passed = passed and exactly
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
