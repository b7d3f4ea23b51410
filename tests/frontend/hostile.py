"""A corpus of damaged and hostile model files, generated from small good ones."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from tests.frontend.onnx_models import OnnxBuilder
from tests.reference.tflite_builder import TfliteBuilder

__all__ = [
    "ONNX_CHANGES",
    "TFLITE_CHANGES",
    "damaged",
    "good_onnx",
    "good_tflite",
    "hostile_files",
    "onnx_with",
    "tflite_with",
    "truncated",
]


def good_tflite() -> bytes:
    """One of each shape of table: convolutions, pooling, a join, a classifier."""
    rng = np.random.default_rng(0)
    b = TfliteBuilder()
    x = b.input((1, 8, 8, 3), 0.05, 3, name="x")
    w = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    c = b.conv2d(x, w, np.arange(4, dtype=np.int32), [0.01] * 4, 0.1, -5, activation="RELU6")
    w = rng.integers(-127, 128, (1, 3, 3, 4)).astype(np.int8)
    d = b.depthwise_conv2d(c, w, np.arange(4, dtype=np.int32), [0.01] * 4, 0.1, -5, stride=(2, 2))
    e = b.pad(b.max_pool(c, (2, 2), stride=(2, 2)), [(0, 0), (0, 0), (0, 0), (0, 0)])
    s = b.add(d, e, 0.1, 0)
    m = b.reshape(b.mean(s, (1, 2), 0.1, 0), (1, 4))
    f = b.fully_connected(m, rng.integers(-127, 128, (5, 4)).astype(np.int8), None, [0.01], 0.1, 1)
    b.output(b.softmax(f))
    return b.build()


def good_onnx(*, quantized: bool) -> onnx.ModelProto:
    """Input x (1, 3, 8, 8): a convolution, a pooling, a classifier; in QDQ form by hand, or float."""
    b = OnnxBuilder(np.random.default_rng(0))
    x = b.input("x", (1, 3, 8, 8))
    if quantized:
        scale, zero = b.constant(np.float32(0.05)), b.constant(np.int8(3))
        x = b.node("DequantizeLinear", [b.node("QuantizeLinear", [x, scale, zero]), scale, zero])
        w = b.constant(np.random.default_rng(1).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8))
        scales, zeros = b.constant(np.full(4, 0.01, np.float32)), b.constant(np.zeros(4, np.int8))
        w = b.node("DequantizeLinear", [w, scales, zeros], axis=0)
        x = b.node("Conv", [x, w], pads=[1, 1, 1, 1], strides=[2, 2])
        x = b.node("DequantizeLinear", [b.node("QuantizeLinear", [x, scale, zero]), scale, zero])
    else:
        x = b.node("Relu", [b.conv(x, 3, 4, pads=[1, 1, 1, 1], strides=[2, 2])])
    x = b.node("Flatten", [b.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])])
    b.output(b.node("Gemm", [x, b.weights(16, 3), b.weights(3)], name="y"), (1, 3))
    return b.build()


def damaged(content: bytes, seed: int) -> bytes:
    """A copy with one to eight bytes changed, a range zeroed or a range copied over another."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    kind = rng.integers(0, 6)
    start = int(rng.integers(0, len(data)))
    if kind <= 2:
        data[start] ^= 1 << int(rng.integers(0, 8))
    elif kind == 3:
        for position in rng.integers(0, len(data), 8):
            data[position] = int(rng.integers(0, 256))
    elif kind == 4:
        length = int(rng.integers(1, 32))
        data[start : start + length] = bytes(len(data[start : start + length]))
    else:
        length = int(rng.integers(4, 64))
        source = int(rng.integers(0, max(1, len(data) - length)))
        piece = data[source : source + length][: len(data) - start]
        data[start : start + len(piece)] = piece
    return bytes(data)


def truncated(content: bytes) -> Iterator[bytes]:
    """Every prefix that ends at a multiple of 4 KB, and all but the last byte."""
    for size in range(4096, len(content), 4096):
        yield content[:size]
    yield content[:-1]


# --- TFLite: a change of the unpacked tables, then packed again ---


def tflite_with(change: Callable[[Any], None]) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(good_tflite(), 0)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _graph(model: Any) -> Any:
    return model.subgraphs[0]


def _set(path: str, value: Any) -> Callable[[Any], None]:
    """Assign to an attribute path in the first subgraph: `operators[0].inputs`."""

    def change(model: Any) -> None:
        *parents, last = path.replace("]", "").replace("[", ".").split(".")
        target = _graph(model)
        for name in parents:
            target = target[int(name)] if name.isdigit() else getattr(target, name)
        setattr(target, last, value)

    return change


