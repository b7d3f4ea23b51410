"""From a model file to a `Model`: find out what the file is, check it, convert it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions, Model, TorchProgram
from edgekit.errors import ModelError, UsageError
from edgekit.frontend.source import Source, describe_path, read_source
from edgekit.text import names_function

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["load_model", "load_torch", "open_source"]

ACCEPTED = ".tflite and .onnx (float ones with --calibration), package.module:factory and .pt2 (torch)"


def load_model(
    source: Path | str | TorchProgram,
    options: ImportOptions = DEFAULT_IMPORT,
    *,
    calibration: Sequence[npt.NDArray[np.generic]] | None = None,
) -> Model:
    """Import a model.

    Args:
        source: A `.tflite`, `.onnx` or `.pt2` file, `package.module:factory`, or a torch program in memory.
        options: What the user says of the model: its name, shapes, precision.
        calibration: For a float ONNX or torch model, one array (rows, …) per input, in the order of the
            inputs, with the input's own shape behind the rows (dimensions of one may be left out). Not used
            by a model that is quantised already.

    Raises:
        ModelError: the file is damaged, of no accepted format, or has dynamic dimensions; the rows do not
            fit.
        UnsupportedError: operators without a converter, all of them in one message.
        UsageError: a shape or `calibration` is missing, or a shape does not fit.
    """
    opened = open_source(source, options)
    if isinstance(opened, TorchProgram):
        return _load_program(opened, options, calibration)
    suffix = opened.suffix.lower()
    if suffix not in (".tflite", ".onnx"):
        raise ModelError(
            f"{describe_path(opened)} has no known suffix; accepted: {ACCEPTED}.",
            hint=_PICKLE_HINT if suffix in (".pt", ".pth", ".ckpt", ".pkl") else None,
        )
    content = read_source(opened)
    name = options.name or opened.stem
    if suffix == ".tflite":
        return _load_tflite(content, name, options, calibration)
    return _load_onnx(content, name, options, calibration)


_PICKLE_HINT = (
    "a pickle can run code when it is loaded; save the weights with safetensors.torch.save_file and deploy "
    "package.module:factory --weights FILE.safetensors"
)


def open_source(
    source: Path | str | TorchProgram, options: ImportOptions = DEFAULT_IMPORT, folder: Path | None = None
) -> Path | TorchProgram:
    """Find out what a model's name stands for: call a factory, load a `.pt2`; other files stay as they are.

    Args:
        source: What `load_model` takes.
        options: `weights`, `shapes` and `trusted` are used.
        folder: Where a factory's package is looked for; the current folder by default.

    Raises:
        ModelError: the factory fails, its weights don't fit, or a `.pt2` isn't trusted.
        UsageError: `weights` are given and there is no factory.
    """
    if isinstance(source, TorchProgram):
        return source
    path = Path(source)
    factory = names_function(str(source)) and not path.exists()
    if options.weights is not None and not factory:
        raise UsageError(
            "--weights is for a torch factory, package.module:factory; other models hold their weights."
        )
    if factory:
        from edgekit.frontend.torch_source import open_factory

        return open_factory(str(source), options, folder)
    if path.is_dir():
        return _model_of_folder(path)
    if path.suffix.lower() == ".pt2":
        from edgekit.frontend.torch_source import open_pt2

        return open_pt2(path, options)
    return path


def _model_of_folder(folder: Path) -> Path:
    """The graph of a compressed model's folder."""
    graph = folder / "model.onnx"
    if not graph.is_file():
        raise ModelError(
            f"{describe_path(folder)} is a folder without a model.onnx",
            hint="give a model file, or the folder that edgekit compress wrote",
        )
    return graph


def load_torch(
    program: nn.Module | ExportedProgram,
    example_inputs: Sequence[torch.Tensor] | None = None,
    calibration: Sequence[npt.NDArray[np.generic]] | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
) -> Model:
    """Import a torch model; the module itself stays as it is.

    Args:
        program: A module, an exported program, or what `convert_qat` returned.
        example_inputs: One tensor for each argument of forward, of the shapes that are deployed. An exported
            program has its own.
        calibration: One array (rows, …) per input to quantise with; not used where the precision is float32
            or the program is quantised already.
        options: Its name, precision and calibration method.

    Raises:
        ModelError: the module can't be exported, its graph can't be converted, or the rows don't fit.
        UnsupportedError: operators without a converter, all of them in one message.
        UsageError: inputs or calibration rows are missing.
    """
    inputs = None if example_inputs is None else tuple(example_inputs)
    return _load_program(TorchProgram(program, inputs, type(program).__name__.lower()), options, calibration)


def _load_program(
    source: TorchProgram, options: ImportOptions, calibration: Sequence[npt.NDArray[np.generic]] | None
) -> Model:
    from edgekit.frontend.torch_quiet import require_torch

    require_torch()
    from edgekit.frontend.torch_load import import_torch

    return import_torch(source, options, calibration)


def _load_tflite(
    source: Source,
    name: str,
    options: ImportOptions,
    calibration: Sequence[npt.NDArray[np.generic]] | None,
) -> Model:
    from edgekit.frontend.tflite_load import load_tflite

    return load_tflite(source, name, options, calibration)


def _load_onnx(
    source: Source,
    name: str,
    options: ImportOptions,
    calibration: Sequence[npt.NDArray[np.generic]] | None,
) -> Model:
    from edgekit.frontend.onnx_load import load_onnx

    return load_onnx(source, name, options, calibration)
