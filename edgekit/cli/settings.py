"""What a command works with: flag, environment, edgekit.toml, target file, default, in this order."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.artifacts import CalibrationMethod, CompileOptions, ImportOptions, Precision, Preference
from edgekit.cli.options import parse_shapes
from edgekit.errors import UsageError
from edgekit.project import FILE_NAME, Project, find_project
from edgekit.target import Target
from edgekit.text import did_you_mean, function_name, names_function, printable

__all__ = [
    "ModelSettings",
    "board_name",
    "existing_model",
    "model_settings",
    "project_of_this_folder",
    "target_name",
]


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A source model with all that belongs to it."""

    model: Path
    options: ImportOptions
    compile_options: CompileOptions
    data: str | None
    calibration: str | None
    samples: int | None
    seed: int
    folder: Path
    """Where a data loader's module is looked for."""
    build: Path
    own: Project | None
    """The edgekit.toml, when this is its model."""

    @property
    def name(self) -> str:
        """What the model is called where nobody says so: after its file, or after its function."""
        text = str(self.model)
        plain = function_name(text) if names_function(text) and not self.model.exists() else self.model.stem
        return self.options.name or plain


def project_of_this_folder() -> Project | None:
    return find_project(Path())


def target_name(flag: str | None, project: Project | None) -> str:
    """The board to deploy to.

    Raises:
        UsageError: Nobody named one.
    """
    name = flag or os.environ.get("EDGEKIT_TARGET") or (project.target if project is not None else None)
    if name is None:
        raise UsageError(
            "no target is named", hint="give --target, for example --target mps2-an386; edgekit targets list"
        )
    return name


def board_name(flag: str | None, target: Target, project: Project | None) -> str | None:
    """The address of the board; None to let the target's USB id find it, and where no board is plugged in
    anywhere.
    """
    if flag is not None:
        return flag
    if target.emulated or target.transport.kind == "pipe":
        return None
    return os.environ.get("EDGEKIT_BOARD") or (
        project.boards.get(target.name) if project is not None else None
    )


def model_settings(
    command: str,
    project: Project | None,
    *,
    model: Path | None,
    name: str | None = None,
    shapes: list[str] | None = None,
    precision: Precision | None = None,
    calibration_method: CalibrationMethod | None = None,
    weights: Path | None = None,
    trust: bool = False,
    prefer: Preference | None = None,
    data: str | None = None,
    calibration: str | None = None,
    samples: int | None = None,
    seed: int | None = None,
) -> ModelSettings:
    """The model that flags and edgekit.toml name. What edgekit.toml says of its own model holds for that
    model only.

    Raises:
        UsageError: No model is named, or a shape is not one.
    """
    path = model if model is not None else (project.model_path if project is not None else None)
    if path is None:
        raise _no_model(command, project)
    own = project if project is not None and _same(path, project.model_path) else None
    file = own.model if own is not None else None
    fixed = {key: tuple(value) for key, value in file.shapes.items()} if file else {}
    fixed |= parse_shapes(shapes or [])
    own_weights = own.resolve(file.weights) if own and file and file.weights else None
    options = ImportOptions(
        name=name or (file.name if file else None),
        shapes=fixed,
        precision=precision or (file.precision if file else "int8"),
        calibration_method=calibration_method or (own.data.calibration_method if own else "minmax"),
        weights=weights or own_weights,
        trusted=trust,
    )
    return ModelSettings(
        model=path,
        options=options,
        compile_options=CompileOptions(prefer or (project.build.prefer if project is not None else "speed")),
        data=data or (_data_of(own, own.data.path) if own else None),
        calibration=calibration or (_data_of(own, own.data.calibration) if own else None),
        samples=samples if samples is not None else (own.data.samples if own else None),
        seed=seed if seed is not None else (own.data.seed if own else 0),
        folder=project.folder if project is not None else Path(),
        build=project.resolve(project.build.directory) if project is not None else Path("build"),
        own=own,
    )


def _no_model(command: str, project: Project | None) -> UsageError:
    if project is None:
        return UsageError(
            f"no MODEL is given and there is no {FILE_NAME} in this folder",
            hint=f"edgekit {command} model.tflite --target mps2-an386; `edgekit init` writes an {FILE_NAME}",
        )
    return UsageError(
        f"no MODEL is given, and {printable(str(project.file))} has no [model]",
        hint='add to it: [model] and path = "model.tflite"',
    )


def _same(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()


def _data_of(project: Project, text: str | None) -> str | None:
    """A file of edgekit.toml is relative to it; a loader's name is taken as it is."""
    if text is None:
        return None
    path = project.resolve(text)
    return text if ":" in text and not path.exists() else str(path)


def existing_model(path: Path) -> Path:
    """The path of a model that is there, with the likely one named where it is not; a factory's name stays.

    Raises:
        UsageError: No such file.
    """
    if path.exists() or names_function(str(path)):
        return path
    folder = path.parent if path.parent.is_dir() else Path()
    near = did_you_mean(
        path.name, (item.name for item in folder.iterdir() if item.suffix in (".tflite", ".onnx", ".pt2"))
    )
    raise UsageError(
        f"{printable(str(path))} does not exist.{near}",
        hint="give the path of a .tflite or .onnx file, or package.module:factory",
    )
