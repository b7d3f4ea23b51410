"""The versioned JSON document of a deployment: what other programs read.

Every number in it is one that the board, the ELF or the data set gave; what was not measured is null. Sizes
are bytes, costs are in `profile.unit`. The other commands' documents are sections of this one. Field names
are fixed by the schema's version: a change of meaning is a new number after the slash.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Protocol

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

import edgekit
from edgekit.artifacts import (
    CompiledModel,
    Conditions,
    Image,
    Measurement,
    MemoryUse,
    ModelFormat,
    Verification,
)
from edgekit.errors import ModelError
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = [
    "SCHEMA",
    "AccuracySection",
    "ArtifactsSection",
    "ConditionsSection",
    "DeployDocument",
    "MemorySection",
    "ModelSection",
    "OperatorSection",
    "ProfileSection",
    "Section",
    "Source",
    "TargetSection",
    "VerifySection",
    "conditions_section",
    "deploy_document",
    "memory_section",
    "profile_section",
    "read_document",
    "to_json",
    "to_values",
    "verify_section",
]

SCHEMA: Final = "edgekit.deploy/1"

_STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(ge=0)]
Cost = int | float
"""In the profile's unit. An int where the clock gave whole numbers."""


@dataclass(frozen=True, slots=True)
class ModelSection:
    """The source model, and what the compiler counted in it."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    format: ModelFormat
    sha256: str
    """Of the source file, hexadecimal."""
    macs: Count
    parameters: Count


@dataclass(frozen=True, slots=True)
class TargetSection:
    """The board."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    emulated: bool


@dataclass(frozen=True, slots=True)
class MemorySection:
    """What the image takes of the board, read from the ELF. A limit is null where the board states none."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    flash_bytes: Count
    ram_bytes: Count
    arena_bytes: Count
    weights_bytes: Count
    stack_bytes: Count
    flash_limit: Count | None
    ram_limit: Count | None


@dataclass(frozen=True, slots=True)
class VerifySection:
    """The board's answers against the host's reference."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    mode: Literal["exact", "tolerance"]
    passed: bool
    bit_exact: bool
    samples: Count
    tolerance: float
    max_abs_error: float | None
    """Null where the difference is no finite number."""
    first_difference: str | None


@dataclass(frozen=True, slots=True)
class AccuracySection:
    """Share of labelled rows answered right."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    metric: Literal["top1"]
    value: Annotated[float, Field(ge=0.0, le=1.0)]
    samples: Annotated[int, Field(ge=1)]
    measured_on: Literal["device", "host"]


@dataclass(frozen=True, slots=True)
class OperatorSection:
    """One operator's median cost, from the instrumented pass."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: Count
    name: str
    op: str
    schedule: str
    macs: Count
    p50: Cost


@dataclass(frozen=True, slots=True)
class ConditionsSection:
    """What a Linux board said of itself before and after the measurement. Null is what it can't tell."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    machine: str | None
    kernel: str | None
    clock: str | None
    cores: int | None
    core: Count | None
    """The core that the first thread was bound to."""
    governor: str | None
    frequency_before_khz: int | None
    frequency_after_khz: int | None
    temperature_before_millicelsius: int | None
    temperature_after_millicelsius: int | None
    throttled_before: int | None
    throttled_after: int | None


@dataclass(frozen=True, slots=True)
class ProfileSection:
    """Cost of one inference: percentiles of the uninstrumented runs, and each operator."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    unit: Literal["instructions", "cycles", "us"]
    trusted: bool
    runs: Count
    p10: Cost
    p50: Cost
    p90: Cost
    operators: tuple[OperatorSection, ...]
    threads: Annotated[int, Field(ge=1)] = 1
    conditions: ConditionsSection | None = None
    untrusted_because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArtifactsSection:
    """Where the deployment was written."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    directory: str
    image: str
    manifest: str


Section = (
    ModelSection
    | TargetSection
    | MemorySection
    | VerifySection
    | AccuracySection
    | OperatorSection
    | ProfileSection
    | ArtifactsSection
)


@dataclass(frozen=True, slots=True)
class DeployDocument:
    """All of one deployment. A section is null when that was not done."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    schema: Literal["edgekit.deploy/1"]
    edgekit: str
    """Version of edgekit that deployed."""
    model: ModelSection
    target: TargetSection
    memory: MemorySection
    verify: VerifySection | None
    accuracy: AccuracySection | None
    profile: ProfileSection | None
    artifacts: ArtifactsSection