def _swap_first_operators(model: Any) -> None:
    operators = _graph(model).operators
    operators[0], operators[1] = operators[1], operators[0]


def _twice_the_graph(model: Any) -> None:
    model.subgraphs = [_graph(model), _graph(model)]


def _no_graph(model: Any) -> None:
    model.subgraphs = []


def _custom(model: Any) -> None:
    model.operatorCodes[0].deprecatedBuiltinCode = 32
    model.operatorCodes[0].builtinCode = 32
    model.operatorCodes[0].customCode = b"\x1b[2J*/<script>../"


def _many_operators_on_one_vector(model: Any) -> None:
    graph = _graph(model)
    graph.operators = graph.operators * 1000
    graph.operators[0].inputs = [0] * 1000


TFLITE_CHANGES: dict[str, Callable[[Any], None]] = {
    "cycle": _set("operators[0].inputs", [11, 1, 2]),
    "reads-its-own-output": _set("operators[0].inputs", [3, 1, 2]),
    "out-of-order": _swap_first_operators,
    "two-graphs": _twice_the_graph,
    "no-graph": _no_graph,
    "custom-operator": _custom,
    "operator-bomb": _many_operators_on_one_vector,
    "input-out-of-range": _set("operators[0].inputs", [0, 1, 999]),
    "input-very-negative": _set("operators[0].inputs", [-2147483648, 1, 2]),
    "no-data-input": _set("operators[0].inputs", [-1, 1, 2]),
    "no-operands": _set("operators[0].inputs", []),
    "no-output": _set("operators[0].outputs", []),
    "no-options": _set("operators[0].builtinOptions", None),
    "opcode-out-of-range": _set("operators[0].opcodeIndex", 77),
    "zero-stride": _set("operators[0].builtinOptions.strideH", 0),
    "negative-stride": _set("operators[0].builtinOptions.strideW", -3),
    "huge-stride": _set("operators[0].builtinOptions.strideW", 2**31 - 1),
    "zero-dilation": _set("operators[0].builtinOptions.dilationHFactor", 0),
    "padding-9": _set("operators[0].builtinOptions.padding", 9),
    "activation-99": _set("operators[0].builtinOptions.fusedActivationFunction", 99),
    "negative-shape": _set("tensors[0].shape", [1, -8, 8, 3]),
    "overflowing-shape": _set("tensors[0].shape", [65536, 65536, 65536, 65536]),
    "zero-shape": _set("tensors[0].shape", [1, 0, 8, 3]),
    "long-shape": _set("tensors[0].shape", [1] * 5000),
    "wrong-output-shape": _set("tensors[3].shape", [1, 8, 8, 400]),
    "weights-of-another-shape": _set("tensors[1].shape", [4, 3, 3, 300]),
    "zero-scale": _set("tensors[0].quantization.scale", [0.0]),
    "nan-scale": _set("tensors[0].quantization.scale", [float("nan")]),
    "infinite-scale": _set("tensors[0].quantization.scale", [float("inf")]),
    "negative-scale": _set("tensors[0].quantization.scale", [-1.0]),
    "zero-point-out-of-range": _set("tensors[0].quantization.zeroPoint", [128]),
    "more-scales-than-zero-points": _set("tensors[1].quantization.scale", [0.1] * 9),
    "channel-axis-out-of-range": _set("tensors[1].quantization.quantizedDimension", 7),
    "no-quantization": _set("tensors[0].quantization", None),
    "buffer-out-of-range": _set("tensors[1].buffer", 4_000_000),
    "weights-are-the-bias-bytes": _set("tensors[1].buffer", 2),
    "unknown-type": _set("tensors[0].type", 99),
    "string-type": _set("tensors[0].type", 5),
    "model-output-is-a-constant": _set("outputs", [1]),
    "model-input-is-a-constant": _set("inputs", [1]),
    "model-input-is-computed": _set("inputs", [3]),
    "model-outputs-out-of-range": _set("outputs", [12345]),
    "no-outputs": _set("outputs", []),
    "dynamic-height": _set("tensors[0].shapeSignature", [1, -1, 8, 3]),
    "signature-of-another-rank": _set("tensors[0].shapeSignature", [1, 8]),
    "variable": _set("tensors[0].isVariable", True),
}


