"""QDQ models as ONNX Runtime runs them (no optimisation) against the imported module on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm_ffi
from numpy.typing import NDArray

from edgekit.artifacts import ImportOptions, Model
from edgekit.compiler.lowering import lower_model
from edgekit.frontend import load_model
from edgekit.frontend.onnx_check import check_onnx
from edgekit.frontend.onnx_quantize import quantize_onnx
from edgekit.frontend.source import read_source
from tests.campaign import campaign_count
from tests.frontend.host import HostModel, run_on_host, worst_difference
from tests.frontend.onnx_models import OnnxBuilder, random_cnn


def _rows(rng: np.random.Generator, model: onnx.ModelProto, count: int) -> list[NDArray[np.float32]]:
    shapes = [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input]
    return [rng.standard_normal((count, *shape)).astype(np.float32) for shape in shapes]


def _run_reference(model: onnx.ModelProto, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    # The default level fuses QDQ into integer kernels that saturate on some CPUs.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def _quantised_names(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]


def _cut(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every quantised tensor made an output, and an input of what reads it.

    Each operator then starts from ONNX Runtime's own integers. Run as a whole, a value that lies between two
    steps may be rounded either way, as sums in float32 depend on their order, and layers behind it make many
    steps of that one; cut, one step is the most that two right implementations can differ.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    quantised = set(_quantised_names(model))
    types = {v.name: v.type.tensor_type for v in (*model.graph.value_info, *model.graph.output)}
    for node in cut.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in quantised:
            name = node.input[0]
            node.input[0] = f"{name}/cut"
            if all(value.name != node.input[0] for value in cut.graph.input):
                dims = [d.dim_value for d in types[name].shape.dim]
                cut.graph.input.append(
                    onnx.helper.make_tensor_value_info(f"{name}/cut", types[name].elem_type, dims)
                )
    del cut.graph.output[:]
    for name in _quantised_names(model):
        dims = [d.dim_value for d in types[name].shape.dim]
        cut.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name].elem_type, dims))
    return cut


def _compare(quantized: onnx.ModelProto, folder: Path, rows: Sequence[Sequence[NDArray[Any]]]) -> Model:
    """Import a QDQ model; each of its operators must be within one step of ONNX Runtime's answer."""
    cut, path = _cut(quantized), folder / "cut.onnx"
    onnx.save(cut, path)
    model = load_model(path)
    probe = onnx.ModelProto()
    probe.CopyFrom(quantized)
    del probe.graph.output[:]
    probe.graph.output.extend(cut.graph.output)
    machine = HostModel(model)
    names = [value.name for value in cut.graph.output]
    for inputs in rows:
        expected = _run_reference(probe, inputs)
        stored = dict(zip(names, expected, strict=True))
        cuts = [stored[name.removesuffix("/cut")] for name in model.input_names[len(inputs) :]]
        outputs = machine.run([*inputs, *cuts])
        differing = sum(int((a != b).sum()) for a, b in zip(outputs, expected, strict=True))
        assert worst_difference(outputs, expected) <= 1
        # Means of a few integers lie exactly between two steps often enough; all else hardly ever does.
        assert differing <= 2 + sum(a.size for a in expected) // 50
    return model


def _check(float_model: onnx.ModelProto, folder: Path, seed: int = 0) -> Model:
    """Quantise, import the float and the quantised file, compare with ONNX Runtime on fresh rows."""
    rng = np.random.default_rng(seed)
    path, quantized_path = folder / "float.onnx", folder / "qdq.onnx"
    onnx.save(float_model, path)
    calibration = _rows(rng, float_model, 16)
    quantized = quantize_onnx(check_onnx(read_source(path), None), calibration)
    onnx.save(quantized, quantized_path)
    from_float = load_model(path, calibration=calibration)
    from_qdq = load_model(quantized_path)
    assert tvm_ffi.structural_equal(from_float.module, from_qdq.module, map_free_vars=True)
    _compare(quantized, folder, list(zip(*_rows(rng, float_model, 2), strict=True)))
    return from_float


@pytest.mark.parametrize("seed", range(campaign_count(200, 4)))
def test_random_networks(tmp_path, seed: int) -> None:
    model = _check(random_cnn(seed), tmp_path, seed)
    assert model.input_names == ("x",)
    assert model.output_names[1] == "y"


