"""Float operators against ONNX Runtime and numpy: alone, between integers, and as whole models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from edgekit.artifacts import ImportOptions
from edgekit.compiler import compile_model
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.program import Program
from edgekit.frontend import load_model
from edgekit.pipeline import deploy
from edgekit.target import load_target
from tests.compiler.qdq import Graph, qdq_model
from tests.frontend.host import run_on_host
from tests.reference.host_library import build_host_library
from tests.reference.onnx_builder import run_onnxruntime

Array = NDArray[Any]
RNG = np.random.default_rng(7)
ELEMENT = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}

X = RNG.normal(size=(2, 4, 6, 6)).astype(np.float32)
POSITIVE = RNG.uniform(0.1, 3.0, size=(3, 10)).astype(np.float32)
INDICES = np.array([-1, 2, 0], np.int64)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """An ONNX operator: names of inputs ('x', 'p', 'i'), constants behind them, attributes, results."""

    op: str
    inputs: tuple[str, ...]
    constants: tuple[Array, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    dtypes: tuple[str, ...] = ("float32",)


def case(
    op: str, inputs: str, *constants: Array, dtypes: Sequence[str] = ("float32",), **attributes: Any
) -> Case:
    return Case(op, tuple(inputs), constants, tuple(attributes.items()), tuple(dtypes))


CASES = [
    case("Exp", "x"), case("Log", "p"), case("Sqrt", "p"), case("Erf", "x"), case("Tanh", "x"),
    case("Sin", "x"), case("Floor", "x"), case("Sigmoid", "x"), case("Softplus", "x"),
    case("Elu", "x", alpha=0.7), case("Pow", "p", np.float32(1.7)), case("Mul", "xx"), case("Div", "pp"),
    case("Conv", "x", normal(5, 4, 3, 3), normal(5), pads=[1, 1, 1, 1]),
    case("Conv", "x", normal(8, 4, 3, 3), pads=[1, 0, 1, 2], strides=[2, 1]),
    case("Conv", "x", normal(16, 4, 1, 1), normal(16)),
    case("Conv", "x", normal(4, 1, 3, 3), pads=[1, 1, 1, 1], group=4),
    case("Conv", "x", normal(8, 2, 3, 3), group=2),
    case("ConvTranspose", "x", normal(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MatMul", "p", normal(10, 32)), case("Gemm", "p", normal(7, 10), normal(7), transB=1),
    case("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2]),
    case("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("GlobalAveragePool", "x"),
    case("BatchNormalization", "x", normal(4), normal(4), normal(4), np.abs(normal(4)) + 1),
    case("LayerNormalization", "x", normal(6), normal(6), axis=-1),
    case("Softmax", "x", axis=1), case("LogSoftmax", "p", axis=1),
    case("ReduceMax", "x", axes=[2, 3], keepdims=1), case("ReduceProd", "p", axes=[1]),
    case("ArgMax", "x", axis=1, dtypes=["int64"]),
    case("CumSum", "p", np.array(1, np.int64)),
    case("TopK", "p", np.array([3], np.int64), axis=1, dtypes=["float32", "int64"]),
    case("TopK", "x", np.array([2], np.int64), axis=2, largest=0, dtypes=["float32", "int64"]),
    case("Split", "p", np.array([3, 7], np.int64), axis=1, dtypes=["float32", "float32"]),
    case("Gather", "xi", axis=1), case("Gather", "p", np.array([-1, 0], np.int64), axis=1),
    case("Greater", "x", np.float32(0.2), dtypes=["bool"]),
    case("Transpose", "x", perm=[0, 2, 3, 1]), case("Tile", "x", np.array([7, 6, 4, 2], np.int64)),
]  # fmt: skip


def float_model() -> tuple[bytes, list[str]]:
    """One ONNX model with every case; its outputs in order with the operator that each belongs to."""
    names = {"x": X, "p": POSITIVE, "i": INDICES}
    nodes, constants, outputs, owners = [], [], [], []
    for number, each in enumerate(CASES):
        operands = list(each.inputs)
        for values in each.constants:
            constants.append(numpy_helper.from_array(np.asarray(values), f"c{len(constants)}"))
            operands.append(constants[-1].name)
        results = [f"y{number}_{position}" for position in range(len(each.dtypes))]
        nodes.append(helper.make_node(each.op, operands, results, **dict(each.attributes)))
        for name, dtype in zip(results, each.dtypes, strict=True):
            outputs.append(helper.make_tensor_value_info(name, ELEMENT[dtype], None))
            owners.append(f"{each.op} {number}")
    inputs = [
        helper.make_tensor_value_info(name, ELEMENT[str(values.dtype)], values.shape)
        for name, values in names.items()
    ]
    graph = helper.make_graph(nodes, "operators", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return model.SerializeToString(), owners


@pytest.fixture(scope="module")
def operators(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    content, owners = float_model()
    path = tmp_path_factory.mktemp("float_operators") / "operators.onnx"
    path.write_bytes(content)
    return path, owners


def test_operators_equal_onnxruntime(operators: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, owners = operators
    model = load_model(path, ImportOptions(precision="float32"))
    compiled = compile_model(model, load_target("host"))
    assert not compiled.exact
    found = build_host_library(compiled, tmp_path).run([X, POSITIVE, INDICES])
    inputs: dict[str, Any] = {"x": X, "p": POSITIVE, "i": INDICES}
    expected = run_onnxruntime(path.read_bytes(), inputs)
    assert len(found) == len(expected) == len(owners)
    for owner, ours, theirs in zip(owners, found, expected, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), owner
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6, err_msg=owner)


@pytest.mark.emulator
def test_operators_on_the_emulated_cortex_m4(
    operators: tuple[Path, list[str]], tmp_path: Path, emulator: str
) -> None:
    path, _ = operators
    done = deploy(
        path,
        target=emulator,
        options=ImportOptions(precision="float32"),
        samples=1,
        runs=1,
        directory=tmp_path,
    )
    assert done.verification is not None
    assert done.verification.mode == "tolerance"
    assert done.verification.passed


def small_network() -> bytes:
    """A float32 network as exporters write them: convolutions, a depthwise one, a residual, a classifier."""
    constants: list[Any] = []

    def constant(*shape: int) -> str:
        constants.append(numpy_helper.from_array(normal(*shape) * 0.3, f"c{len(constants)}"))
        return str(constants[-1].name)

    nodes = [
        helper.make_node(
            "Conv", ["x", constant(16, 3, 3, 3), constant(16)], ["a"], pads=[1] * 4, strides=[2, 2]
        ),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", constant(16, 1, 3, 3), constant(16)], ["d"], pads=[1] * 4, group=16),
        helper.make_node("HardSwish", ["d"], ["e"]),
        helper.make_node("Conv", ["e", constant(16, 16, 1, 1), constant(16)], ["f"]),
        helper.make_node("Add", ["f", "b"], ["g"]),
        helper.make_node("Conv", ["g", constant(18, 16, 3, 3)], ["h"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["q"]),
        helper.make_node("Gemm", ["q", constant(10, 18), constant(10)], ["r"], transB=1),
        helper.make_node("Softmax", ["r"], ["y"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 33, 33])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_whole_float_network_equals_onnxruntime(tmp_path: Path) -> None:
    content = small_network()
    (tmp_path / "network.onnx").write_bytes(content)
    model = load_model(tmp_path / "network.onnx", ImportOptions(precision="float32"))
    compiled = compile_model(model, load_target("host"))
    assert compiled.macs == 289 * (16 * 27 + 16 * 9 + 16 * 16) + 64 * 18 * 144 + 180
    assert compiled.operators[0].op == "float.conv2d+add+relu"
    assert (compiled.exact, compiled.requantised) == (False, False)
    assert {spec.dtype for spec in (*compiled.inputs, *compiled.outputs)} == {"float32"}
    library = build_host_library(compiled, tmp_path)
    for _ in range(3):
        x = normal(1, 3, 33, 33)
        np.testing.assert_allclose(
            library.run([x])[0], run_onnxruntime(content, {"x": x})[0], rtol=1e-4, atol=1e-6
        )


def test_sorting_scanning_and_picking_equal_numpy(tmp_path: Path) -> None:
    x, ties = normal(2, 3, 8), np.round(normal(2, 5) * 2)
    last = relax.const(np.array([[-1, -1], [0, 2]]), "int64")
    updates = relax.const(np.array([7, 8], np.float32))

    def body(graph: Graph, x: Any, ties: Any) -> list[Any]:
        top = graph.emit(relax.op.topk(x, 3, axis=2, dtype="int64"))
        return [
            graph.emit(each)
            for each in (
                relax.op.cumsum(x, axis=2),
                relax.op.cumsum(x, axis=1, exclusive=True),
                relax.op.cumprod(x, axis=0),
                relax.op.sort(ties, 1),
                relax.op.argsort(ties, 1, descending=True, dtype="int64"),
                top[0],
                top[1],
                relax.op.take(x, relax.const(np.array([-2, 1]), "int64"), 2),
                relax.op.gather_nd(ties, last),
                relax.op.scatter_nd(ties, last, updates, "update"),
            )
        ]

    scattered = ties.copy()
    scattered[-1, -1], scattered[0, 2] = 7, 8
    expected = [
        np.cumsum(x, 2),
        np.cumsum(x, 1) - x,
        np.cumprod(x, 0),
        np.sort(ties, 1),
        np.argsort(-ties, 1, kind="stable"),
        -np.sort(-x, 2)[:, :, :3],
        np.argsort(-x, 2, kind="stable")[:, :, :3],
        np.take(x, [-2, 1], 2),
        ties[[-1, 0], [-1, 2]],
        scattered,
    ]
    compiled = compile_model(qdq_model([x.shape, ties.shape], body), load_target("host"))
    found = build_host_library(compiled, tmp_path).run([x, ties])
    for position, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6, err_msg=str(position))


def labels(program: Program) -> list[str]:
    return [step.operator.label for step in program.steps]


def int8(*shape: int) -> Array:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def conv(graph: Graph, value: Any, outputs: int, inputs: int) -> Any:
    weights = graph.weights(int8(outputs, inputs, 3, 3))
    return graph.emit(relax.op.nn.conv2d(value, weights, padding=1))


def mixed(graph: Graph, x: Any) -> Any:
    """Integers, an operator without an integer form, integers."""
    value = graph.requantized(conv(graph, graph.requantized(x, 0.05, 3), 8, 4), 0.2, -4)
    spread = graph.emit(
        relax.op.nn.instance_norm(value, relax.const(normal(8)), relax.const(normal(8)), 1, [2, 3])
    )
    return graph.requantized(conv(graph, graph.requantized(spread, 0.03, 1), 4, 8), 0.4, 2)


def test_float_between_integers(tmp_path: Path) -> None:
    model = qdq_model([X.shape], mixed)
    program = lower_model(model)
    forms = [step.float_because is None for step in program.steps]
    assert forms.index(False) > 0
    assert labels(program).count("conv2d") == 2
    assert all(step.float_because for step in program.steps if step.operator.label.startswith("float."))
    compiled = compile_model(model, load_target("host"))
    assert (compiled.exact, compiled.requantised) == (False, True)
    library = build_host_library(compiled, tmp_path)
    spec = compiled.inputs[0]
    assert spec.quantization is not None
    stored = np.clip(np.round(X / spec.quantization.scale) + spec.quantization.zero_point, -128, 127)
    found = library.run([stored.astype(np.int8)])[0]
    output = compiled.outputs[0].quantization
    assert output is not None
    reals = (found.astype(np.float64) - output.zero_point) * output.scale
    expected = run_on_host(model, [X])[0]
    steps = np.abs(reals - expected) / output.scale
    assert steps.max() < 2.5
    assert (steps > 0.5).mean() < 0.05


def test_a_pending_result_is_computed_in_float_where_it_is_read_so() -> None:
    def body(graph: Graph, x: Any) -> Any:
        pending = graph.emit(relax.op.nn.relu(conv(graph, graph.requantized(x, 0.05, 3), 8, 4)))
        integers = graph.requantized(pending, 0.1, -128)
        return [integers, graph.emit(relax.op.sum(pending, axis=[1]))]

    program = lower_model(qdq_model([X.shape], body))
    assert {"conv2d", "dequantize", "float.conv2d+relu", "float.sum"} <= set(labels(program))
    assert [spec.dtype for spec, _ in program.outputs] == ["int8", "float32"]


def test_unread_float_forms_are_not_emitted() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = conv(graph, graph.requantized(x, 0.05, 3), 8, 4)
        graph.emit(relax.op.sum(value))
        return graph.requantized(value, 0.1, 0)

    assert set(labels(lower_model(qdq_model([X.shape], body)))) == {"transpose", "conv2d"}


def test_integers_that_are_no_reals_keep_programs_exact(tmp_path: Path) -> None:
    def body(graph: Graph, x: Any) -> Any:
        stored = graph.quantize(conv(graph, graph.requantized(x, 0.05, 3), 8, 4), 0.1, 0)
        return graph.emit(relax.op.argsort(stored, 1, dtype="int32"))

    compiled = compile_model(qdq_model([X.shape], body), load_target("host"))
    assert compiled.exact
    assert "argsort" in {operator.op for operator in compiled.operators}


def test_a_chain_is_one_operator_without_float_tensors() -> None:
    def body(graph: Graph, x: Any) -> Any:
        both = [graph.requantized(each, 0.05, 0) for each in (x, graph.emit(relax.op.multiply(x, x)))]
        value = graph.emit(relax.op.power(both[0], both[1]))
        return graph.requantized(value, 0.1, 0)

    program = lower_model(qdq_model([X.shape], body))
    last = program.steps[-1]
    assert last.operator.label.endswith("power+quantize")
    assert program.tensors[last.output].dtype == "int8"
