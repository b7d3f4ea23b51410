"""What was asked for, and the model and data that it comes to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import ImportOptions, Model, TorchProgram
from edgekit.data import DataSet, calibration_inputs, read_data, row_digests
from edgekit.errors import UsageError
from edgekit.progress import Notice, Progress, Step, step
from edgekit.stages import Stages
from edgekit.target import Target, load_target
from edgekit.text import printable

__all__ = [
    "PACKAGES",
    "Imported",
    "ModelSource",
    "Request",
    "float_source",
    "import_model",
    "provenance_of",
    "read_data_sets",
    "request_of",
    "resolve_target",
]

ModelSource = str | Path | Model | TorchProgram | object
"""A file, a factory's name, a model that was imported before, or a torch module or program."""


PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy")


@dataclass(frozen=True, slots=True)
class Request:
    """The model that was asked for, and the data that belong to it."""

    model: Path | TorchProgram | Model
    options: ImportOptions
    data: str | Path | None
    calibration: str | Path | None
    seed: int
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Imported:
    """A model with the data set to verify it on. `used` has the digests of rows that may not count."""

    model: Model
    data: DataSet | None
    calibrated_on_data: bool
    used: frozenset[bytes]
    provenance: Mapping[str, str]


def request_of(
    model: ModelSource,
    example_inputs: Sequence[Any] | None,
    options: ImportOptions,
    data: str | Path | None,
    calibration: str | Path | None,
    seed: int,
    folder: Path | None,
) -> Request:
    source = Path(model) if isinstance(model, str) else model
    if isinstance(source, Path) and source.is_dir() and options.name is None:
        options = replace(options, name=source.resolve().name)
    if not isinstance(source, (Path, Model, TorchProgram)):
        inputs = None if example_inputs is None else tuple(example_inputs)
        source = TorchProgram(source, inputs, type(source).__name__.lower())
    elif example_inputs is not None:
        raise UsageError("example_inputs are for a torch module; a file and an imported model have theirs")
    return Request(source, options, data, calibration, seed, folder)


def import_model(request: Request, progress: Progress, stages: Stages) -> Imported:
    """Data first: a wrong data file is refused in milliseconds, before the model is."""
    data, calibration = read_data_sets(request, progress)
    shown = str(request.model) if isinstance(request.model, Path) else request.model.name
    with step(progress, Step.IMPORT, printable(shown)) as running:
        chosen: tuple[npt.NDArray[np.float32], ...] | None = None
        source = calibration or data
        if isinstance(request.model, Model):
            model = request.model
        else:
            opened = stages.open_source(request.model, request.options, request.folder)
            if source is not None and stages.needs_calibration(opened, request.options):
                chosen = calibration_inputs(source, whole_file=calibration is not None, seed=request.seed)
            model = stages.load_model(opened, request.options, chosen)
        running.outcome = (
            f"{model.format}, {len(model.input_names)} input(s), {len(model.output_names)} output(s)"
        )
    calibrated_on = None if chosen is None or source is None else source.sha256
    return Imported(
        model=model,
        data=data,
        calibrated_on_data=chosen is not None and calibration is None,
        used=frozenset() if chosen is None else row_digests(chosen),
        provenance=provenance_of(model, request.options, calibrated_on, request.seed),
    )


def read_data_sets(request: Request, progress: Progress) -> tuple[DataSet | None, DataSet | None]:
    """The rows to verify with, and those to calibrate with."""
    if request.data is None and request.calibration is None:
        return None, None
    with step(progress, Step.DATA, printable(str(request.data or request.calibration))) as running:
        data = None if request.data is None else read_data(request.data, folder=request.folder)
        calibration = (
            None if request.calibration is None else read_data(request.calibration, folder=request.folder)
        )
        sets = [one for one in (data, calibration) if one is not None]
        counts = [part.count for one in sets for part in one.parts.values()]
        running.outcome = " and ".join(f"{count} rows" for count in counts)
    return data, calibration


def provenance_of(
    model: Model, options: ImportOptions, calibrated_on: str | None, seed: int
) -> Mapping[str, str]:
    """What went into the bundle besides what the build itself knows; the same inputs give the same texts."""
    facts = {"model_format": model.format, "model_sha256": model.sha256}
    facts |= {f"package_{name}": version(name) for name in PACKAGES}
    if options.shapes:
        facts["shapes"] = json.dumps({name: list(shape) for name, shape in sorted(options.shapes.items())})
    if options.precision != "int8":
        facts["precision"] = options.precision
    if calibrated_on is not None:
        facts |= {"calibration_sha256": calibrated_on, "calibration_seed": str(seed)}
        facts["calibration_method"] = options.calibration_method
        facts["package_onnxruntime"] = version("onnxruntime")
    return facts


def float_source(request: Request, stages: Stages) -> Model | None:
    """The model before it was quantised; None where it came quantised."""
    if isinstance(request.model, Model):
        return None
    opened = stages.open_source(request.model, request.options, request.folder)
    if not stages.needs_calibration(opened, request.options):
        return None
    return stages.load_model(opened, replace(request.options, precision="float32"), None)


def resolve_target(target: str | Path | Target, progress: Progress) -> Target:
    resolved = target if isinstance(target, Target) else load_target(str(target))
    if resolved.shadows is not None:
        own = printable(str(resolved.source_path))
        progress(Notice(f"{resolved.name} is your own {own}; it takes the place of the shipped target"))
    return resolved
