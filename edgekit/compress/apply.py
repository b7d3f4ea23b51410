"""Applies a recipe's steps to a module, one after another, in a work folder that can be taken up again.

    work/
      step-1.json     channels that a pruning removed: a resumed run removes the same ones
      step-2.pt       state of a training after its last whole epoch
      metrics.jsonl   a line an epoch

Nothing here knows how a quantised module is made: the two functions that do are given by the caller.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from edgekit.compress.channels import (
    ChannelPruning,
    channel_groups,
    check_pruning,
    plan_channels,
    remove_channels,
)
from edgekit.compress.modules import evaluation_mode, parameter_count
from edgekit.compress.recipe import FineTuning, Method, Quantization, Recipe
from edgekit.compress.sparsity import (
    MagnitudePruning,
    Masks,
    magnitude_masks,
    sparsity_at,
    sparsity_report,
)
from edgekit.compress.training import (
    Augment,
    Epoch,
    Labelled,
    Training,
    TrainingRun,
    accumulate_gradients,
    accuracy,
    train,
)
from edgekit.errors import UsageError
from edgekit.fsutil import atomic_write
from edgekit.text import printable

__all__ = ["Compressed", "Events", "Quantizers", "Rows", "StepReport", "apply_recipe", "check_recipe"]

Form = Literal["executed", "stored", "simulated"]
"""What becomes of a step's effect on a board: integer kernels run it, it only takes less storage, or it is
there on the host alone.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What the steps learn from, choose by and calibrate with; the test rows are nobody's business here."""

    train: Labelled
    validation: Labelled
    calibration: Labelled


@dataclass(frozen=True, slots=True)
class Quantizers:
    """How a module becomes one with integers, after training and while it trains, and how good it is then."""

    after_training: Callable[[nn.Module, Sequence[torch.Tensor], Labelled], nn.Module]
    """(module, example, calibration rows) -> a module with quantize and dequantize in its graph."""
    prepare: Callable[[nn.Module, Sequence[torch.Tensor]], nn.Module]
    """(module, example) -> a module that trains with the rounding of the deployed program."""
    convert: Callable[[nn.Module], nn.Module]
    """What `prepare` made, trained -> a module with quantize and dequantize in its graph."""
    accuracy: Callable[[nn.Module, Sequence[torch.Tensor], Labelled], float]
    """(module with quantize and dequantize, example, rows with labels) -> accuracy of its integers."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. Accuracies are on the validation rows, None where they have no labels."""

    number: int
    kind: str
    form: Form
    effect: str
    """One sentence for a person."""
    accuracy_before: float | None
    accuracy_after: float | None
    parameters_before: int
    parameters_after: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Events:
    """Who hears of the work while it goes on."""

    started: Callable[[int, Method], None] = lambda number, method: None
    epoch: Callable[[int, Epoch], None] = lambda number, epoch: None
    finished: Callable[[StepReport], None] = lambda report: None


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """The compressed module, quantised where the recipe says so, and what each step did."""

    module: nn.Module
    quantized: bool
    steps: tuple[StepReport, ...]


def check_recipe(module: nn.Module, recipe: Recipe, example: Sequence[torch.Tensor], rows: Rows) -> None:
    """Refuse what can't work before anything is trained.

    Raises:
        UsageError: a group that the module has not, labels that the rows have not, nothing to prune, or an
            importance that the module has not.
        ModelError: the module's channels can't be traced.
    """
    for number, method in enumerate(recipe.steps, start=1):
        where = f"step {number} of the recipe"
        if isinstance(method, ChannelPruning):
            try:
                check_pruning(module, method, example)
            except UsageError as error:
                raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
        elif isinstance(method, MagnitudePruning):
            magnitude_masks(module, method.sparsity, method.scope)
        training = _training_of(method)
        if training is not None and training.loss != "distillation" and rows.train.y is None:
            raise UsageError(
                f"{where} trains with labels, and the rows have none",
                hint='give y with the data, or set loss = "distillation"',
            )


def apply_recipe(
    module: nn.Module,
    recipe: Recipe,
    example: Sequence[torch.Tensor],
    rows: Rows,
    *,
    quantizers: Quantizers,
    work: Path,
    events: Events | None = None,
    augment: Augment | None = None,
) -> Compressed:
    """Apply all steps to a copy of the module. What an interrupted call left in `work` is taken up.

    Raises:
        UsageError: see `check_recipe`; or the work folder holds something else.
    """
    check_recipe(module, recipe, example, rows)
    events = events or Events()
    teacher = copy.deepcopy(module).eval()
    current = copy.deepcopy(module)
    state = _State(current, example, rows, teacher, work, events, augment, quantizers, _Metrics(work))
    reports = []
    for number, method in enumerate(recipe.steps, start=1):
        events.started(number, method)
        began = time.monotonic()
        before, parameters = state.accuracy(), parameter_count(state.module)
        form, effect = _apply(state, number, method)
        after = state.accuracy()
        report = StepReport(
            number=number,
            kind=method.kind,
            form=form,
            effect=effect,
            accuracy_before=before,
            accuracy_after=after,
            parameters_before=parameters,
            # A quantised module holds its weights as constants; their number is the same.
            parameters_after=parameters if state.quantized else parameter_count(state.module),
            seconds=time.monotonic() - began,
        )
        reports.append(report)
        events.finished(report)
    return Compressed(state.module, state.quantized, tuple(reports))


