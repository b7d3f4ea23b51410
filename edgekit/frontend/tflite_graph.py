"""A TFLite file as plain dataclasses, parsed with bounds checks; what it means is checked elsewhere.

Field numbers are those of LiteRT's schema.fbs (version 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.errors import UnsupportedError
from edgekit.frontend.flatbuffer import FlatBuffer, Table

__all__ = ["QuantizationParameters", "TfliteGraph", "TfliteOperator", "TfliteTensor", "parse_tflite"]

MAX_TENSORS = 16_384
MAX_OPERATORS = 8_192
MAX_RANK = 8
MAX_OPERANDS = 1_024
MAX_CHANNELS = 65_536
MAX_NAME_BYTES = 4_096
READ_BUDGET = 4_000_000

DTYPES: Mapping[int, str] = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 7: "int16",
    8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 13: "resource", 14: "variant",
    15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16", 19: "int2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class QuantizationParameters:
    """real = scales[c] · (stored − zero_points[c]), c the index along `axis`; one element for per-tensor."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True)
class TfliteTensor:
    """A tensor; `data` is None for one that an operator or the caller fills."""

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    """The shape with −1 where a dimension is dynamic; equal to `shape` where the file says nothing."""
    dtype: str
    data: memoryview | None
    quantization: QuantizationParameters | None
    is_variable: bool
    is_sparse: bool

    def values(self) -> npt.NDArray[np.generic]:
        """The constant, of shape `shape`. The size of `data` was checked against the shape before."""
        assert self.data is not None
        return np.frombuffer(self.data, dtype=np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class TfliteOperator:
    """An operator: tensor indices in and out (−1 is an operand left out), and its raw options table."""

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_type: int
    options: Table | None


@dataclass(frozen=True, slots=True)
class TfliteGraph:
    """The single subgraph of a file."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _builtin_names() -> Mapping[int, str]:
    from tflite.BuiltinOperator import BuiltinOperator

    return {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}


def _operator_type(code: Table, names: Mapping[int, str]) -> str:
    # Files before schema 3a keep the code in an int8; both fields are read and the larger one counts.
    number = max(code.i8(0), code.i32(3))
    if number < 0:
        raise code.buffer.damaged(f"an operator code of {number}")
    name = names.get(number, f"BUILTIN_{number}")
    if name == "CUSTOM":
        return f"CUSTOM {code.string(1, MAX_NAME_BYTES)}".rstrip()
    return name


def _quantization(table: Table | None) -> QuantizationParameters | None:
    if table is None:
        return None
    scales = table.f32s(2, MAX_CHANNELS)
    if not scales:
        return None
    zero_points = table.i64s(3, MAX_CHANNELS) or ()
    if len(zero_points) != len(scales):
        raise table.buffer.damaged(f"{len(scales)} scales with {len(zero_points)} zero points")
    if table.u8(4) != 0:
        raise table.buffer.damaged("a custom quantisation scheme")
    return QuantizationParameters(scales, zero_points, table.i32(6))


def _tensor(index: int, table: Table, buffers: tuple[Table, ...]) -> TfliteTensor:
    file = table.buffer
    shape = table.i32s(0, MAX_RANK) or ()
    dtype = DTYPES.get(table.i8(1))
    if dtype is None:
        raise file.damaged(f"tensor {index} has the unknown type {table.i8(1)}")
    buffer_index = table.u32(2)
    if buffer_index >= len(buffers):
        raise file.damaged(f"tensor {index} uses buffer {buffer_index} of {len(buffers)}")
    buffer = buffers[buffer_index]
    if buffer.u64(1) > 1 or buffer.u64(2) > 1:
        raise file.damaged(f"buffer {buffer_index} lies outside the FlatBuffer (files over 2 GB)")
    data = buffer.data(0)
    return TfliteTensor(
        index=index,
        name=table.string(3, MAX_NAME_BYTES),
        shape=shape,
        signature=table.i32s(7, MAX_RANK) or shape,
        dtype=dtype,
        # An empty buffer is how files mark a tensor that is computed, unless the tensor itself is empty.
        data=data if data is not None and len(data) > 0 else memoryview(b"") if 0 in shape else None,
        quantization=_quantization(table.table(4)),
        is_variable=table.boolean(5),
        is_sparse=table.table(6) is not None,
    )


def _operator(index: int, table: Table, types: tuple[str, ...], tensors: int) -> TfliteOperator:
    file = table.buffer
    opcode = table.u32(0)
    if opcode >= len(types):
        raise file.damaged(f"operator {index} uses operator code {opcode} of {len(types)}")
    inputs = table.i32s(1, MAX_OPERANDS) or ()
    outputs = table.i32s(2, MAX_OPERANDS) or ()
    if any(not -1 <= i < tensors for i in inputs) or any(not 0 <= i < tensors for i in outputs):
        raise file.damaged(f"operator {index} refers to a tensor that does not exist (there are {tensors})")
    if not outputs:
        raise file.damaged(f"operator {index} has no output")
    return TfliteOperator(index, types[opcode], inputs, outputs, table.u8(3), table.table(4))


def parse_tflite(content: bytes) -> TfliteGraph:
    """Parse a TFLite file of one subgraph.

    Raises:
        ModelError: the file is damaged or has absurd counts.
        UnsupportedError: it has several subgraphs.
    """
    file = FlatBuffer(content, what="The TFLite file", budget=READ_BUDGET)
    model = file.root(b"TFL3")
    if model.u32(0) != 3:
        raise file.damaged(f"its schema version is {model.u32(0)}, not 3")
    subgraphs = model.tables(2, limit=1_024)
    if not subgraphs:
        raise file.damaged("it has no subgraph")
    if len(subgraphs) > 1:
        raise UnsupportedError(
            f"The TFLite file has {len(subgraphs)} subgraphs; models of exactly one are supported.",
            hint="Export the model without control flow (IF, WHILE, CALL).",
        )
    names = _builtin_names()
    types = tuple(_operator_type(code, names) for code in model.tables(1, limit=1_024))
    buffers = model.tables(4, limit=4 * MAX_TENSORS)
    graph = subgraphs[0]
    tensors = tuple(_tensor(i, t, buffers) for i, t in enumerate(graph.tables(0, MAX_TENSORS)))
    operators = tuple(
        _operator(i, t, types, len(tensors)) for i, t in enumerate(graph.tables(3, MAX_OPERATORS))
    )
    inputs = graph.i32s(1, MAX_OPERANDS) or ()
    outputs = graph.i32s(2, MAX_OPERANDS) or ()
    if any(not 0 <= i < len(tensors) for i in (*inputs, *outputs)):
        raise file.damaged("an input or output of the model is a tensor that does not exist")
    return TfliteGraph(tensors, operators, inputs, outputs)
