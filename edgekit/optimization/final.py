"""The winner of a search made ready: trained for long, quantised, written as a folder that deploys."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import ImportOptions, Model
from edgekit.compression import TorchSource, quantizers
from edgekit.optimization.accuracy import classes, predictions
from edgekit.optimization.problem import TorchProblem
from edgekit.optimization.settings import Settings
from edgekit.progress import Progress, RunningStep, Step, step
from edgekit.search.problem import Candidate

if TYPE_CHECKING:
    from torch import nn

    from edgekit.compress.apply import Rows
    from edgekit.compress.recipe import Recipe
    from edgekit.compress.training import Augment, Epoch, Training

__all__ = ["Final", "finish", "integer_accuracy"]


@dataclass(frozen=True, slots=True)
class Final:
    """The winner as a folder, its int8 program, and that one's accuracy on the validation rows."""

    directory: Path
    model: Model
    accuracy: float
    quantised: Literal["after training", "in training"]


def finish(
    problem: TorchProblem,
    winner: Candidate,
    place: Path,
    source: TorchSource,
    rows: Rows,
    settings: Settings,
    augment: Augment | None,
    progress: Progress,
) -> Final:
    """Train the winner to the end, with and without the integers' rounding; the validation rows choose.

    Both trainings are taken up after their last whole epoch when they were interrupted.
    """
    training = settings.training(
        epochs=settings.final_epochs,
        learning_rate=settings.final_learning_rate,
        labelled=rows.train.y is not None,
    )
    trainer = _Trainer(problem, rows, augment, place / "search", winner.key, progress)
    made = quantizers()
    module = copy.deepcopy(problem.networks.module(winner.key))
    if winner.parent is not None:
        trainer.train(module, training, "the winner", "final")
    candidates: list[tuple[Literal["after training", "in training"], nn.Module]] = [
        ("after training", made.after_training(module, source.example, rows.calibration))
    ]
    if settings.qat_epochs > 0:
        prepared = made.prepare(module, source.example)
        gentle = replace(
            training, epochs=settings.qat_epochs, learning_rate=settings.final_learning_rate / 10
        )
        trainer.train(prepared, gentle, "the winner with its rounding", f"qat-{training.epochs}")
        candidates.append(("in training", made.convert(prepared)))
    recipe = _recipe(problem, winner, training, settings)
    with step(progress, Step.COMPRESS, "int8 on this machine") as running:
        finals = [
            _written(problem, rows, source, recipe, kind, quantized, place / "search")
            for kind, quantized in candidates
        ]
        best = max(finals, key=lambda one: one.accuracy)
        target = place / "model"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(best.directory, target)
        running.outcome = f"quantised {best.quantised}: validation accuracy {best.accuracy:.4f}"
    return Final(target, best.model, best.accuracy, best.quantised)


class _Trainer:
    """Trainings of the winner, each with a checkpoint of its own."""

    def __init__(
        self,
        problem: TorchProblem,
        rows: Rows,
        augment: Augment | None,
        work: Path,
        key: str,
        progress: Progress,
    ) -> None:
        self._teacher = problem.networks.teacher
        self._rows, self._augment, self._work, self._key = rows, augment, work, key
        self._progress = progress

    def train(self, module: nn.Module, training: Training, what: str, stage: str) -> None:
        from edgekit.compress.training import TrainingRun, train

        name = f"{stage}-{self._key}-{training.epochs}-{training.learning_rate:g}.pt"
        with step(self._progress, Step.TRAIN, what, training.epochs) as running:
            run = TrainingRun(checkpoint=self._work / name, advanced=_advance(running), augment=self._augment)
            epochs = train(
                module, training, self._rows.train, self._rows.validation, teacher=self._teacher, run=run
            )
            accuracy = epochs[-1].accuracy
            running.outcome = what + ("" if accuracy is None else f": validation accuracy {accuracy:.4f}")


def _advance(running: RunningStep) -> Callable[[Epoch], None]:
    return lambda epoch: running.advance(epoch.number, epoch.summary)


def _written(
    problem: TorchProblem,
    rows: Rows,
    source: TorchSource,
    recipe: Recipe,
    kind: Literal["after training", "in training"],
    quantized: nn.Module,
    work: Path,
) -> Final:
    from edgekit.compress.apply import Compressed
    from edgekit.compress.folder import MODEL_FILE, write_folder
    from edgekit.frontend import load_model

    folder = work / f"int8-{kind.replace(' ', '-')}"
    write_folder(folder, Compressed(quantized, True, ()), recipe, source.example, name=source.name)
    # Read back from the folder: what is judged is what is deployed.
    model = load_model(folder / MODEL_FILE, ImportOptions(name=source.name))
    return Final(folder, model, integer_accuracy(problem, model, rows), kind)


def _recipe(problem: TorchProblem, winner: Candidate, training: Training, settings: Settings) -> Recipe:
    """The result as a recipe of `edgekit compress`, which prunes in one step what the search did in many."""
    from edgekit.compress.recipe import parse_recipe

    shares = "\n".join(
        f'"{group.name}" = {winner.count(group.name) / group.channels:.6f}' for group in problem.groups
    )
    qat = "" if settings.qat_epochs == 0 else f"epochs = {settings.qat_epochs}\n"
    return parse_recipe(
        f"""# The channels that a search kept, pruned here in one step; the search pruned and trained in many.
schema = 1

[training]
epochs = {training.epochs}
batch_size = {training.batch_size}
learning_rate = {training.learning_rate:g}
loss = "{training.loss}"
label_weight = {training.label_weight:g}
seed = {training.seed}

[[step]]
kind = "channels"
importance = "{settings.importance}"
multiple_of = {settings.multiple_of}

[step.keep_by_group]
{shares}

[[step]]
kind = "fine_tune"

[[step]]
kind = "quantize"
method = "{"qat" if qat else "ptq"}"
{qat}"""
    )


def integer_accuracy(problem: TorchProblem, model: Model, rows: Rows) -> float:
    """Accuracy of an int8 program on the validation rows; without labels, agreement with the start."""
    labels = rows.validation.y
    expected: npt.NDArray[np.int64] = (
        labels if labels is not None else classes(problem.networks.start, rows.validation.x)
    )
    return float(np.mean(predictions(model, rows.validation.x) == expected))
