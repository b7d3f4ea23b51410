"""edgekit.toml: the settings of one project folder, read strictly. The keys are described in
docs/edgekit-toml.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from edgekit.artifacts import CalibrationMethod, Precision, Preference
from edgekit.budget import Budget
from edgekit.errors import UsageError
from edgekit.quantities import parse_bytes, parse_count, parse_duration_us
from edgekit.text import did_you_mean, names_function, printable

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the package of the same interface for Python 3.10
    import tomli as tomllib

__all__ = [
    "FILE_NAME",
    "BudgetSection",
    "BuildSection",
    "CompressSection",
    "DataSection",
    "ModelSection",
    "OptimizeSection",
    "ProfileSection",
    "Project",
    "find_project",
    "load_project",
]

FILE_NAME = "edgekit.toml"
_MAX_FILE_BYTES = 1 << 20

Amount = TypeVar("Amount", int, float)

PositiveInt = Annotated[int, Field(ge=1)]


def _amount(parse: Callable[[str], Amount], value: int | str | None) -> Amount | None:
    return None if value is None else parse(str(value))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class ModelSection(_Section):
    """`[model]`: the source model, and what its file leaves open."""

    path: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)
    shapes: Mapping[str, list[PositiveInt]] = Field(default_factory=dict)
    precision: Precision = "int8"
    weights: str | None = Field(default=None, min_length=1)


class DataSection(_Section):
    """`[data]`: rows to verify with and to measure accuracy on; rows to calibrate with."""

    path: str | None = Field(default=None, min_length=1)
    calibration: str | None = Field(default=None, min_length=1)
    calibration_method: CalibrationMethod = "minmax"
    samples: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class CompressSection(_Section):
    """`[compress]`: the recipe of `edgekit compress`."""

    recipe: str = Field(min_length=1)


class OptimizeSection(_Section):
    """`[optimize]`: how `edgekit optimize` searches; what is None is the search's own default."""

    max_drop: Annotated[float, Field(ge=0)] | None = None
    max_flashes: PositiveInt | None = None
    data: str | None = Field(default=None, min_length=1)
    augment: str | None = Field(default=None, min_length=1)
    step: Annotated[float, Field(gt=0, lt=1)] | None = None
    exchanges: Annotated[int, Field(ge=0)] | None = None
    importance: Literal["l1", "l2", "taylor", "bn_scale"] | None = None
    multiple_of: PositiveInt | None = None
    short_rows: PositiveInt | None = None
    short_epochs: PositiveInt | None = None
    long_epochs: PositiveInt | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    final_epochs: PositiveInt | None = None
    final_learning_rate: Annotated[float, Field(gt=0)] | None = None
    qat_epochs: Annotated[int, Field(ge=0)] | None = None
    batch_size: PositiveInt | None = None
    label_weight: Annotated[float, Field(ge=0, le=1)] | None = None


class BudgetSection(_Section):
    """`[budget]`: what a deployment may cost; a miss is exit 8."""

    max_instructions: int | str | None = None
    max_latency: str | None = None
    max_flash: int | str | None = None
    max_ram: int | str | None = None

    @model_validator(mode="after")
    def _amounts(self) -> BudgetSection:
        self.limits()
        return self

    def limits(self) -> Budget:
        """The section as numbers. Raises ValueError with a sentence."""
        return Budget(
            max_instructions=_amount(parse_count, self.max_instructions),
            max_latency_us=_amount(parse_duration_us, self.max_latency),
            max_flash_bytes=_amount(parse_bytes, self.max_flash),
            max_ram_bytes=_amount(parse_bytes, self.max_ram),
        )


class ProfileSection(_Section):
    """`[profile]`: how often a run is measured."""

    runs: PositiveInt | None = None


class BuildSection(_Section):
    """`[build]`: where deployments are written, and what their programs save first."""

    directory: str = Field(default="build", min_length=1)
    prefer: Preference = "speed"


class Project(_Section):
    """One edgekit.toml. Paths in it are relative to its own folder."""

    schema_version: Literal[1] = Field(alias="schema")
    target: str | None = Field(default=None, min_length=1)
    model: ModelSection | None = None
    data: DataSection = DataSection()
    boards: Mapping[str, str] = Field(default_factory=dict)
    compress: CompressSection | None = None
    optimize: OptimizeSection = OptimizeSection()
    budget: BudgetSection = BudgetSection()
    profile: ProfileSection = ProfileSection()
    build: BuildSection = BuildSection()

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder of the file, to which its paths are relative."""
        return self._folder

    @property
    def file(self) -> Path:
        return self._folder / FILE_NAME

    def resolve(self, path: str) -> Path:
        """A path of the file, seen from where edgekit runs."""
        return self._folder / Path(path).expanduser()

    @property
    def model_path(self) -> Path | None:
        """The model's file, or the name of a torch factory as it is."""
        if self.model is None:
            return None
        path = self.resolve(self.model.path)
        return Path(self.model.path) if names_function(self.model.path) and not path.exists() else path


def find_project(folder: Path) -> Project | None:
    """The project of `folder`, or None where it has no edgekit.toml.

    Raises:
        UsageError: The file is there and is wrong.
    """
    path = folder / FILE_NAME
    return load_project(path) if path.is_file() else None


def load_project(path: Path) -> Project:
    """Read and check one edgekit.toml.

    Raises:
        UsageError: The file can't be read, is no TOML, or has unknown or wrong keys; the message names all of
        them.
    """
    shown = printable(str(path))
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UsageError(f"{shown} is larger than 1 MiB; an edgekit.toml is a page of settings")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{shown} can't be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{shown} is not valid TOML: {printable(str(error))}") from error
    if "schema" not in document:
        raise UsageError(f"{shown} has no `schema`", hint="put `schema = 1` in its first line")
    try:
        project = Project.model_validate(document)
    except ValidationError as error:
        complaints = "; ".join(_complaint(item["type"], item["loc"], item["msg"]) for item in error.errors())
        raise UsageError(
            f"{shown}: {complaints}", hint="the keys are described in docs/edgekit-toml.md"
        ) from error
    project._folder = path.parent
    return project


def _complaint(kind: str, location: tuple[int | str, ...], message: str) -> str:
    where = printable(".".join(str(part) for part in location))
    if kind != "extra_forbidden":
        return f"`{where}`: {printable(message)}"
    known = _known_keys(location[:-1])
    return f"unknown key `{where}`.{did_you_mean(str(location[-1]), known)}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    sections: Mapping[str, type[BaseModel]] = {
        "model": ModelSection,
        "data": DataSection,
        "compress": CompressSection,
        "optimize": OptimizeSection,
        "budget": BudgetSection,
        "profile": ProfileSection,
        "build": BuildSection,
    }
    section = sections.get(str(path[0]), Project) if path else Project
    return [field.alias or name for name, field in section.model_fields.items()]
