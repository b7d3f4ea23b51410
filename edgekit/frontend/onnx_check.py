"""An ONNX file, read and checked before any converter or runtime sees it.

The order matters: the wire format first (bounded memory), then counts and constants (every tensor has the
bytes of its shape, external ones come from the model's own folder), then operator types, all of them at once,
and only then ONNX's own checker and shape inference, which are C++ and know no bounds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from edgekit.artifacts import Place
from edgekit.errors import ModelError, UnsupportedError
from edgekit.frontend.onnx_floats import reals_as_float32
from edgekit.frontend.onnx_fold import foldable_nodes
from edgekit.frontend.onnx_graph import nested_graphs, sort_nodes
from edgekit.frontend.onnx_infer import MAX_RANK, first_line, wrong
from edgekit.frontend.onnx_names import importable
from edgekit.frontend.onnx_places import SourceNode, source_nodes
from edgekit.frontend.onnx_qoperator import raised, rewrite_integer_operators
from edgekit.frontend.onnx_rewrite import rewrite
from edgekit.frontend.protobuf import check_onnx_wire
from edgekit.frontend.shapes import MAX_ELEMENTS, fix_input_shapes, shape_text, show_name
from edgekit.frontend.source import MAX_MODEL_BYTES, Source, read_regular_file
from edgekit.frontend.unsupported import Unsupported, refuse

__all__ = ["CheckedOnnx", "check_onnx", "is_quantized"]

OPSETS = range(7, onnx.defs.onnx_opset_version() + 1)
"""Of the default domain. Before 7 operators broadcast by attributes."""

CONVERTED_OPSET = 11
"""Earlier ones define some operators differently; ONNX's own converter brings them here."""

IR_VERSIONS = range(3, onnx.IR_VERSION + 1)

MAX_NODES = 20_000
MAX_NAME_BYTES = 4_096

ITEM_BITS: Mapping[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16,
    TensorProto.INT16: 16, TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.BOOL: 8,
    TensorProto.DOUBLE: 64, TensorProto.FLOAT16: 16, TensorProto.UINT32: 32, TensorProto.UINT64: 64,
    TensorProto.BFLOAT16: 16,
}  # fmt: skip

GEOMETRY: Mapping[str, tuple[int, int]] = {
    "kernel_shape": (1, 1 << 16),
    "strides": (1, 1 << 16),
    "dilations": (1, 1 << 16),
    "pads": (0, 1 << 20),
    "output_padding": (0, 1 << 16),
    "output_shape": (1, 1 << 20),
    "group": (1, 1 << 20),
}
"""Least and largest value of attributes that are sizes."""

INPUT_TYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.INT32: "int32",
    TensorProto.UINT32: "uint32",
    TensorProto.INT64: "int64",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
}


@dataclass(frozen=True, slots=True)
class CheckedOnnx:
    """A checked model whose every tensor has a fixed shape, its constants all inside.

    `sha256` covers the file and the external data it names, in the order in which it names them.
    """

    model: ModelProto
    sha256: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: Mapping[str, SourceNode]
    """The operators of the file as it came, by the names of their outputs."""


