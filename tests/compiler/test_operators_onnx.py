"""ONNX models in QDQ form, compiled for the host: equal to numpy written from the rule, near ONNX Runtime.

ONNX Runtime without optimisations computes each node in float32 and rounds halves to even, so it differs from
the integer rule by a step of the output's scale now and then, and no more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from numpy.typing import NDArray

from tests.campaign import campaign_count
from tests.reference import int8
from tests.reference.host_library import HostLibrary, build_host_library
from tests.reference.int8 import Quantized
from tests.reference.onnx_builder import QdqBuilder, run_onnxruntime

EXAMPLES = campaign_count(25, 4)
CASES_EACH = 6

Int8 = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class OnnxCase:
    """Names and stored values of one operator's inputs and output; `steps` that ONNX Runtime may be off."""

    inputs: Mapping[str, tuple[Int8, Quantized]]
    output: str
    q_y: Quantized
    expected: Int8
    steps: int
    parameters: object


def compile_onnx(content: bytes, directory: Path) -> HostLibrary:
    from edgekit.compiler import compile_model
    from edgekit.frontend import load_model
    from edgekit.target import load_target

    path = directory / "model.onnx"
    path.write_bytes(content)
    return build_host_library(compile_model(load_model(path), load_target("host")), directory)


def stored(real: NDArray[np.float32], quantized: Quantized) -> NDArray[np.int64]:
    return np.asarray(np.rint(real / np.float32(quantized.scale)).astype(np.int64) + quantized.zero_point)


def quantisation(rng: np.random.Generator, low: float = -8.0, high: float = -1.0) -> Quantized:
    return Quantized(float(np.float32(2.0 ** rng.uniform(low, high))), int(rng.integers(-128, 128)))


def near(rng: np.random.Generator, scale: float) -> Quantized:
    """An output quantisation whose scale is like `scale`."""
    return Quantized(float(np.float32(scale * 2.0 ** rng.uniform(-0.5, 0.5))), int(rng.integers(-128, 128)))


def values(rng: np.random.Generator, shape: Sequence[int]) -> Int8:
    return rng.integers(-128, 128, shape).astype(np.int8)


def nhwc(x: Int8) -> Int8:
    return np.transpose(x, (0, 2, 3, 1))


def nchw(x: Int8) -> Int8:
    return np.transpose(x, (0, 3, 1, 2))


def bounded(model: QdqBuilder, name: str, activation: int8.Activation) -> str:
    if activation == "RELU":
        return model.node("Relu", [name])
    if activation == "RELU6":
        limits = [model.constant(np.array(bound, np.float32)) for bound in (0.0, 6.0)]
        return model.node("Clip", [name, *limits])
    return name


def window(rng: np.random.Generator, *, dilate: bool) -> tuple[dict[str, list[int]], tuple[int, int]]:
    """Attributes of a convolution or pooling with explicit padding, and an input height and width."""
    kernel = rng.integers(1, 4, 2)
    dilation = rng.integers(1, 3, 2) if dilate else np.ones(2, np.int64)
    # A pooling window may not lie wholly in the padding.
    pads = rng.integers(0, 3 if dilate else kernel, (2, 2))
    extent = rng.integers(1, 8, 2) + (kernel - 1) * dilation
    attributes = {
        "kernel_shape": kernel.tolist(),
        "strides": rng.integers(1, 4, 2).tolist(),
        "pads": [*pads[0].tolist(), *pads[1].tolist()],
    }
    if dilate:
        attributes["dilations"] = dilation.tolist()
    return attributes, (int(extent[0]), int(extent[1]))


def padded(x: Int8, pads: Sequence[int], value: int) -> Int8:
    """x (N, C, H, W) in NHWC with `value` around it."""
    top, left, bottom, right = pads
    return int8.pad(nhwc(x), [(0, 0), (top, bottom), (left, right), (0, 0)], value)


# --- one operator each -----------------------------------------------------------------------------


