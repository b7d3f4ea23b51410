"""Forms of ONNX besides plain QDQ: integer operators, recurrent nodes, control flow, every operator set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from edgekit.artifacts import ImportOptions
from edgekit.errors import ModelError, UnsupportedError
from edgekit.frontend import load_model
from edgekit.frontend.onnx_names import CONVERTED
from edgekit.frontend.onnx_operators import CONVERTERS
from tests.campaign import campaign_count
from tests.frontend.host import run_on_host
from tests.frontend.onnx_models import OnnxBuilder, random_cnn

FLOAT = ImportOptions(precision="float32")
RNG = np.random.default_rng(7)


def _onnxruntime(model: onnx.ModelProto, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))))


def _save(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    outputs: Sequence[str],
    constants: dict[str, NDArray[Any]],
    opset: int = 17,
    types: dict[str, int] | None = None,
) -> onnx.ModelProto:
    kinds = types or {}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_the_names_are_those_of_the_converters() -> None:
    assert frozenset(CONVERTERS) == CONVERTED


# --- integer operators ---


def _int8(*shape: int) -> NDArray[np.int8]:
    return RNG.integers(-128, 128, shape).astype(np.int8)


def test_integer_operators_answer_as_onnxruntime_has_them(tmp_path: Path) -> None:
    """One model with each of them behind the same input; stored results differ by one step at most."""
    values = {
        "s": np.float32(0.05), "z": np.int8(3), "t": np.float32(0.11), "u": np.int8(-7),
        "p": np.float32(1 / 256), "q": np.int8(-128), "big": np.float32(0.4), "other": _int8(1, 4, 6, 6),
        "w": _int8(5, 4, 3, 3), "ws": np.linspace(0.01, 0.03, 5, dtype=np.float32),
        "wz": np.zeros(5, np.int8), "b": RNG.integers(-900, 900, 5).astype(np.int32),
        "m": _int8(6, 3), "ms": np.float32(0.02), "mz": np.int8(0), "flat": np.array([4, 36], np.int64),
        "g": _int8(3, 36), "gs": np.array([0.01, 0.02, 0.015], np.float32), "gz": np.zeros(3, np.int8),
        "gb": RNG.integers(-900, 900, 3).astype(np.int32),
    }  # fmt: skip
    ms = {"domain": "com.microsoft"}
    pair = ["x", "s", "z"]
    nodes = [
        helper.make_node("QLinearAdd", ["x", "s", "z", "other", "t", "u", "t", "u"], ["add"], **ms),
        helper.make_node("QLinearMul", ["x", "s", "z", "other", "t", "u", "big", "u"], ["mul"], **ms),
        helper.make_node(
            "QLinearAveragePool",
            ["x", "s", "z", "t", "u"],
            ["pool"],
            kernel_shape=[2, 2],
            strides=[2, 2],
            **ms,
        ),
        helper.make_node("QLinearGlobalAveragePool", [*pair, "t", "u"], ["mean"], channels_last=0, **ms),
        helper.make_node(
            "QLinearConcat", ["t", "u", "x", "s", "z", "other", "t", "u"], ["concat"], axis=1, **ms
        ),
        helper.make_node("QLinearSigmoid", ["x", "s", "z", "p", "q"], ["sigmoid"], **ms),
        helper.make_node("QLinearLeakyRelu", ["x", "s", "z", "t", "u"], ["leaky"], alpha=0.1, **ms),
        helper.make_node("QLinearSoftmax", ["x", "s", "z", "p", "q"], ["softmax"], axis=3, opset=13, **ms),
        helper.make_node(
            "QLinearConv", ["x", "s", "z", "w", "ws", "wz", "big", "u", "b"], ["conv"], pads=[1, 1, 1, 1]
        ),
        helper.make_node("QLinearMatMul", ["x", "s", "z", "m", "ms", "mz", "big", "u"], ["matmul"]),
        helper.make_node("Reshape", ["x", "flat"], ["rows"]),
        helper.make_node(
            "QGemm", ["rows", "s", "z", "g", "gs", "gz", "gb", "big", "u"], ["gemm"], transB=1, **ms
        ),
    ]
    outputs = [node.output[0] for node in nodes if node.op_type != "Reshape"]
    types = dict.fromkeys([*outputs, "x"], TensorProto.INT8)
    model = _graph(nodes, {"x": (1, 4, 6, 6)}, outputs, values, types=types)
    x = _int8(1, 4, 6, 6)
    found = run_on_host(load_model(_save(tmp_path, model)), [x])
    for name, ours, theirs in zip(outputs, found, _onnxruntime(model, [x]), strict=True):
        assert ours.dtype == theirs.dtype == np.int8
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1, name


class _Rows:
    def __init__(self, rows: Sequence[dict[str, NDArray[np.float32]]]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._rows, None)


@pytest.mark.parametrize("seed", range(2))
def test_what_onnxruntime_quantises_to_integer_operators(tmp_path: Path, seed: int) -> None:
    rows = [{"x": RNG.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(8)]
    quantised = tmp_path / "quantised.onnx"
    quantize_static(
        _save(tmp_path, random_cnn(seed)),
        quantised,
        _Rows(rows),
        quant_format=QuantFormat.QOperator,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    model = onnx.load(quantised)
    assert any(node.op_type == "QLinearConv" for node in model.graph.node)
    expected = _onnxruntime(model, list(rows[0].values()))
    for ours, theirs in zip(
        run_on_host(load_model(quantised), list(rows[0].values())), expected, strict=True
    ):
        # A step of a first layer may be rounded either way, and becomes some in the last.
        assert np.abs(ours - theirs).max() <= 0.05 * max(np.abs(theirs).max(), 1.0)


# --- recurrent nodes ---


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LSTM", {"direction": "bidirectional"}),
        ("LSTM", {"input_forget": 1, "clip": 0.5}),
        ("GRU", {"direction": "reverse", "linear_before_reset": 1}),
        ("GRU", {"direction": "bidirectional", "activations": ["HardSigmoid", "Softsign"] * 2}),
        ("RNN", {"direction": "bidirectional", "activations": ["Relu", "Tanh"]}),
    ],
)
def test_recurrent_nodes_answer_as_onnxruntime_has_them(
    tmp_path: Path, kind: str, attributes: dict[str, Any]
) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    steps, batch, size, hidden = 5, 2, 3, 4

    def real(*shape: int) -> NDArray[np.float32]:
        return RNG.standard_normal(shape).astype(np.float32)

    constants = {
        "w": real(directions, gates * hidden, size),
        "r": real(directions, gates * hidden, hidden),
        "b": real(directions, 2 * gates * hidden),
        "h": real(directions, batch, hidden),
        "c": real(directions, batch, hidden),
    }
    inputs = ["x", "w", "r", "b", "", "h", *(["c"] if kind == "LSTM" else [])]
    outputs = ["y", "y_h", *(["y_c"] if kind == "LSTM" else [])]
    node = helper.make_node(kind, inputs, outputs, hidden_size=hidden, **attributes)
    used = {name: value for name, value in constants.items() if name in inputs}
    model = _graph([node], {"x": (steps, batch, size)}, outputs, used)
    x = real(steps, batch, size)
    found = run_on_host(load_model(_save(tmp_path, model), FLOAT), [x])
    for ours, theirs in zip(found, _onnxruntime(model, [x]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_recurrent_node_with_lengths_of_its_own_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("GRU", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=2)
    constants = {
        "w": np.ones((1, 6, 3), np.float32),
        "r": np.ones((1, 6, 2), np.float32),
        "lengths": np.array([2, 4], np.int32),
    }
    model = _graph([node], {"x": (4, 2, 3)}, ["y"], constants)
    with pytest.raises(UnsupportedError, match=r"GRU 'y' .*different lengths"):
        load_model(_save(tmp_path, model), FLOAT)


# --- control flow ---


def _body(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Any]],
    outputs: Sequence[tuple[str, int]],
) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes),
        "body",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
    )


def test_control_flow_of_a_known_course_is_written_out(tmp_path: Path) -> None:
    doubled = _body([helper.make_node("Add", ["x", "x"], ["t"])], [], [("t", TensorProto.FLOAT)])
    negated = _body([helper.make_node("Neg", ["x"], ["t"])], [], [("t", TensorProto.FLOAT)])
    loop = _body(
        [
            helper.make_node("Identity", ["cond"], ["again"]),
            helper.make_node("Add", ["v", "x"], ["next"]),
            helper.make_node("Relu", ["next"], ["row"]),
        ],
        [("i", TensorProto.INT64, ()), ("cond", TensorProto.BOOL, ()), ("v", TensorProto.FLOAT, (2, 3))],
        [("again", TensorProto.BOOL), ("next", TensorProto.FLOAT), ("row", TensorProto.FLOAT)],
    )
    scan = _body(
        [helper.make_node("Add", ["sum", "row"], ["total"]), helper.make_node("Tanh", ["total"], ["seen"])],
        [("sum", TensorProto.FLOAT, (3,)), ("row", TensorProto.FLOAT, (3,))],
        [("total", TensorProto.FLOAT), ("seen", TensorProto.FLOAT)],
    )
    nodes = [
        helper.make_node("If", ["true"], ["chosen"], then_branch=doubled, else_branch=negated),
        helper.make_node("Loop", ["three", "true", "chosen"], ["last", "rows"], body=loop),
        helper.make_node("Scan", ["start", "last"], ["final", "each"], body=scan, num_scan_inputs=1),
    ]
    constants: dict[str, NDArray[Any]] = {
        "true": np.array(True), "three": np.array(3, np.int64), "start": np.ones(3, np.float32),
    }  # fmt: skip
    outputs = ["chosen", "rows", "final", "each"]
    model = _graph(nodes, {"x": (2, 3)}, outputs, constants)
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    found = run_on_host(load_model(_save(tmp_path, model), FLOAT), [x])
    for ours, theirs in zip(found, _onnxruntime(model, [x]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_condition_that_is_computed_is_refused_by_name(tmp_path: Path) -> None:
    branch = _body([helper.make_node("Neg", ["x"], ["t"])], [], [("t", TensorProto.FLOAT)])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch, else_branch=branch),
    ]
    model = _graph(nodes, {"x": (2, 3)}, ["y"], {"zero": np.float32(0)})
    with pytest.raises(UnsupportedError, match=r"If 'y' .*computed, not constant"):
        load_model(_save(tmp_path, model), FLOAT)


# --- operator sets ---


def _zoo(opset: int) -> onnx.ModelProto:
    """Operators whose form differs from one operator set to another."""
    b = OnnxBuilder(np.random.default_rng(0), opset)

    def integers(*values: int) -> str:
        return b.constant(np.array(values, np.int64))

    x = b.conv(b.input("x", (1, 3, 8, 8)), 3, 8, pads=[1, 1, 1, 1])
    norms = [b.constant(np.linspace(0.5, 1.5, 8, dtype=np.float32) + i) for i in range(4)]
    x = b.node("BatchNormalization", [x, *norms])
    x = b.node("Clip", [x, b.constant(np.float32(-1)), b.constant(np.float32(2))])
    x = b.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    x = b.node("Pad", [x, integers(0, 0, 1, 0, 0, 0, 0, 1)])
    scales = b.constant(np.array([1, 1, 2, 2], np.float32))
    region = b.constant(np.zeros(0, np.float32))
    x = b.node("Resize", [x, region, scales], mode="linear", coordinate_transformation_mode="half_pixel")
    parts = ["left", "right"]
    if opset >= 18:
        b._nodes.append(helper.make_node("Split", [x], parts, axis=1, num_outputs=2))
    else:
        b._nodes.append(helper.make_node("Split", [x], parts, axis=1))
    x = b.node("Mul", [b.node("HardSigmoid", ["left"]), b.node("LeakyRelu", ["right"])])
    if opset >= 18:
        x = b.node("ReduceMean", [x, integers(2, 3)], keepdims=1)
    else:
        x = b.node("ReduceMean", [x], axes=[2, 3], keepdims=1)
    x = b.node("Squeeze", [x, integers(2, 3)]) if opset >= 13 else b.node("Squeeze", [x], axes=[2, 3])
    x = b.node("Dropout", [x])
    x = b.node("Gemm", [x, b.weights(6, 4), b.weights(6)], transB=1)
    x = b.node("Unsqueeze", [x, integers(0)]) if opset >= 13 else b.node("Unsqueeze", [x], axes=[0])
    b.output(b.node("Softmax", [x], axis=2), (1, 1, 6))
    model = b.build()
    model.ir_version = 8 if opset < 19 else onnx.IR_VERSION
    return model


OPSETS = range(11, onnx.defs.onnx_opset_version() + 1)


@pytest.mark.parametrize(
    "opset", [o for o in OPSETS if o in (11, 13, 18, OPSETS[-1]) or campaign_count(1, 0)]
)
def test_every_operator_set(tmp_path: Path, opset: int) -> None:
    model = _zoo(opset)
    onnx.checker.check_model(model)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    # ONNX's reference normalises batches differently before operator set 14; ONNX Runtime ends at some set.
    expected: Any = _onnxruntime(model, [x]) if opset < 14 else ReferenceEvaluator(model).run(None, {"x": x})
    found = run_on_host(load_model(_save(tmp_path, model), FLOAT), [x])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 10])
def test_operator_sets_before_11_are_converted(tmp_path: Path, opset: int) -> None:
    """Clip and Pad had their bounds as attributes."""
    b = OnnxBuilder(np.random.default_rng(0), opset)
    x = b.conv(b.input("x", (1, 3, 8, 8)), 3, 8)
    x = b.node("BatchNormalization", [x, *(b.constant(np.full(8, 0.5 + i, np.float32)) for i in range(4))])
    x = b.node("Clip", [x], min=-0.75, max=1.5)
    x = b.node("Pad", [x], pads=[0, 0, 1, 0, 0, 0, 0, 1], value=0.25)
    x = b.node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
    b.output(b.node("Softmax", [b.node("Flatten", [x])], axis=1), None)
    model = b.build()
    model.ir_version = 4
    x_value = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    found = run_on_host(load_model(_save(tmp_path, model), FLOAT), [x_value])
    np.testing.assert_allclose(found[0], _onnxruntime(model, [x_value])[0], rtol=1e-4, atol=1e-5)


def test_other_widths_of_reals_are_float32(tmp_path: Path) -> None:
    """Weights, a cast and the border; a constant beyond float32 becomes its largest."""
    weights = RNG.standard_normal((4, 3)).astype(np.float16)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.DOUBLE),
        helper.make_node("Min", ["b", "huge"], ["y"]),
    ]
    constants: dict[str, NDArray[Any]] = {"w": weights, "huge": np.array(1e300)}
    types = {"x": TensorProto.FLOAT16, "y": TensorProto.DOUBLE}
    model = load_model(_save(tmp_path, _graph(nodes, {"x": (2, 4)}, ["y"], constants, types=types)), FLOAT)
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    (found,) = run_on_host(model, [x])
    np.testing.assert_allclose(found, x @ weights.astype(np.float32), rtol=1e-5, atol=1e-6)


def test_nodes_may_stand_in_any_order(tmp_path: Path) -> None:
    """ONNX Runtime takes them so; what a nested graph reads counts, too."""
    taken = helper.make_graph(
        [helper.make_node("Neg", ["late"], ["negative"])],
        "then",
        [],
        [helper.make_tensor_value_info("negative", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Add", ["chosen", "sum"], ["y"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=taken, else_branch=taken),
        helper.make_node("Exp", ["sum"], ["late"]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
    ]
    constants = {"yes": np.array(True), "one": np.array([1.0], np.float32)}
    model = _graph(nodes, {"x": (2, 3)}, ["y"], constants)
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    (found,) = run_on_host(load_model(_save(tmp_path, model), FLOAT), [x])
    np.testing.assert_allclose(found, x + 1 - np.exp(x + 1), rtol=1e-5)
    looped = _graph(
        [*nodes[:3], helper.make_node("Add", ["y", "one"], ["sum"])], {"x": (2, 3)}, ["y"], constants
    )
    with pytest.raises(ModelError, match="sorted"):
        load_model(_save(tmp_path, looped), FLOAT)


def test_what_the_quantiser_cannot_take_is_written_out(tmp_path: Path) -> None:
    """Automatic padding of a dilated convolution, odd kernels and strides; factors of several axes."""
    b = OnnxBuilder(np.random.default_rng(3))
    x = b.input("x", (1, 3, 9, 8))
    upper = b.conv(x, 3, 4, 2, auto_pad="SAME_UPPER", dilations=[3, 2], strides=[1, 1])
    lower = b.conv(x, 3, 4, 2, auto_pad="SAME_LOWER", dilations=[3, 1], strides=[1, 1])
    shape = (4, 9, 8)
    normal = b.node("LayerNormalization", [upper, b.weights(*shape), b.weights(*shape)], axis=1)
    for name in (b.node("Relu", [upper]), b.node("Relu", [lower]), normal):
        b.output(name)
    model = b.build()
    rows = np.random.default_rng(4).standard_normal((16, 3, 9, 8)).astype(np.float32)
    float_model = load_model(_save(tmp_path, model), FLOAT)
    found = run_on_host(load_model(_save(tmp_path, model), calibration=[rows]), [rows[:1]])
    assert [value.dtype.name for value in found] == ["float32"] * 3
    for ours, reals in zip(found, run_on_host(float_model, [rows[:1]]), strict=True):
        noise = np.sum((ours - reals) ** 2) / np.sum(reals**2)
        assert noise < 10**-2.5, noise
