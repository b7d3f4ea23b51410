"""`manifest.json` of a bundle, schema `edgekit.bundle/1`: everything that later stages need to know about it.

It is read back from disk, where anybody may have changed it, so every number has its bounds here and every
path its form; `bundle.py` then checks the files themselves.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from edgekit.artifacts import (
    ITEM_SIZE,
    Allocation,
    CompiledModel,
    CompiledOperator,
    MemoryUse,
    Quantization,
    TensorSpec,
)
from edgekit.firmware.names import valid_text

__all__ = ["SCHEMA", "FileRecord", "Manifest", "MemoryRecord", "ModelRecord", "model_record"]

SCHEMA: Final = "edgekit.bundle/1"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MemberPath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}){0,3}$")
]
"""Relative, and no part of it starts with a dot: it cannot leave the bundle."""

Text = Annotated[str, Field(max_length=65_536)]
Word = Annotated[str, Field(max_length=200)]
Bytes = Annotated[int, Field(ge=0, le=0x1_0000_0000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000_000_000)]
Dimension = Annotated[int, Field(ge=0, le=0x7FFF_FFFF)]
Shape = Annotated[tuple[Dimension, ...], Field(max_length=16)]
Dtype = Literal[
    "int8", "uint8", "bool", "int16", "uint16", "int32", "uint32", "float32", "int64", "uint64"
]  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class QuantizationRecord(_Record):
    scale: Annotated[float, Field(gt=0)]
    zero_point: Annotated[int, Field(ge=-(2**31), lt=2**31)]


class TensorRecord(_Record):
    name: Text
    shape: Shape
    dtype: Dtype
    quantization: QuantizationRecord | None


class OperatorRecord(_Record):
    id: Annotated[int, Field(ge=0, le=65_535)]
    name: Text
    op: Word
    schedule: Word
    macs: Count
    output_offset: Bytes
    output_bytes: Bytes
    workspace_bytes: Bytes
    weights_bytes: Bytes
    output_shape: Shape


class AllocationRecord(_Record):
    name: Text
    offset: Bytes
    size_bytes: Bytes
    first: Annotated[int, Field(ge=-1, le=65_535)]
    last: Annotated[int, Field(ge=-1, le=65_535)]
    kind: Literal["input", "output", "activation", "workspace"]


class ModelRecord(_Record):
    """A compiled model without its files."""

    name: Text
    version: Word
    model_hash: Sha256
    exact: bool
    requantised: bool = False
    arena_bytes: Bytes
    weights_bytes: Bytes
    macs: Count
    parameters: Count
    inputs: Annotated[tuple[TensorRecord, ...], Field(min_length=1, max_length=4096)]
    outputs: Annotated[tuple[TensorRecord, ...], Field(min_length=1, max_length=4096)]
    operators: Annotated[tuple[OperatorRecord, ...], Field(max_length=65_535)]
    allocations: Annotated[tuple[AllocationRecord, ...], Field(max_length=1_000_000)]

    @model_validator(mode="after")
    def _fits_its_arena(self) -> ModelRecord:
        for operator in self.operators:
            if operator.output_offset + operator.output_bytes > self.arena_bytes:
                raise ValueError(f"operator {operator.id} writes outside the arena")
        for index, allocation in enumerate(self.allocations):
            if allocation.offset + allocation.size_bytes > self.arena_bytes:
                raise ValueError(f"allocation {index} lies outside the arena")
        if [operator.id for operator in self.operators] != list(range(len(self.operators))):
            raise ValueError("operators are not numbered from 0")
        for tensor in (*self.inputs, *self.outputs):
            size = ITEM_SIZE[tensor.dtype]
            for dimension in tensor.shape:
                size *= dimension
            if size > self.arena_bytes:
                raise ValueError("an input or output is larger than the arena")
        return self

    def compiled(self, target: str, files: dict[str, bytes]) -> CompiledModel:
        """The compiled model again, with `files` read from the bundle."""
        return CompiledModel(
            name=self.name,
            target=target,
            version=self.version,
            model_hash=self.model_hash,
            files=files,
            inputs=tuple(_tensor(record) for record in self.inputs),
            outputs=tuple(_tensor(record) for record in self.outputs),
            operators=tuple(CompiledOperator(**record.model_dump()) for record in self.operators),
            allocations=tuple(Allocation(**record.model_dump()) for record in self.allocations),
            arena_bytes=self.arena_bytes,
            weights_bytes=self.weights_bytes,
            macs=self.macs,
            parameters=self.parameters,
            exact=self.exact,
            requantised=self.requantised,
        )


class MemoryRecord(_Record):
    flash_bytes: Bytes
    ram_bytes: Bytes
    arena_bytes: Bytes
    weights_bytes: Bytes
    stack_bytes: Bytes
    flash_limit: Bytes | None
    ram_limit: Bytes | None

    def use(self) -> MemoryUse:
        return MemoryUse(**self.model_dump())


class FileRecord(_Record):
    size_bytes: Annotated[int, Field(ge=0, le=1 << 30)]
    sha256: Sha256


class Manifest(_Record):
    """The whole document."""

    schema_version: Literal["edgekit.bundle/1"] = Field(alias="schema")
    edgekit: Word
    target: dict[str, JsonValue]
    """The target file's content, read again by `edgekit.target.parse_target`."""
    model: ModelRecord
    memory: MemoryRecord
    image: MemberPath
    library: MemberPath
    compiled_files: Annotated[tuple[MemberPath, ...], Field(max_length=256)]
    tools: Annotated[dict[Word, Word], Field(max_length=64)]
    """Program to version, as it printed it."""
    sources: Annotated[dict[MemberPath, Sha256], Field(max_length=1024)]
    """Every agent, platform and port source that was compiled in."""
    provenance: Annotated[dict[Word, Text], Field(max_length=256)]
    """What the caller says went in: hash of the source model, versions of packages."""
    files: Annotated[dict[MemberPath, FileRecord], Field(min_length=1, max_length=1024)]
    """Every file of the bundle but this one."""

    @model_validator(mode="after")
    def _names_its_files(self) -> Manifest:
        for path in (self.image, self.library, *self.compiled_files):
            if path not in self.files:
                raise ValueError(f"{path} is not among the files")
        if "manifest.json" in self.files:
            raise ValueError("the manifest cannot hold its own hash")
        return self