def _attribute_tensors(nodes: Iterator[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    for inner in nested_graphs(graph):
        yield from inner.initializer
        yield from _attribute_tensors(iter(inner.node))


def _external_path(name: str, folder: Path) -> Path:
    """The file that external data names, inside the model's own folder and reached through no link."""
    parts = PurePosixPath(name).parts
    if (
        not name
        or "\0" in name
        or "\\" in name
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).drive
        or ".." in parts
    ):
        raise wrong(f"its weights are said to be in {show_name(name)}, outside the model's folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise wrong(f"its weights are said to be in {show_name(name)}, which is a symbolic link")
    return path


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise wrong(f"tensor {show_name(name)} has the external offset or length {show_name(text)}")
    return int(text)


def _load_external(model: ModelProto, source: Source) -> str:
    """Move external data into the model; returns the SHA-256 over the file and that data."""
    digest = hashlib.sha256(source.content)
    files: dict[str, bytes] = {}
    left = MAX_MODEL_BYTES
    found = False
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        found = True
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            path = _external_path(location, source.path.parent)
            files[location] = read_regular_file(path, left, follow_symlinks=False)
            left -= len(files[location])
        data = files[location]
        offset = _number(entries.get("offset", "0"), tensor.name)
        length = _number(entries["length"], tensor.name) if "length" in entries else len(data) - offset
        if length < 0 or offset + length > len(data):
            raise wrong(f"tensor {show_name(tensor.name)} lies past the end of {show_name(location)}")
        left -= length
        if left < 0:
            raise wrong(f"its external data is more than {MAX_MODEL_BYTES:,} bytes")
        tensor.raw_data = data[offset : offset + length]
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
        digest.update(tensor.raw_data)
    return digest.hexdigest() if found else source.sha256


def _check_constant(tensor: TensorProto) -> None:
    elements = 1
    for d in tensor.dims:
        elements *= d
        if d < 0 or elements > MAX_ELEMENTS:
            raise wrong(
                f"tensor {show_name(tensor.name)} has the shape {shape_text(tuple(tensor.dims)[:16])}"
            )
    if len(tensor.dims) > MAX_RANK:
        raise wrong(f"tensor {show_name(tensor.name)} has {len(tensor.dims)} dimensions")
    bits = ITEM_BITS.get(tensor.data_type)
    if bits is None:
        raise UnsupportedError(
            f"Tensor {show_name(tensor.name)} of the ONNX file has the element type {tensor.data_type}, "
            "which has no converter."
        )
    if tensor.HasField("raw_data"):
        stored = len(tensor.raw_data) * 8 // bits
        if len(tensor.raw_data) * 8 != elements * bits:
            stored = -1
    else:
        lists = (
            tensor.float_data,
            tensor.int32_data,
            tensor.int64_data,
            tensor.double_data,
            tensor.uint64_data,
        )
        stored = sum(map(len, lists))
    if stored != elements:
        raise wrong(f"tensor {show_name(tensor.name)} does not have the data of its shape")


def _default_opset(model: ModelProto) -> int:
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise wrong(f"it imports {len(versions)} versions of the standard operators")
    if versions[0] not in OPSETS:
        raise UnsupportedError(
            f"The ONNX file uses operator set {versions[0]}; {OPSETS[0]} to {OPSETS[-1]} are supported.",
            hint="Export it again, e.g. torch.onnx.export(..., opset_version=17).",
        )
    return int(versions[0])


def _check_structure(model: ModelProto) -> None:
    """Counts, versions, names and constants."""
    if not model.HasField("graph"):
        raise wrong("it has no graph")
    if model.ir_version not in IR_VERSIONS:
        raise UnsupportedError(
            f"The ONNX file has format version {model.ir_version}; "
            f"{IR_VERSIONS[0]} to {IR_VERSIONS[-1]} are supported."
        )
    graph = model.graph
    if not graph.node or not graph.output:
        raise wrong("it has no operator or no output")
    graphs = list(nested_graphs(graph))
    count = sum(len(inner.node) for inner in graphs)
    if count > MAX_NODES:
        raise wrong(f"it has {count:,} operators; at most {MAX_NODES:,} are accepted")
    if any(inner.sparse_initializer for inner in graphs):
        raise UnsupportedError("The ONNX file has sparse weights, which have no converter.")
    for index, node in enumerate(node for inner in graphs for node in inner.node):
        _check_attributes(node, index)
        for name in (*node.input, *node.output, node.op_type, node.domain):
            if len(name) > MAX_NAME_BYTES:
                raise wrong(f"a name of {len(name):,} characters")
    _default_opset(model)
    for tensor in _tensors(graph):
        _check_constant(tensor)


def _in_later_opset(model: ModelProto) -> ModelProto:
    """The model in operator set `CONVERTED_OPSET` at least.

    Raises:
        ModelError: the file makes no sense to ONNX's checker, which its converter relies on.
        UnsupportedError: an operator that the converter does not know.
    """
    if _default_opset(model) >= CONVERTED_OPSET:
        return model
    _run_checker(model)
    if sum(1 for _ in nested_graphs(model.graph)) > 1:
        raise UnsupportedError(
            f"The ONNX file uses control flow of operator set {_default_opset(model)}; it is supported from "
            f"{CONVERTED_OPSET} on.",
            hint="Export it again, e.g. torch.onnx.export(..., opset_version=17).",
        )
    return raised(model, CONVERTED_OPSET)


def _check_attributes(node: NodeProto, index: int) -> None:
    """Geometry within sense: parts of ONNX, ONNX Runtime and TVM divide by what a file says here."""
    for attribute in node.attribute:
        low, high = GEOMETRY.get(attribute.name, (None, None))
        if low is None:
            continue
        values = (*attribute.ints, attribute.i) if attribute.name == "group" else attribute.ints
        if len(values) > 2 * MAX_RANK or not all(low <= v <= high for v in values):
            raise wrong(
                f"{node.op_type} {show_name(next(iter(node.output), ''))} (operator {index}) has "
                f"{attribute.name} {list(values)[:8]}"
            )


def _check_operators(model: ModelProto) -> None:
    found: list[Unsupported] = []
    local = {(f.domain, f.name) for f in model.functions}
    foldable = foldable_nodes(model.graph)
    for graph in nested_graphs(model.graph):
        for index, node in enumerate(graph.node):
            if graph is model.graph and index in foldable:
                continue
            if importable(node) and (node.domain, node.op_type) not in local:
                continue
            standard = node.domain in ("", "ai.onnx")
            reason = "no converter" if standard else f"no converter for operators of {show_name(node.domain)}"
            name = next(iter(node.output), node.name)
            found.append(Unsupported(Place(op=node.op_type, name=name, index=index), reason))
    refuse(found)


def _declared_shape(kind: TypeProto, name: str) -> tuple[int | None, ...] | None:
    if not kind.HasField("tensor_type") or kind.tensor_type.elem_type not in INPUT_TYPES:
        raise UnsupportedError(
            f"Input {show_name(name)} of the ONNX file is not a tensor of float16, float32, float64, "
            "integers of 8 to 64 bits, or bool."
        )
    if not kind.tensor_type.HasField("shape"):
        return None
    shape: list[int | None] = []
    for d in kind.tensor_type.shape.dim:
        if d.HasField("dim_value") and d.dim_value < 0:
            raise wrong(f"input {show_name(name)} has a dimension of {d.dim_value}")
        shape.append(d.dim_value if d.HasField("dim_value") else None)
    elements = math.prod(d or 1 for d in shape)
    if len(shape) > MAX_RANK or elements > MAX_ELEMENTS:
        raise wrong(f"input {show_name(name)} has the shape {shape_text(tuple(shape[:16]))}")
    return tuple(shape)


def _fix_inputs(model: ModelProto, shapes: Mapping[str, tuple[int, ...]] | None) -> tuple[str, ...]:
    """Write fixed shapes into the model's inputs; returns the names of those that are no constants."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in constants]
    if not kept:
        raise wrong("it has no input")
    if len({value.name for value in kept}) != len(kept):
        raise wrong("two inputs have the same name")
    declared = {value.name: _declared_shape(value.type, value.name) for value in kept}
    fixed = fix_input_shapes(declared, shapes)
    reshaped = any(fixed[name] != declared[name] for name in fixed)
    for value in kept:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for d in fixed[value.name]:
            shape.dim.add().dim_value = d
    if reshaped:
        # What the file says of the tensors in between was said with the dimensions open.
        del graph.value_info[:]
        for output in graph.output:
            output.type.tensor_type.ClearField("shape")
    return tuple(value.name for value in kept)


def is_quantized(model: ModelProto) -> bool:
    """Whether the file carries its own quantisation, as QuantizeLinear and DequantizeLinear."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


def _run_checker(model: ModelProto) -> None:
    """ONNX's own checker; but an output without a shape, which every runtime takes, passes."""
    shapeless = [o.type.tensor_type for o in model.graph.output if not o.type.tensor_type.HasField("shape")]
    for kind in shapeless:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(model, full_check=False)
    except Exception as error:  # onnx.checker.ValidationError, or what protobuf makes of a broken message.
        raise wrong(first_line(error)) from None
    for kind in shapeless:
        kind.ClearField("shape")


def check_onnx(source: Source, shapes: Mapping[str, tuple[int, ...]] | None) -> CheckedOnnx:
    """Parse and check an ONNX file, take in its external data, fix its shapes.

    Raises:
        ModelError: the file is damaged or contradicts itself, or an input has a dynamic dimension.
        UnsupportedError: operators without a converter, all of them at once; a version out of range.
        UsageError: `shapes` does not fit the model.
    """
    check_onnx_wire(source.content)
    model = ModelProto()
    try:
        model.ParseFromString(source.content)
    except DecodeError:
        raise ModelError("The ONNX file is damaged: it is no serialised ModelProto.") from None
    _check_operators(model)
    sha256 = _load_external(model, source)
    _check_structure(model)
    # Nothing of these is run; without them nothing has to be checked in them.
    for field in ("training_info", "functions", "metadata_props", "configuration"):
        model.ClearField(field)
    model.graph.ClearField("quantization_annotation")
    # Version 4 only no longer asks that constants are listed as inputs, too.
    model.ir_version = max(model.ir_version, 4)
    reals_as_float32(model)
    inputs = _fix_inputs(model, shapes)
    produced = {name for node in model.graph.node for name in node.output}
    outputs = tuple(value.name for value in model.graph.output)
    if len(set(outputs)) != len(outputs) or not set(outputs) <= produced:
        raise wrong("an output is listed twice, or no operator computes it")
    nodes = source_nodes(model.graph)
    sort_nodes(model.graph)
    model = _in_later_opset(model)
    model, origins = rewrite_integer_operators(model)
    opset = _default_opset(model)
    _run_checker(model)
    model, written = rewrite(model)
    origins |= written
    if not set(outputs) <= {name for node in model.graph.node for name in node.output}:
        raise wrong("an output is a shape and not a tensor")
    nodes |= {
        name: nodes[source] for name, source in origins.items() if source in nodes and name not in nodes
    }
    return CheckedOnnx(model, sha256, opset, inputs, outputs, nodes)