def conv(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    attributes, extent = window(rng, dilate=True)
    depth = int(rng.integers(1, 7))
    depthwise = depth > 1 and bool(rng.integers(2))
    channels = depth * int(rng.integers(1, 3)) if depthwise else int(rng.integers(1, 9))
    q_x = quantisation(rng)
    scales = (2.0 ** rng.uniform(-9, -4, channels if rng.integers(2) else 1)).astype(np.float32).tolist()
    fan = (1 if depthwise else depth) * int(np.prod(attributes["kernel_shape"]))
    q_y = near(rng, q_x.scale * max(scales) * 60 * np.sqrt(fan))
    x = values(rng, (1, depth, *extent))
    w = values(rng, (channels, 1 if depthwise else depth, *attributes["kernel_shape"]))
    b = rng.integers(-3000, 3000, channels).astype(np.int32)
    activation: int8.Activation = rng.choice(["NONE", "RELU", "RELU6"])
    operands = [model.input(name, x.shape, q_x), model.weights(w, scales, 0)]
    with_bias = bool(rng.integers(4))
    if with_bias:
        bias_scales = [float(np.float32(q_x.scale) * np.float32(scale)) for scale in scales]
        operands.append(model.weights(b, bias_scales, 0))
    groups = depth if depthwise else 1
    out = bounded(model, model.node("Conv", operands, group=groups, **attributes), activation)
    reference = int8.depthwise_conv2d if depthwise else int8.conv2d
    kernel = w.transpose(1, 2, 3, 0) if depthwise else w.transpose(0, 2, 3, 1)
    expected = reference(
        padded(x, attributes["pads"], q_x.zero_point),
        kernel,
        b if with_bias else np.zeros(channels, np.int32),
        q_x,
        scales,
        q_y,
        stride=(attributes["strides"][0], attributes["strides"][1]),
        dilation=(attributes["dilations"][0], attributes["dilations"][1]),
        padding="VALID",
        activation=activation,
        scaled=int8.single_rounding,
    )
    return OnnxCase({name: (x, q_x)}, out, q_y, nchw(expected), 1, (attributes, w.shape, activation))


def dense(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    rows, depth, channels = (int(extent) for extent in rng.integers(1, 20, 3))
    q_x = quantisation(rng)
    scales = (2.0 ** rng.uniform(-9, -4, channels if rng.integers(2) else 1)).astype(np.float32).tolist()
    q_y = near(rng, q_x.scale * max(scales) * 60 * np.sqrt(depth))
    x, w = values(rng, (rows, depth)), values(rng, (channels, depth))
    b = rng.integers(-3000, 3000, channels).astype(np.int32)
    activation: int8.Activation = rng.choice(["NONE", "RELU", "RELU6"])
    data = model.input(name, x.shape, q_x)
    bias = model.weights(b, [float(np.float32(q_x.scale) * np.float32(scale)) for scale in scales], 0)
    form = rng.integers(3)
    if form == 0:
        out = model.node("Gemm", [data, model.weights(w, scales, 0), bias], transB=1)
    elif form == 1:
        out = model.node("Gemm", [data, model.weights(w.T.copy(), scales, 1), bias])
    else:
        product = model.node("MatMul", [data, model.weights(w.T.copy(), scales, 1)])
        out = model.node("Add", [product, bias])
    out = bounded(model, out, activation)
    expected = int8.fully_connected(x, w, b, q_x, scales, q_y, activation=activation)
    return OnnxCase({name: (x, q_x)}, out, q_y, expected, 1, (form, x.shape, w.shape, activation))


def add(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    shape = tuple(int(extent) for extent in rng.integers(1, 6, 4))
    other = tuple(extent if rng.integers(2) else 1 for extent in shape)
    q_a, q_b = quantisation(rng), quantisation(rng)
    q_y = near(rng, q_a.scale + q_b.scale)
    a, b = values(rng, shape), values(rng, other)
    activation: int8.Activation = rng.choice(["NONE", "RELU", "RELU6"])
    operands = [model.input(f"{name}_a", shape, q_a), model.input(f"{name}_b", other, q_b)]
    out = bounded(model, model.node("Add", operands), activation)
    expected = int8.add(a, b, q_a, q_b, q_y, activation=activation)
    inputs = {f"{name}_a": (a, q_a), f"{name}_b": (b, q_b)}
    return OnnxCase(inputs, out, q_y, expected, 1, (shape, other, activation))


def max_pool(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    """The maximum at the input's scale; then a requantisation, if the output has another."""
    attributes, extent = window(rng, dilate=False)
    q_x = quantisation(rng)
    q_y = q_x if rng.integers(2) else near(rng, q_x.scale)
    x = values(rng, (1, int(rng.integers(1, 6)), *extent))
    out = model.node("MaxPool", [model.input(name, x.shape, q_x)], **attributes)
    pooled = int8.max_pool(
        padded(x, attributes["pads"], -128),
        q_x,
        (attributes["kernel_shape"][0], attributes["kernel_shape"][1]),
        stride=(attributes["strides"][0], attributes["strides"][1]),
    )
    expected = nchw(int8.requantize(pooled, q_x, q_y))
    return OnnxCase({name: (x, q_x)}, out, q_y, expected, 1, attributes)


def average_pool(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    """Averaged and rounded at the input's scale, then requantised; padding counts as real 0 or not at all."""
    attributes, extent = window(rng, dilate=False)
    kernel, stride = attributes["kernel_shape"], attributes["strides"]
    q_x = quantisation(rng)
    same = bool(rng.integers(2))
    q_y = q_x if same else near(rng, q_x.scale)
    x = values(rng, (1, int(rng.integers(1, 6)), *extent))
    count = bool(rng.integers(2))
    out = model.node(
        "AveragePool", [model.input(name, x.shape, q_x)], count_include_pad=int(count), **attributes
    )
    inside = padded(np.ones_like(x), attributes["pads"], 1 if count else 0).astype(np.int64)
    data = padded(x, attributes["pads"], q_x.zero_point if count else 0).astype(np.int64)
    total, elements = (
        sum(
            array[:, i : array.shape[1] - kernel[0] + i + 1 : stride[0]][
                :, :, j : array.shape[2] - kernel[1] + j + 1 : stride[1]
            ]
            for i in range(kernel[0])
            for j in range(kernel[1])
        )
        for array in (data, inside)
    )
    if not same and tuple(kernel) == extent and not any(attributes["pads"]):
        expected = int8.mean(nhwc(x), [1, 2], q_x, q_y)
    else:
        rounded = int8.round_half_away(np.float64(total) / np.float64(elements)).astype(np.int8)
        expected = int8.requantize(rounded, q_x, q_y)
    return OnnxCase({name: (x, q_x)}, out, q_y, nchw(expected), 2, (attributes, count, q_x, q_y))


def global_average_pool(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    q_x = quantisation(rng)
    q_y = near(rng, q_x.scale / 2)
    x = values(rng, tuple(int(extent) for extent in rng.integers(1, 9, 4)))
    data = model.input(name, x.shape, q_x)
    if rng.integers(2):
        out = model.node("GlobalAveragePool", [data])
    else:
        out = model.node("ReduceMean", [data], axes=[2, 3], keepdims=1)
    return OnnxCase({name: (x, q_x)}, out, q_y, int8.mean(x, [2, 3], q_x, q_y), 1, (x.shape, q_x, q_y))


def concat(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    """Inputs that are stored otherwise than the output are requantised each."""
    shape, axis = rng.integers(1, 5, 4), int(rng.integers(4))
    q_y = quantisation(rng)
    inputs: dict[str, tuple[Int8, Quantized]] = {}
    for index in range(int(rng.integers(2, 4))):
        shape[axis] = rng.integers(1, 5)
        quantized = q_y if rng.integers(2) else near(rng, q_y.scale)
        inputs[f"{name}_{index}"] = values(rng, shape.tolist()), quantized
    operands = [model.input(key, x.shape, quantized) for key, (x, quantized) in inputs.items()]
    expected = int8.concatenation([int8.requantize(x, q, q_y) for x, q in inputs.values()], axis)
    return OnnxCase(
        inputs, model.node("Concat", operands, axis=axis), q_y, expected, 1, (axis, inputs.keys())
    )


def relu(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    q_x = quantisation(rng, -6.0, 0.0)
    q_y = near(rng, q_x.scale)
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 8, 8)
    activation: int8.Activation = "RELU" if rng.integers(2) else "RELU6"
    out = bounded(model, model.input(name, x.shape, q_x), activation)
    return OnnxCase({name: (x, q_x)}, out, q_y, int8.relu(x, q_x, q_y, activation), 1, activation)


def softmax(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    """At 1/256 and −128 as TFLite has it; then a requantisation, if the output has another scale."""
    q_x = quantisation(rng, -6.0, -1.0)
    q_y = Quantized(1 / 256, -128) if rng.integers(2) else near(rng, 1 / 256)
    x = values(rng, (int(rng.integers(1, 4)), int(rng.integers(1, 40))))
    out = model.node("Softmax", [model.input(name, x.shape, q_x)], axis=-1)
    exact = int8.softmax(x, q_x.scale)
    expected = int8.requantize(exact, Quantized(1 / 256, -128), q_y)
    return OnnxCase({name: (x, q_x)}, out, q_y, expected, 2, (x.shape, q_x, q_y))


def pad(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    """Padding with a real value: stored as round(value / scale) + zero point, saturated."""
    q = quantisation(rng)
    x = values(rng, tuple(int(extent) for extent in rng.integers(1, 5, 4)))
    widths = rng.integers(0, 3, (2, 4))
    fill = float(np.float32(rng.choice([0.0, rng.normal()])))
    operands = [
        model.constant(widths.reshape(-1).astype(np.int64)),
        model.constant(np.array(fill, np.float32)),
    ]
    out = model.node("Pad", [model.input(name, x.shape, q), *operands])
    value = int(int8.quantize(np.array([fill], np.float32), q)[0])
    expected = int8.pad(x, [(int(a), int(b)) for a, b in widths.T], value)
    return OnnxCase({name: (x, q)}, out, q, expected, 1, (x.shape, widths, fill, q))


def transpose(model: QdqBuilder, name: str, rng: np.random.Generator) -> OnnxCase:
    q_x = quantisation(rng)
    q_y = near(rng, q_x.scale)
    x = values(rng, tuple(int(extent) for extent in rng.integers(1, 6, 4)))
    axes = rng.permutation(4).tolist()
    out = model.node("Transpose", [model.input(name, x.shape, q_x)], perm=axes)
    return OnnxCase({name: (x, q_x)}, out, q_y, int8.requantize(x.transpose(axes), q_x, q_y), 1, axes)


OPERATORS: Mapping[str, Callable[[QdqBuilder, str, np.random.Generator], OnnxCase]] = {
    function.__name__: function
    for function in (
        conv,
        dense,
        add,
        max_pool,
        average_pool,
        global_average_pool,
        concat,
        relu,
        softmax,
        pad,
        transpose,
    )
}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_operator_equals_its_rule(operator: str, dtype: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        rng = np.random.default_rng(seed)
        model = QdqBuilder(dtype)
        cases = [OPERATORS[operator](model, f"x{number}", rng) for number in range(CASES_EACH)]
        for case in cases:
            model.output(model.quantized(case.output, case.q_y), case.expected.shape)
        compare(model.build(), cases)

    check()


def compare(content: bytes, cases: Sequence[OnnxCase]) -> None:
    inputs = {name: item for case in cases for name, item in case.inputs.items()}
    with tempfile.TemporaryDirectory() as directory:
        library = compile_onnx(content, Path(directory))
        assert [spec.name for spec in library.compiled.inputs] == list(inputs)
        for spec, (_, quantized) in zip(library.compiled.inputs, inputs.values(), strict=True):
            assert spec.quantization is not None
            assert (spec.quantization.scale, spec.quantization.zero_point) == (
                quantized.scale,
                quantized.zero_point,
            )
        outputs = library.run([x for x, _ in inputs.values()])
    floats = run_onnxruntime(content, {name: int8.dequantize(*item) for name, item in inputs.items()})
    for case, actual, real in zip(cases, outputs, floats, strict=True):
        np.testing.assert_array_equal(actual, case.expected, err_msg=repr(case.parameters))
        off = np.abs(stored(real, case.q_y) - actual).max()
        assert off <= case.steps, f"{off} steps from ONNX Runtime: {case.parameters!r}"


# --- a whole network -------------------------------------------------------------------------------


def residual_network(rng: np.random.Generator) -> bytes:
    """Float: convolutions, a depthwise one, a residual addition, pooling, concatenation, dense, softmax."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {
        "w0": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "b0": rng.normal(0, 0.2, 8),
        "w1": rng.normal(0, 0.3, (8, 1, 3, 3)),
        "b1": rng.normal(0, 0.2, 8),
        "w2": rng.normal(0, 0.3, (8, 8, 1, 1)),
        "w3": rng.normal(0, 0.4, (16, 10)),
        "b3": rng.normal(0, 0.2, 10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "r0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["r2"], ["v"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["m", "v"], ["j"], axis=1),
        helper.make_node("GlobalAveragePool", ["j"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["l"]),
        helper.make_node("Softmax", ["l"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class Rows:
    """Calibration rows as ONNX Runtime asks for them."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._feeds = iter([{"x": row} for row in rows])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)


def test_statically_quantised_network_is_near_onnxruntime(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(11)
    (tmp_path / "float.onnx").write_bytes(residual_network(rng))
    rows = rng.normal(0, 1, (64, 1, 3, 16, 16)).astype(np.float32)
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "qdq.onnx",
        Rows(rows),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    content = (tmp_path / "qdq.onnx").read_bytes()
    library = compile_onnx(content, tmp_path)
    (x_spec,), (y_spec,) = library.compiled.inputs, library.compiled.outputs
    assert x_spec.quantization is not None
    assert y_spec.quantization is not None
    q_x = Quantized(x_spec.quantization.scale, x_spec.quantization.zero_point)
    q_y = Quantized(y_spec.quantization.scale, y_spec.quantization.zero_point)
    off, agreed = [], 0
    for row in rows:
        (actual,) = library.run([int8.quantize(row, q_x)])
        (real,) = run_onnxruntime(content, {"x": row})
        wanted = stored(real, q_y)
        off.append(int(np.abs(wanted - actual).max()))
        agreed += int(wanted.reshape(-1)[actual.argmax()] >= wanted.max() - 1)
    assert agreed == len(rows)
    assert max(off) <= 3, off
    assert np.mean(off) <= 1.5, off