def model_record(compiled: CompiledModel) -> ModelRecord:
    """What the manifest says about `compiled`."""
    return ModelRecord(
        name=valid_text(compiled.name),
        version=compiled.version,
        model_hash=compiled.model_hash,
        exact=compiled.exact,
        requantised=compiled.requantised,
        arena_bytes=compiled.arena_bytes,
        weights_bytes=compiled.weights_bytes,
        macs=compiled.macs,
        parameters=compiled.parameters,
        inputs=tuple(_tensor_record(spec) for spec in compiled.inputs),
        outputs=tuple(_tensor_record(spec) for spec in compiled.outputs),
        operators=tuple(
            OperatorRecord(
                id=operator.id,
                name=valid_text(operator.name),
                op=operator.op,
                schedule=operator.schedule,
                macs=operator.macs,
                output_offset=operator.output_offset,
                output_bytes=operator.output_bytes,
                workspace_bytes=operator.workspace_bytes,
                weights_bytes=operator.weights_bytes,
                output_shape=operator.output_shape,
            )
            for operator in compiled.operators
        ),
        allocations=tuple(
            AllocationRecord(
                name=valid_text(allocation.name),
                offset=allocation.offset,
                size_bytes=allocation.size_bytes,
                first=allocation.first,
                last=allocation.last,
                kind=allocation.kind,
            )
            for allocation in compiled.allocations
        ),
    )


def _tensor_record(spec: TensorSpec) -> TensorRecord:
    quantization = spec.quantization
    return TensorRecord.model_validate(
        {
            "name": valid_text(spec.name),
            "shape": spec.shape,
            "dtype": spec.dtype,
            "quantization": None
            if quantization is None
            else {"scale": quantization.scale, "zero_point": quantization.zero_point},
        }
    )


def _tensor(record: TensorRecord) -> TensorSpec:
    quantization = record.quantization
    return TensorSpec(
        name=record.name,
        shape=record.shape,
        dtype=record.dtype,
        quantization=None
        if quantization is None
        else Quantization(quantization.scale, quantization.zero_point),
    )