def _one(tmp_path: Path, build: Callable[[OnnxBuilder], str], *, opset: int = 17) -> Model:
    return _several(tmp_path, lambda b: [build(b)], opset=opset)


def _several(tmp_path: Path, build: Callable[[OnnxBuilder], list[str]], *, opset: int = 17) -> Model:
    b = OnnxBuilder(np.random.default_rng(1), opset)
    for name in build(b):
        b.output(name, None)
    return _check(b.build(), tmp_path)


def test_two_inputs_and_their_own_names(tmp_path) -> None:
    def build(b: OnnxBuilder) -> str:
        left, right = b.input("left:0", (1, 4, 6, 6)), b.input("3.right", (1, 4, 6, 6))
        return b.node("Add", [b.conv(left, 4, 4, kernel=1), b.node("Mul", [left, right])])

    assert _one(tmp_path, build).input_names == ("left:0", "3.right")


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_weights_per_channel(tmp_path, trans_b) -> None:
    def build(b: OnnxBuilder) -> str:
        # Columns of very different sizes: a scale along the wrong axis would be far off.
        w = b.rng.standard_normal((9, 6)) * np.logspace(-2, 1, 6)
        w = b.constant((w.T if trans_b else w).astype(np.float32))
        return b.node("Gemm", [b.input("x", (2, 9)), w, b.weights(6)], transB=trans_b)

    model = _one(tmp_path, build)
    axes = _weight_axes(model)
    assert axes == [0 if trans_b else 1]


def _weight_axes(model: Model) -> list[int]:
    """The axes of the dequantised constants of two dimensions and more that have a scale per channel."""
    found = []
    for block in model.module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if "dequantize" in str(getattr(value, "op", "")) and len(binding.var.ty.shape) >= 2:
                scale = getattr(value.args[1], "value", None)
                if scale is not None and scale.numpy().size > 1:
                    found.append(int(value.attrs.axis))
    return found


def test_matmul_weights_per_channel(tmp_path) -> None:
    def build(b: OnnxBuilder) -> str:
        w = (b.rng.standard_normal((9, 6)) * np.logspace(-2, 1, 6)).astype(np.float32)
        return b.node("MatMul", [b.input("x", (2, 9)), b.constant(w)])

    assert _weight_axes(_one(tmp_path, build)) == [1]


def test_conv_transpose_weights_per_channel(tmp_path) -> None:
    def build(b: OnnxBuilder) -> str:
        w = (b.rng.standard_normal((3, 4, 2, 2)) * np.logspace(-2, 1, 4)[:, None, None]).astype(np.float32)
        return b.node("ConvTranspose", [b.input("x", (1, 3, 5, 5)), b.constant(w)], strides=[2, 2])

    _one(tmp_path, build)


@pytest.mark.parametrize("opset", [13, 18])
def test_reduce_mean(tmp_path, opset) -> None:
    def build(b: OnnxBuilder) -> list[str]:
        x = b.conv(b.input("x", (1, 3, 5, 5)), 3, 4)
        if opset >= 18:
            axes = b.constant(np.array([-1, 2], np.int64))
            return [b.node("ReduceMean", [x, axes], keepdims=keepdims) for keepdims in (0, 1)]
        return [b.node("ReduceMean", [x], axes=[-1, 2], keepdims=keepdims) for keepdims in (0, 1)]

    _several(tmp_path, build, opset=opset)