@dataclass(slots=True, eq=False)
class _State:
    module: nn.Module
    example: Sequence[torch.Tensor]
    rows: Rows
    teacher: nn.Module
    work: Path
    events: Events
    augment: Augment | None
    quantizers: Quantizers
    metrics: _Metrics
    masks: Masks | None = None
    growing: MagnitudePruning | None = None
    quantized: bool = False

    def accuracy(self) -> float | None:
        if self.rows.validation.y is None:
            return None
        if self.quantized:
            return self.quantizers.accuracy(self.module, self.example, self.rows.validation)
        with evaluation_mode(self.module):
            return accuracy(self.module, self.rows.validation)


def _apply(state: _State, number: int, method: Method) -> tuple[Form, str]:
    if isinstance(method, ChannelPruning):
        return _remove_channels(state, number, method)
    if isinstance(method, MagnitudePruning):
        return _prune_weights(state, method)
    if isinstance(method, FineTuning):
        return _fine_tune(state, number, method)
    return _quantize(state, number, method)


def _remove_channels(state: _State, number: int, method: ChannelPruning) -> tuple[Form, str]:
    record = state.work / f"step-{number}.json"
    if record.exists():
        plan = {
            str(name): [int(one) for one in gone] for name, gone in json.loads(record.read_text()).items()
        }
    else:
        if method.importance == "taylor":
            accumulate_gradients(state.module, state.rows.train, teacher=state.teacher)
        plan = {name: list(gone) for name, gone in plan_channels(state.module, method, state.example).items()}
        atomic_write(record, (json.dumps(plan) + "\n").encode())
    channels = sum(group.channels for group in channel_groups(state.module, state.example))
    for name, gone in plan.items():
        remove_channels(state.module, name, gone, state.example)
    removed = sum(len(gone) for gone in plan.values())
    return "executed", f"removed {removed} of {channels} channels by {method.importance} importance"


def _prune_weights(state: _State, method: MagnitudePruning) -> tuple[Form, str]:
    if method.schedule != "one_shot":
        state.growing = method
        return "stored", f"{method.sparsity:.0%} of the weights go {method.schedule} in the next step"
    state.masks = magnitude_masks(state.module, method.sparsity, method.scope, state.masks)
    state.masks.apply(state.module)
    return "stored", _sparsity_sentence(state.module)


def _sparsity_sentence(module: nn.Module) -> str:
    found = sparsity_report(module)
    return (
        f"{found.sparsity:.1%} of the weights zero: {found.compressed_bytes:,} of {found.dense_bytes:,} B "
        "compressed, no faster"
    )


def _fine_tune(state: _State, number: int, method: FineTuning) -> tuple[Form, str]:
    growing, state.growing = state.growing, None

    def before_step(module: nn.Module, step: int, steps: int) -> None:
        if growing is not None:
            sparsity = sparsity_at(growing, step, steps)
            state.masks = magnitude_masks(module, sparsity, growing.scope, state.masks)
            state.masks.apply(module)

    epochs = _train(state, number, state.module, method.training, before_step)
    if growing is not None:
        # A resumed training that was complete has no steps left in which its masks could be made.
        state.masks = magnitude_masks(state.module, growing.sparsity, growing.scope, state.masks)
        state.masks.apply(state.module)
        return "stored", _sparsity_sentence(state.module)
    return "executed", f"trained {len(epochs)} epoch(s) with {_LOSSES[method.training.loss]}"


_LOSSES = {
    "labels": "labels",
    "distillation": "the uncompressed model's answers",
    "both": "labels and the uncompressed model's answers",
}


def _quantize(state: _State, number: int, method: Quantization) -> tuple[Form, str]:
    if method.method == "ptq":
        module = state.quantizers.after_training(state.module, state.example, state.rows.calibration)
        state.module, state.quantized = module, True
        return "executed", f"int8, scales from {len(state.rows.calibration)} calibration rows"
    prepared = state.quantizers.prepare(state.module, state.example)
    epochs = _train(state, number, prepared, method.training)
    state.module, state.quantized = state.quantizers.convert(prepared), True
    return "executed", f"int8, trained {len(epochs)} epoch(s) with the rounding of the deployed program"


def _train(
    state: _State,
    number: int,
    module: nn.Module,
    training: Training,
    before_step: Callable[[nn.Module, int, int], None] = lambda module, step, steps: None,
) -> tuple[Epoch, ...]:
    """Train with the masks held: a module that is prepared for integers has its parameters' names still."""

    def after_step(trained: nn.Module) -> None:
        if state.masks is not None:
            state.masks.apply(trained)

    run = TrainingRun(
        checkpoint=state.work / f"step-{number}.pt",
        advanced=lambda epoch: _advanced(state, number, epoch),
        before_step=before_step,
        after_step=after_step,
        augment=state.augment,
    )
    teacher = None if training.loss == "labels" else state.teacher
    return train(module, training, state.rows.train, state.rows.validation, teacher=teacher, run=run)


def _advanced(state: _State, number: int, epoch: Epoch) -> None:
    state.metrics.add(number, epoch)
    state.events.epoch(number, epoch)


class _Metrics:
    """metrics.jsonl: a line an epoch, each once however often a run is resumed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._lines: dict[tuple[int, int], str] = {}
        if self._path.exists():
            try:
                for line in self._path.read_text(encoding="ascii").splitlines():
                    values = json.loads(line)
                    self._lines[int(values["step"]), int(values["number"])] = line
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{printable(str(self._path))} is damaged", hint="remove the work folder to start afresh"
                ) from error

    def add(self, step: int, epoch: Epoch) -> None:
        self._lines[step, epoch.number] = json.dumps({"step": step, **asdict(epoch)})
        text = "\n".join(line for _, line in sorted(self._lines.items()))
        atomic_write(self._path, (text + "\n").encode("ascii"))


def _training_of(method: Method) -> Training | None:
    if isinstance(method, FineTuning):
        return method.training
    if isinstance(method, Quantization) and method.method == "qat":
        return method.training
    return None