def _overlapping_buffers() -> bytes:
    """All vectors of constants begin where the longest one does: each is inside another."""
    content = bytearray(good_tflite())
    model = schema.Model.GetRootAs(bytes(content), 0)
    places = []
    for index in range(model.BuffersLength()):
        table = model.Buffers(index)._tab
        offset = table.Offset(4)
        if offset:
            places.append((table.Pos + offset, table.Vector(offset) - 4))
    longest = max(start for _, start in places)
    for field, start in places:
        if start < longest:
            struct.pack_into("<I", content, field, longest - field)
    return bytes(content)


def _vector_bomb() -> bytes:
    """A table whose vector claims four billion elements."""
    content = bytearray(good_tflite())
    for position in range(8, len(content) - 4, 4):
        if struct.unpack_from("<I", content, position)[0] == 11:
            struct.pack_into("<I", content, position, 0xFFFFFFFF)
    return bytes(content)


# --- ONNX ---------------------------------------------------------------------------------------------------


def onnx_with(change: Callable[[onnx.ModelProto], None], *, quantized: bool = True) -> bytes:
    model = good_onnx(quantized=quantized)
    change(model)
    return bytes(model.SerializeToString())


def _node(op: str) -> Callable[[onnx.ModelProto], onnx.NodeProto]:
    return lambda model: next(node for node in model.graph.node if node.op_type == op)