def test_pooling(tmp_path) -> None:
    windows: tuple[dict[str, Any], ...] = (
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"},
    )

    def build(b: OnnxBuilder) -> list[str]:
        x = b.conv(b.input("x", (1, 3, 9, 8)), 3, 4)
        pools = [b.node(op, [x], **window) for op in ("MaxPool", "AveragePool") for window in windows]
        counted = b.node("AveragePool", [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
        return [*pools, counted]

    _several(tmp_path, build)


def test_padding_with_axes_and_a_value(tmp_path) -> None:
    def build(b: OnnxBuilder) -> str:
        x = b.conv(b.input("x", (1, 3, 9, 8)), 3, 4)
        pads, fill = b.constant(np.array([1, 2, 0, 3], np.int64)), b.constant(np.float32(0.5))
        return b.conv(b.node("Pad", [x, pads, fill, b.constant(np.array([-1, 2], np.int64))]), 4, 4)

    _one(tmp_path, build, opset=18)


@pytest.mark.parametrize("opset", [12, 13, 21])
def test_shape_operators(tmp_path, opset) -> None:
    def build(b: OnnxBuilder) -> str:
        x = b.conv(b.input("x", (1, 3, 6, 6)), 3, 4)
        x = b.node("Reshape", [x, b.constant(np.array([0, 4, -1], np.int64))])
        x = b.node("Transpose", [x], perm=[0, 2, 1])
        if opset >= 13:
            x = b.node("Unsqueeze", [x, b.constant(np.array([1, -1], np.int64))])
            x = b.node("Squeeze", [x, b.constant(np.array([-1], np.int64))])
        else:
            x = b.node("Squeeze", [b.node("Unsqueeze", [x], axes=[1])], axes=[1])
        return b.node("MatMul", [b.node("Flatten", [x], axis=-1), b.weights(4, 3)])

    _one(tmp_path, build, opset=opset)


def test_more_operators(tmp_path) -> None:
    def build(b: OnnxBuilder) -> list[str]:
        x = b.conv(b.input("x", (1, 3, 6, 6)), 3, 4)
        other = b.conv(x, 4, 4, kernel=1)
        return [
            *(b.node(op, [x]) for op in ("Sigmoid", "Tanh")),
            *(b.node(op, [x, other]) for op in ("Sub", "Mul")),
        ]

    _several(tmp_path, build)


@pytest.mark.parametrize("per_channel", [False, True])
def test_uint8_activations(tmp_path, per_channel) -> None:
    """What ONNX Runtime's quantiser writes when it is asked for nothing."""
    from onnxruntime.quantization import QuantType, quantize_static

    path, quantized_path = tmp_path / "float.onnx", tmp_path / "qdq.onnx"
    onnx.save(random_cnn(2), path)
    (rows,) = _rows(np.random.default_rng(0), onnx.load(path), 8)
    feeds = iter([{"x": row} for row in rows])

    class Reader:
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(feeds, None)

    options = {"activation_type": QuantType.QUInt8, "per_channel": per_channel}
    quantize_static(onnx.load(path), quantized_path, Reader(), **options)
    quantized = onnx.shape_inference.infer_shapes(onnx.load(quantized_path))
    _compare(
        quantized, tmp_path, list(zip(*_rows(np.random.default_rng(1), onnx.load(path), 2), strict=True))
    )


def test_quantisation_is_deterministic_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    path = tmp_path / "float.onnx"
    onnx.save(random_cnn(3), path)
    rows = _rows(np.random.default_rng(0), onnx.load(path), 8)
    first, second = (quantize_onnx(check_onnx(read_source(path), None), rows) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert list(scratch.iterdir()) == []


def test_gates_become_one_table(tmp_path) -> None:
    """SiLU and Mish as exporters write them, HardSwish as ONNX Runtime does: nothing rounds the factor."""
    b = OnnxBuilder(np.random.default_rng(5))
    x = b.conv(b.input("x", (1, 3, 6, 6)), 3, 4)
    silu = b.node("Mul", [x, b.node("Sigmoid", [x])])
    mish = b.node("Mul", [b.node("Tanh", [b.node("Softplus", [x])]), x])
    results = [silu, mish, b.node("HardSwish", [b.conv(silu, 4, 4)])]
    for name in results:
        b.output(name)
    path = tmp_path / "gates.onnx"
    onnx.save(b.build(), path)
    rows = np.random.default_rng(6).standard_normal((8, 3, 6, 6)).astype(np.float32)
    model = load_model(path, calibration=[rows])
    reals = run_on_host(load_model(path, ImportOptions(precision="float32")), [rows[:1]])
    for ours, expected in zip(run_on_host(model, [rows[:1]]), reals, strict=True):
        assert np.sum((ours - expected) ** 2) < 10**-3 * np.sum(expected**2)
    program = lower_model(model)
    # The product that a HardSwish becomes is not named as an earlier product of the file.
    places = [step.place for step in program.steps if step.operator.NAME == "lookup"]
    assert {place.name for place in places if place is not None} == set(results)
    names = [step.operator.NAME for step in program.steps]
    assert "multiply" not in names
    assert names.count("lookup") == 3
