"""The one training loop: fine-tuning with labels, by distillation, or both; resumable at every epoch.

The order of rows, augmentation and dropout of an epoch follow from the seed and the epoch's number alone, so
that a training that was interrupted and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.compress.losses import Loss, loss_function
from edgekit.compress.modules import channels_last, evaluation_mode
from edgekit.errors import UsageError
from edgekit.fsutil import atomic_write

__all__ = [
    "DEFAULT_TRAINING",
    "Augment",
    "Epoch",
    "Labelled",
    "Training",
    "TrainingRun",
    "accumulate_gradients",
    "accuracy",
    "train",
]

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""augment(inputs (N, …), generator) -> inputs of the same shape; all chance comes from the generator."""

EVALUATION_BATCH = 512


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Rows of one input, (N, …) float32, and their class indices (N,), or None where there are none."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a module is trained. `loss` "labels" needs labels, "distillation" and "both" need a teacher."""

    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    """Of sgd."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    loss: Literal["labels", "distillation", "both"] = "labels"
    temperature: float = 4.0
    label_weight: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0")
        for name in ("warmup", "label_weight", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is between 0 and 1")


DEFAULT_TRAINING = Training()


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to. `seconds` is the time that it took, `left` an estimate of what remains."""

    number: int
    epochs: int
    loss: float
    accuracy: float | None
    """On the validation rows, None where they have no labels."""
    seconds: float
    left: float

    @property
    def summary(self) -> str:
        """Accuracy, or the loss where there are no labels, and the seconds that remain."""
        score = f"loss {self.loss:.4f}" if self.accuracy is None else f"accuracy {self.accuracy:.4f}"
        return f"{score}, about {self.left:.0f} s left"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Where a training keeps its state, and who hears of it.

    `checkpoint` is written after every epoch and taken up again where it is there;
    `before_step(module, step, steps)` and `after_step(module)` serve methods that act while it trains.
    """

    checkpoint: Path | None = None
    advanced: Callable[[Epoch], None] = lambda epoch: None
    before_step: Callable[[nn.Module, int, int], None] = lambda module, step, steps: None
    after_step: Callable[[nn.Module], None] = lambda module: None
    augment: Augment | None = None
    set_training: Callable[[nn.Module, bool], object] = lambda module, training: module.train(training)
    """How the module's mode is set; a graph that was captured has its own way."""


def train(
    module: nn.Module,
    config: Training,
    rows: Labelled,
    validation: Labelled | None,
    *,
    teacher: nn.Module | None = None,
    run: TrainingRun | None = None,
) -> tuple[Epoch, ...]:
    """Train a module in place; returns its epochs, those before an interruption included.

    Args:
        module: takes (N, …) and returns logits (N, C).
        rows: what it learns from.
        validation: rows whose accuracy is reported after each epoch; nothing is chosen by it here.
        teacher: the module whose answers are distilled; it is not changed.

    Raises:
        UsageError: labels or a teacher are missing, or there are fewer rows than two.
    """
    run = run or TrainingRun()
    if config.loss != "distillation" and rows.y is None:
        raise UsageError(
            f"a loss of {config.loss} needs labels, and the rows have none",
            hint='give y with the data, or set loss = "distillation"',
        )
    if config.loss != "labels" and teacher is None:
        raise UsageError(f"a loss of {config.loss} needs a teacher")
    if len(rows) < 2:
        raise UsageError(f"{len(rows)} row(s) are too few to train on")
    if teacher is not None:
        teacher.eval()
    loss = loss_function(
        config.loss, teacher=teacher, temperature=config.temperature, label_weight=config.label_weight
    )
    batch = torch.from_numpy(rows.x[: min(len(rows), config.batch_size)])
    with channels_last(batch, module, *([] if teacher is None else [teacher])) as layout:
        epochs = _train(module, config, rows, validation, loss, layout, run)
    run.set_training(module, False)
    return tuple(epochs)