class Source(Protocol):
    """What names the source model: an imported `Model`, or a bundle's manifest."""

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> ModelFormat: ...
    @property
    def sha256(self) -> str: ...


def deploy_document(
    *,
    source: Source,
    target: Target,
    compiled: CompiledModel,
    image: Image,
    verification: Verification | None = None,
    accuracy: AccuracySection | None = None,
    measurement: Measurement | None = None,
) -> DeployDocument:
    """The document of one deployment, from what its stages returned. Paths are those of `image`."""
    return DeployDocument(
        schema=SCHEMA,
        edgekit=edgekit.__version__,
        model=ModelSection(
            name=source.name,
            format=source.format,
            sha256=source.sha256,
            macs=compiled.macs,
            parameters=compiled.parameters,
        ),
        target=TargetSection(name=target.name, emulated=target.emulated),
        memory=memory_section(image.memory),
        verify=None if verification is None else verify_section(verification),
        accuracy=accuracy,
        profile=None if measurement is None else profile_section(measurement),
        artifacts=ArtifactsSection(
            directory=str(image.directory), image=str(image.path), manifest=str(image.manifest)
        ),
    )


def memory_section(memory: MemoryUse) -> MemorySection:
    return MemorySection(
        flash_bytes=memory.flash_bytes,
        ram_bytes=memory.ram_bytes,
        arena_bytes=memory.arena_bytes,
        weights_bytes=memory.weights_bytes,
        stack_bytes=memory.stack_bytes,
        flash_limit=memory.flash_limit,
        ram_limit=memory.ram_limit,
    )


def verify_section(verification: Verification) -> VerifySection:
    error = float(verification.max_abs_error)
    return VerifySection(
        mode=verification.mode,
        passed=verification.passed,
        bit_exact=verification.bit_exact,
        samples=verification.samples,
        tolerance=float(verification.tolerance),
        max_abs_error=error if math.isfinite(error) else None,
        first_difference=verification.first_difference,
    )


def profile_section(measurement: Measurement) -> ProfileSection:
    return ProfileSection(
        unit=measurement.unit,
        trusted=measurement.trusted,
        runs=len(measurement.runs),
        p10=_whole(measurement.p10),
        p50=_whole(measurement.p50),
        p90=_whole(measurement.p90),
        operators=tuple(
            OperatorSection(
                id=operator.id,
                name=operator.name,
                op=operator.op,
                schedule=operator.schedule,
                macs=operator.macs,
                p50=_whole(operator.p50),
            )
            for operator in measurement.operators
        ),
        threads=measurement.threads,
        conditions=None if measurement.conditions is None else conditions_section(measurement.conditions),
        untrusted_because=measurement.untrusted_because,
    )


def conditions_section(conditions: Conditions) -> ConditionsSection:
    return ConditionsSection(
        machine=conditions.machine,
        kernel=conditions.kernel,
        clock=conditions.clock,
        cores=conditions.cores,
        core=conditions.core,
        governor=conditions.governor,
        frequency_before_khz=conditions.frequency_before_khz,
        frequency_after_khz=conditions.frequency_after_khz,
        temperature_before_millicelsius=conditions.temperature_before_millicelsius,
        temperature_after_millicelsius=conditions.temperature_after_millicelsius,
        throttled_before=conditions.throttled_before,
        throttled_after=conditions.throttled_after,
    )


def to_values(section: DeployDocument | Section) -> JsonValue:
    """The document or one section of it as JSON values, keys in the schema's order."""
    values: JsonValue = TypeAdapter(type(section)).dump_python(section, mode="json")
    return values


def to_json(section: DeployDocument | Section) -> str:
    """The document or one section of it as text that ends in a newline; ASCII, so safe for any terminal."""
    return json.dumps(to_values(section), indent=2, allow_nan=False) + "\n"


def read_document(path: Path) -> DeployDocument:
    """Read a document that `to_json` wrote.

    Raises:
        ModelError: It can't be read, or is not of this schema.
    """
    shown = printable(str(path))
    try:
        return TypeAdapter(DeployDocument).validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{shown} can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = printable(".".join(str(part) for part in first["loc"]) or "the document")
        raise ModelError(
            f"{shown} is not a deployment's document ({SCHEMA}): {where}: {printable(first['msg'])}",
            hint="deploy again to write a new one: edgekit deploy",
        ) from error


def _whole(cost: float) -> Cost:
    return int(cost) if float(cost).is_integer() else cost
