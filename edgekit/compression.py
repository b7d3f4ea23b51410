"""A torch model and a recipe in, a compressed model's folder out.

    import ──▶ check the recipe ──▶ apply its steps ──▶ write the folder

What an interrupted call left in the folder's `.work` is taken up by the next one with the same recipe, model
and data. Nothing here prints; progress is told to a callback.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions, TorchProgram
from edgekit.data import MAX_CALIBRATION_ROWS, DataSet, Part, read_data, split_parts
from edgekit.errors import ModelError, UsageError
from edgekit.fsutil import atomic_write
from edgekit.progress import Progress, Step, StepAdvanced, StepFinished, StepStarted, silent, step
from edgekit.text import file_name, printable
from edgekit.training_data import check_classes, rows_as_input

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgekit.compress import Labelled, Recipe
    from edgekit.compress.apply import Quantizers, Rows, StepReport
    from edgekit.compress.training import Augment, Epoch

__all__ = ["CompressedModel", "TorchSource", "compress", "open_torch", "quantizers", "training_rows"]

_WORK = ".work"


@dataclass(frozen=True, slots=True)
class CompressedModel:
    """What `compress` wrote: the folder, which `deploy` takes, and what each step did."""

    directory: Path
    name: str
    steps: tuple[StepReport, ...]
    split_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class TorchSource:
    """A torch module that can be trained, and example inputs of batch 1."""

    module: nn.Module
    example: tuple[torch.Tensor, ...]
    name: str


def compress(
    model: str | Path | TorchProgram,
    *,
    recipe: str | Path,
    data: str | Path,
    directory: str | Path | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    augment: Augment | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
) -> CompressedModel:
    """Apply a recipe to a torch model.

    Args:
        model: `package.module:factory`, or a module in memory.
        recipe: The recipe's file.
        data: Rows to train on and to select by: an `.npz` or a loader; see `edgekit.data.split_parts`. Its
            test rows are not looked at.
        directory: Where to write; `build/<model>-compressed` by default.
        options: What else there is to say of the model: name, shapes, weights.
        augment: Changes training rows as they are used; see `edgekit.compress.training.Augment`.
        seed: Of the split.
        folder: Where the factory's and the loader's modules are looked for.

    Raises:
        UsageError: the recipe or the data don't fit the model, or the folder is another compression's.
        ModelError: the model can't be opened, has nothing to train, or can't be written.
    """
    from edgekit.compress.apply import Events, apply_recipe, check_recipe
    from edgekit.compress.folder import write_folder
    from edgekit.compress.recipe import load_recipe

    steps = load_recipe(Path(recipe))
    with step(progress, Step.IMPORT, _shown(model)) as running:
        source = open_torch(model, options, folder)
        running.outcome = f"{sum(one.numel() for one in source.module.parameters()):,} parameters"
    with step(progress, Step.DATA, printable(str(data))) as running:
        data_set = rows_as_input(read_data(data, folder=folder), source.example[0])
        rows, split = training_rows(data_set, seed)
        if steps.learns or rows.train.y is not None:
            check_classes(source.module, source.example, data_set)
        check_recipe(source.module, steps, source.example, rows)
        running.outcome = (
            f"{len(rows.train)} rows to train on, {len(rows.validation)} to select by, "
            f"{len(rows.calibration)} to calibrate with"
        )
    name = options.name or source.name
    target = Path(directory) if directory is not None else Path("build") / f"{file_name(name)}-compressed"
    work = _work_folder(target, steps, source, split)
    shown = _Shown(progress)
    events = Events(started=shown.started, epoch=shown.epoch, finished=shown.finished)
    result = apply_recipe(
        source.module,
        steps,
        source.example,
        rows,
        quantizers=quantizers(),
        work=work,
        events=events,
        augment=augment,
    )
    with step(progress, Step.REPORT, printable(str(target))) as running:
        write_folder(target, result, steps, source.example, name=name)
        metrics = work / "metrics.jsonl"
        if metrics.exists():
            atomic_write(target / "metrics.jsonl", metrics.read_bytes())
        shutil.rmtree(work)
        running.outcome = printable(str(target))
    return CompressedModel(target, name, result.steps, split)


def open_torch(
    model: str | Path | TorchProgram, options: ImportOptions, folder: Path | None = None
) -> TorchSource:
    """The module behind a factory's name or in memory, with its weights.

    Raises:
        ModelError: it is something that can't be trained: a file, or an exported program.
    """
    from edgekit.frontend import open_source

    opened = open_source(Path(model) if isinstance(model, str) else model, options, folder)
    import torch
    from torch import nn

    if not isinstance(opened, TorchProgram) or not isinstance(opened.program, nn.Module):
        raise ModelError(
            f"{_shown(model)} has nothing to train: its weights are constants of a finished graph",
            hint="compress the torch module that it came from: package.module:factory --weights "
            "FILE.safetensors; a finished file can be deployed, analyzed and tuned as it is",
        )
    inputs = opened.example_inputs or ()
    example = tuple(one for one in inputs if isinstance(one, torch.Tensor))
    if len(example) != 1:
        raise ModelError(
            f"{_shown(model)} takes {len(inputs)} inputs; compression trains modules of one input",
            hint="let the factory return (module, example_inputs)",
        )
    return TorchSource(opened.program, example, options.name or opened.name)


def training_rows(data: DataSet, seed: int) -> tuple[Rows, str]:
    """Rows to train on, to select by and to calibrate with, and the split's SHA-256.

    Calibration rows are training rows.

    Raises:
        UsageError: no training rows, or several inputs.
    """
    from edgekit.compress.apply import Rows
    from edgekit.compress.training import Labelled

    splits = split_parts(data, seed)
    train = _labelled(splits.train, data)
    count = min(len(train), MAX_CALIBRATION_ROWS)
    chosen = np.sort(np.random.default_rng(seed).choice(len(train), count, replace=False))
    return Rows(train, _labelled(splits.validation, data), Labelled(train.x[chosen], None)), splits.sha256


def quantizers() -> Quantizers:
    """The functions that quantise for deployment, as the compression's steps take them. What is quantised is
    judged as the integer program that is deployed, on this machine.
    """
    from edgekit.compress.apply import Quantizers
    from edgekit.frontend.torch_load import quantize_torch
    from edgekit.frontend.torch_qat import convert_qat, prepare_qat

    def after_training(module: nn.Module, example: Sequence[torch.Tensor], rows: Labelled) -> nn.Module:
        return quantize_torch(module, example, [rows.x], DEFAULT_IMPORT)

    def integer_accuracy(module: nn.Module, example: Sequence[torch.Tensor], rows: Labelled) -> float:
        from edgekit.frontend import load_model
        from edgekit.optimization.accuracy import predictions

        answers = predictions(
            load_model(TorchProgram(module, tuple(example), "quantized"), DEFAULT_IMPORT), rows.x
        )
        return float(np.mean(answers == rows.y))

    return Quantizers(after_training, prepare_qat, convert_qat, integer_accuracy)


def _labelled(part: Part, data: DataSet) -> Labelled:
    from edgekit.compress.training import Labelled

    if len(part.inputs) != 1:
        raise UsageError(f"{data.source} has {len(part.inputs)} inputs; compression trains modules of one")
    x = part.inputs[0]
    if x.dtype.kind != "f":
        raise ModelError(
            f"{data.source}: x is {x.dtype}; training needs the real values as float32",
            hint="save x as the model takes it, for example x.astype('float32') / 255",
        )
    return Labelled(np.ascontiguousarray(x, dtype=np.float32), part.y)


def _work_folder(directory: Path, recipe: Recipe, source: TorchSource, split: str) -> Path:
    """The folder of unfinished work, which belongs to one recipe, module and split.

    Raises:
        UsageError: it belongs to another.
    """
    digest = hashlib.sha256(recipe.text.encode())
    for name, value in sorted(source.module.state_dict().items()):
        digest.update(f"\n{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    digest.update(split.encode())
    identity = {"schema": "edgekit.work/1", "sha256": digest.hexdigest()}
    work = directory / _WORK
    record = work / "identity.json"
    if record.exists() and json.loads(record.read_text()) != identity:
        raise UsageError(
            f"{printable(str(directory))} holds the unfinished work of another recipe, model or data",
            hint=f"choose another folder, or remove {printable(str(work))}",
        )
    work.mkdir(parents=True, exist_ok=True)
    atomic_write(record, (json.dumps(identity) + "\n").encode("ascii"))
    return work


class _Shown:
    """The steps of a recipe as progress events."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._kind = Step.COMPRESS

    def started(self, number: int, method: Any) -> None:
        training = getattr(method, "training", None)
        if training is None or getattr(method, "method", "") == "ptq":
            self._kind, total = Step.COMPRESS, None
        else:
            self._kind, total = Step.TRAIN, training.epochs
        self._progress(StepStarted(self._kind, f"{number}. {method.kind}", total))

    def epoch(self, number: int, epoch: Epoch) -> None:
        self._progress(StepAdvanced(self._kind, epoch.number, epoch.summary))

    def finished(self, report: StepReport) -> None:
        accuracy = (
            "" if report.accuracy_after is None else f"; validation accuracy {report.accuracy_after:.4f}"
        )
        self._progress(
            StepFinished(self._kind, f"{report.number}. {report.effect}{accuracy}", report.seconds)
        )


def _shown(model: str | Path | TorchProgram) -> str:
    return model.name if isinstance(model, TorchProgram) else printable(str(model))