def _train(
    module: nn.Module,
    config: Training,
    rows: Labelled,
    validation: Labelled | None,
    loss: Loss,
    layout: torch.memory_format,
    run: TrainingRun,
) -> list[Epoch]:
    batches = -(-len(rows) // config.batch_size)
    optimizer = _optimizer(module, config)
    schedule = _schedule(optimizer, config, batches * config.epochs)
    epochs = _resume(run, module, optimizer, schedule)
    resumed, began = len(epochs), time.monotonic()
    for number in range(len(epochs), config.epochs):
        started = time.monotonic()
        mean_loss = _epoch(module, config, rows, number, batches, loss, layout, optimizer, schedule, run)
        run.set_training(module, False)
        score = None if validation is None or validation.y is None else accuracy(module, validation)
        fresh = number + 1 - resumed
        left = (time.monotonic() - began) / fresh * (config.epochs - number - 1)
        epoch = Epoch(number + 1, config.epochs, mean_loss, score, time.monotonic() - started, left)
        epochs.append(epoch)
        _save(run, module, optimizer, schedule, epochs)
        run.advanced(epoch)
    return epochs


def accuracy(module: nn.Module, rows: Labelled, *, batch: int = EVALUATION_BATCH) -> float:
    """Share of the rows whose largest logit is at their class. The module's mode is left as it is.

    Raises:
        UsageError: the rows have no labels.
    """
    if rows.y is None:
        raise UsageError("an accuracy needs labels, and the rows have none")
    right = 0
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            logits = module(torch.from_numpy(rows.x[start : start + batch]))
            labels = torch.from_numpy(rows.y[start : start + batch])
            right += int((logits.argmax(dim=-1) == labels).sum())
    return right / len(rows)


def accumulate_gradients(
    module: nn.Module, rows: Labelled, *, teacher: nn.Module | None = None, batch_size: int = 128
) -> None:
    """Leave the gradients of the mean loss over the rows in the parameters, for `taylor` importance.

    The loss is that of the labels, or without them of the classes that `teacher` answers: the distance to
    its answers has no gradient where the module is the teacher itself.

    Raises:
        UsageError: neither labels nor a teacher.
    """
    if rows.y is None and teacher is None:
        raise UsageError("gradients need labels or a teacher")
    loss = loss_function("labels", teacher=None, temperature=1.0, label_weight=1.0)
    module.zero_grad(set_to_none=True)
    with evaluation_mode(module):
        for start in range(0, len(rows), batch_size):
            inputs = torch.from_numpy(rows.x[start : start + batch_size])
            if rows.y is not None:
                labels = torch.from_numpy(rows.y[start : start + batch_size])
            else:
                assert teacher is not None
                with torch.no_grad():
                    labels = teacher(inputs).argmax(dim=-1)
            value = loss(inputs, module(inputs), labels) * (len(inputs) / len(rows))
            value.backward()


def _epoch(
    module: nn.Module,
    config: Training,
    rows: Labelled,
    number: int,
    batches: int,
    loss: Loss,
    layout: torch.memory_format,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    run: TrainingRun,
) -> float:
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
    torch.manual_seed(config.seed * 1_000_003 + number)
    order = torch.randperm(len(rows), generator=generator).numpy()
    run.set_training(module, True)
    total, seen = 0.0, 0
    for position in range(batches):
        chosen = order[position * config.batch_size : (position + 1) * config.batch_size]
        if len(chosen) < 2:
            schedule.step()
            continue  # batch normalisation has no variance over a single row
        inputs = torch.from_numpy(rows.x[chosen])
        labels = None if rows.y is None else torch.from_numpy(rows.y[chosen])
        if run.augment is not None:
            inputs = run.augment(inputs, generator)
        inputs = inputs.contiguous(memory_format=layout)
        run.before_step(module, number * batches + position, batches * config.epochs)
        optimizer.zero_grad(set_to_none=True)
        value = loss(inputs, module(inputs), labels)
        value.backward()
        optimizer.step()
        schedule.step()
        run.after_step(module)
        total += float(value.detach()) * len(chosen)
        seen += len(chosen)
    return total / seen


def _optimizer(module: nn.Module, config: Training) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def _schedule(
    optimizer: torch.optim.Optimizer, config: Training, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    rising = max(1, int(config.warmup * steps))

    def factor(step: int) -> float:
        if step < rising and config.warmup > 0:
            return (step + 1) / rising
        if config.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + float(np.cos(np.pi * (step - rising) / max(1, steps - rising))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _save(
    run: TrainingRun,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    epochs: Sequence[Epoch],
) -> None:
    if run.checkpoint is None:
        return
    buffer = io.BytesIO()
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "epochs": [asdict(epoch) for epoch in epochs],
    }
    torch.save(state, buffer)
    atomic_write(run.checkpoint, buffer.getvalue())


def _resume(
    run: TrainingRun,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> list[Epoch]:
    """Take up the checkpoint, where there is one; a damaged one is an error, not a fresh start."""
    if run.checkpoint is None or not run.checkpoint.exists():
        return []
    try:
        # weights_only: tensors and plain values; nothing in the file can run.
        state: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        return [Epoch(**epoch) for epoch in state["epochs"]]
    except Exception as error:
        raise UsageError(
            f"the checkpoint {run.checkpoint} can't be taken up: {type(error).__name__}",
            hint="remove it to train from the start",
        ) from error