def _attribute(op: str, name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = _node(op)(model)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _constant(position: int, values: np.ndarray) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[position]
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return change


def _input_shape(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        del shape.dim[:]
        for d in dims:
            shape.dim.add().dim_value = d

    return change


def _rewire(op: str, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        _node(op)(model).input[0] = name

    return change


def _operator(op: str, domain: str = "") -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = _node("MaxPool")(model)
        node.op_type, node.domain = op, domain

    return change


def _dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[2].dims[0] = 2**40


def _raw(model: onnx.ModelProto) -> None:
    model.graph.initializer[2].raw_data = b"1234"


def _opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 2**62


def _loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["x"], ["loop"], body=body))


def _same_output(model: onnx.ModelProto) -> None:
    _node("MaxPool")(model).output[0] = _node("Conv")(model).output[0]


ONNX_CHANGES: dict[str, Callable[[onnx.ModelProto], None]] = {
    "cycle": _rewire("Conv", "y"),
    "unknown-tensor": _rewire("Conv", "nowhere"),
    "written-twice": _same_output,
    "no-nodes": lambda m: m.graph.ClearField("node"),
    "no-graph": lambda m: m.ClearField("graph"),
    "no-opset": lambda m: m.ClearField("opset_import"),
    "huge-opset": _opset,
    "old-format": lambda m: setattr(m, "ir_version", 1),
    "zero-stride": _attribute("Conv", "strides", [0, 0]),
    "negative-stride": _attribute("Conv", "strides", [-1, -1]),
    "zero-group": _attribute("Conv", "group", 0),
    "large-group": _attribute("Conv", "group", 7),
    "negative-pads": _attribute("Conv", "pads", [-9, -9, -9, -9]),
    "huge-pads": _attribute("Conv", "pads", [2**40] * 4),
    "zero-kernel": _attribute("MaxPool", "kernel_shape", [0, 0]),
    "short-kernel": _attribute("MaxPool", "kernel_shape", [2]),
    "bad-auto-pad": _attribute("Conv", "auto_pad", "\x1b[31m"),
    "axis-out-of-range": _attribute("Flatten", "axis", 99),
    "negative-dimension": _input_shape(1, -3, 8, 8),
    "zero-dimension": _input_shape(1, 0, 8, 8),
    "huge-dimension": _input_shape(1, 3, 2**31, 2**31),
    "many-dimensions": _input_shape(*[1] * 5000),
    "another-channel-count": _input_shape(1, 5, 8, 8),
    "tensor-of-2^40": _dims,
    "short-tensor": _raw,
    "zero-scale": _constant(0, np.array(0, np.float32)),
    "nan-scale": _constant(0, np.array(np.nan, np.float32)),
    "negative-scale": _constant(0, np.array(-1, np.float32)),
    "scales-of-another-length": _constant(3, np.full(3, 0.1, np.float32)),
    "loop": _loop,
    "unknown-operator": _operator("*/<script>alert(1)</script>\x1b[2J"),
    "unknown-domain": _operator("MaxPool", "../../evil"),
    "constant-of-shape": _operator("ConstantOfShape"),
}


class _Payload:
    """Unpickled, it makes a file: the proof that something was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mknod, (str(self.path),))


def _pickle_that_runs(folder: Path) -> bytes:
    return pickle.dumps(_Payload(folder / "it-ran"))


def _archive_that_runs(folder: Path) -> bytes:
    """A zip as torch.save and torch.export.save write them, each of its pickles a payload."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "sample_inputs/model.pt", "weights/model.pt"):
            archive.writestr(f"model/{name}", _pickle_that_runs(folder))
        archive.writestr("model/version", "3\n")
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/models/model.json", '{"graph_module": {"__import__": "os"}}')
    return file.getvalue()


def _zip_bomb() -> bytes:
    """64 MiB of zeros in a few kilobytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", bytes(64 << 20))
    return file.getvalue()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _node_bomb() -> bytes:
    """Six megabytes that unpack to three million empty nodes."""
    graph = b"\x0a\x00" * 3_000_000
    return b"\x08\x08\x3a" + _varint(len(graph)) + graph


def _nested_graphs() -> bytes:
    """Two thousand graphs, each in an attribute of the only node of the one around it."""

    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    graph = b""
    for _ in range(2000):
        graph = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, graph)))
    return b"\x08\x08" + field(7, graph)


def _external(location: str) -> bytes:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[2]
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=str(length))

    return onnx_with(change)


def hostile_files(folder: Path, flips: int) -> Iterator[Path]:
    """Write the corpus into `folder`; all of it must be refused, or load where the damage is harmless."""

    def write(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    tflite = good_tflite()
    files = {"qdq": good_onnx(quantized=True), "float": good_onnx(quantized=False)}
    good = {"good.tflite": tflite} | {f"good-{k}.onnx": m.SerializeToString() for k, m in files.items()}
    for name, content in good.items():
        stem, suffix = name.split(".")
        yield write(name, content)
        for i in range(12):
            yield write(f"{stem}-cut-{i}.{suffix}", content[: len(content) * i // 12])
        yield write(f"{stem}-cut-last-byte.{suffix}", content[:-1])
        yield write(f"{stem}-with-a-tail.{suffix}", content + b"\0" * 999)
        for seed in range(flips if stem != "good-float" else flips // 8):
            yield write(f"{stem}-damaged-{seed}.{suffix}", damaged(content, seed))
    for name, change in TFLITE_CHANGES.items():
        yield write(f"{name}.tflite", tflite_with(change))
    yield write("vector-bomb.tflite", _vector_bomb())
    yield write("overlapping-buffers.tflite", _overlapping_buffers())
    yield write("offsets.tflite", struct.pack("<I", 0xFFFFFFF0) + b"TFL3" + bytes(64))
    yield write("all-ones.tflite", b"\x10\0\0\0TFL3" + b"\xff" * 4096)
    for name, change in ONNX_CHANGES.items():
        yield write(f"{name}.onnx", onnx_with(change))
    yield write("zip-bomb.onnx", _zip_bomb())
    yield write("zip-bomb.tflite", tflite + _zip_bomb())
    yield write("node-bomb.onnx", _node_bomb())
    yield write("nested-graphs.onnx", _nested_graphs())
    for suffix in ("onnx", "tflite"):
        yield write(f"empty.{suffix}", b"")
        yield write(f"text.{suffix}", b"hello, this is a text\n" * 50)
        yield write(f"pickle.{suffix}", pickle.dumps({"a": list(range(1000))}))
        yield write(f"random.{suffix}", np.random.default_rng(5).bytes(100_000))
        directory = folder / f"directory.{suffix}"
        directory.mkdir()
        yield directory
        yield folder / f"missing.{suffix}"
        fifo = folder / f"fifo.{suffix}"
        os.mkfifo(fifo)
        yield fifo
        device = folder / f"device.{suffix}"
        device.symlink_to("/dev/zero")
        yield device
    for suffix in ("pt", "pth", "pt2", "pkl"):
        yield write(f"pickle-that-runs.{suffix}", _pickle_that_runs(folder))
        yield write(f"archive-that-runs.{suffix}", _archive_that_runs(folder))
    yield write("model.pt", b"PK\3\4")
    yield write("model", tflite)
    (folder / "outside").write_bytes(bytes(108))
    inner = folder / "inner"
    inner.mkdir()
    (inner / "link").symlink_to(folder / "outside")
    os.mkfifo(inner / "fifo")
    (inner / "short").write_bytes(bytes(10))
    locations = {
        "up": "../outside", "absolute": str(folder / "outside"), "symlink": "link", "fifo": "fifo",
        "short": "short", "missing": "missing", "device": "/dev/zero", "nothing": "",
        "backslash": "..\\outside", "itself": ".",
    }  # fmt: skip
    for name, location in locations.items():
        yield write(f"inner/external-{name}.onnx", _external(location))
