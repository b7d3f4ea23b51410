"""Every TFLite operator: the imported QDQ module against LiteRT's reference kernels, one operator a model.

The module is run in float on the host; LiteRT computes in fixed point. They may differ by one step where a
value lies at the boundary of two, never by more, and a wrong bound, padding or scale differs by many.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekit.artifacts import Model
from edgekit.frontend import load_model
from edgekit.frontend.tflite_check import RULES
from edgekit.frontend.tflite_convert import activation_range
from edgekit.frontend.tflite_operators import Activation
from tests.frontend.host import run_on_host, worst_difference
from tests.reference import tflite_builder
from tests.reference.litert import run_reference
from tests.reference.tflite_builder import Tensor, TfliteBuilder

Rng = np.random.Generator


def _import(content: bytes, folder: Path) -> Model:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return load_model(path)


def _compare(
    build: Callable[[TfliteBuilder, Rng], Tensor], folder: Path, seed: int, tolerance: int = 1
) -> None:
    rng = np.random.default_rng(seed)
    builder = TfliteBuilder()
    builder.output(build(builder, rng))
    content = builder.build()
    model = _import(content, folder)
    (parameters,) = [list(model.module["main"].params)]
    inputs = []
    for parameter in parameters:
        shape, dtype = [int(d) for d in parameter.ty.shape], str(parameter.ty.dtype)
        if dtype == "float32":
            inputs.append((rng.standard_normal(shape) * 3).astype(np.float32))
        else:
            info = np.iinfo(dtype)
            inputs.append(rng.integers(info.min, info.max + 1, shape).astype(dtype))
    assert worst_difference(run_on_host(model, inputs), run_reference(content, inputs)) <= tolerance


def _scale(rng: Rng, low: float = 0.01, high: float = 0.1) -> float:
    return float(rng.uniform(low, high))


def _zero(rng: Rng) -> int:
    return int(rng.integers(-128, 128))


def _input(b: TfliteBuilder, rng: Rng, *shape: int) -> Tensor:
    return b.input(shape, _scale(rng), _zero(rng))


def _weights(rng: Rng, *shape: int) -> np.ndarray:
    return rng.integers(-127, 128, shape).astype(np.int8)


def _scales(rng: Rng, channels: int, per_channel: bool) -> list[float]:
    return [_scale(rng, 0.002, 0.01) for _ in range(channels if per_channel else 1)]


def _bias(rng: Rng, channels: int) -> np.ndarray:
    return rng.integers(-3000, 3000, channels).astype(np.int32)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [((3, 3), (1, 1), (1, 1)), ((3, 2), (2, 3), (1, 1)), ((1, 1), (2, 2), (1, 1)), ((3, 3), (1, 1), (2, 2))],
)
def test_conv2d(tmp_path, kernel, stride, dilation, padding, per_channel) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.conv2d(
            _input(b, rng, 1, 9, 8, 5), _weights(rng, 6, *kernel, 5), _bias(rng, 6),
            _scales(rng, 6, per_channel), 0.2, _zero(rng), stride=stride, dilation=dilation, padding=padding,
        )  # fmt: skip

    _compare(build, tmp_path, seed=1)


@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("zero_point", [-128, -3, 0, 40, 127])
def test_fused_activation_bounds(tmp_path, activation, zero_point) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.conv2d(
            _input(b, rng, 1, 6, 6, 4), _weights(rng, 8, 3, 3, 4), _bias(rng, 8), _scales(rng, 8, True),
            0.0473, zero_point, activation=activation,
        )  # fmt: skip

    _compare(build, tmp_path, seed=2)


def test_activation_bounds_round_away_from_zero() -> None:
    # 6 / 0.16 = 37.5 and −1 / 0.16 = −6.25: the bounds round to 38 and −6, as TfLiteRound does.
    assert activation_range(Activation.RELU6, 0.16, -100) == (-100, -62)
    assert activation_range(Activation.RELU_N1_TO_1, 0.4, 0) == (-3, 3)
    assert activation_range(Activation.RELU, 0.1, 127) == (127, 127)
    assert activation_range(Activation.NONE, 0.1, 5) == (-128, 127)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("stride", "dilation", "padding"),
    [((1, 1), (1, 1), "SAME"), ((2, 2), (1, 1), "SAME"), ((2, 2), (1, 1), "VALID"), ((1, 1), (2, 2), "SAME")],
)
def test_depthwise(tmp_path, channels, multiplier, per_channel, stride, dilation, padding) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        out = channels * multiplier
        return b.depthwise_conv2d(
            _input(b, rng, 1, 9, 7, channels), _weights(rng, 1, 3, 3, out), _bias(rng, out),
            _scales(rng, out, per_channel), 0.1, _zero(rng), stride=stride, dilation=dilation,
            padding=padding, activation="RELU6",
        )  # fmt: skip

    _compare(build, tmp_path, seed=3)


@pytest.mark.parametrize("shape", [(1, 24), (5, 24), (1, 2, 3, 24), (2, 3, 4, 6)])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_fully_connected(tmp_path, shape, keep, bias, per_channel) -> None:
    if keep and shape[-1] != 24:
        shape = (*shape[:-2], 24)

    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.fully_connected(
            _input(b, rng, *shape), _weights(rng, 7, 24), _bias(rng, 7) if bias else None,
            _scales(rng, 7, per_channel), 0.1, _zero(rng), activation="RELU", keep_num_dims=keep,
        )  # fmt: skip

    _compare(build, tmp_path, seed=4)


@pytest.mark.parametrize("activation", ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("other", [(1, 4, 5, 3), (1, 1, 1, 3), (3,), (1, 4, 1, 1), ()])
def test_add(tmp_path, activation, other) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        x = _input(b, rng, 1, 4, 5, 3)
        return b.add(x, _input(b, rng, *other), 0.13, _zero(rng), activation=activation)

    _compare(build, tmp_path, seed=5)


@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (3,), ()])
def test_add_of_a_constant(tmp_path, shape) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        constant = b.constant(_weights(rng, *shape), [_scale(rng)], _zero(rng))
        return b.add(_input(b, rng, 1, 4, 5, 3), constant, 0.13, _zero(rng))

    _compare(build, tmp_path, seed=6)


@pytest.mark.parametrize("kind", ["average_pool", "max_pool"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 2), (1, 3)), ((9, 8), (9, 8))]
)
@pytest.mark.parametrize("activation", ["NONE", "RELU6"])
def test_pooling(tmp_path, kind, padding, kernel, stride, activation) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        x = _input(b, rng, 2, 9, 8, 3)
        return getattr(b, kind)(x, kernel, stride=stride, padding=padding, activation=activation)

    _compare(build, tmp_path, seed=7)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axes", [(1, 2), (2, 1), (3,), (-1,), (1, 2, 3), (0,), (1, -3)])
def test_mean(tmp_path, axes, keep) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.mean(_input(b, rng, 2, 5, 6, 3), axes, _scale(rng), _zero(rng), keep_dims=keep)

    _compare(build, tmp_path, seed=8)


def test_pad(tmp_path) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.pad(_input(b, rng, 1, 3, 4, 2), [(0, 0), (1, 2), (0, 3), (0, 0)])

    _compare(build, tmp_path, seed=9, tolerance=0)


@pytest.mark.parametrize("value", [-128, 5, 127])
def test_padv2(tmp_path, value) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.padv2(_input(b, rng, 1, 3, 4, 2), [(0, 0), (1, 2), (0, 3), (0, 0)], value)

    _compare(build, tmp_path, seed=10, tolerance=0)


@pytest.mark.parametrize("axis", [1, 3, -1])
@pytest.mark.parametrize("count", [2, 4])
def test_concatenation(tmp_path, axis, count) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        # LiteRT's int8 kernel takes inputs of the output's own scale only.
        scale, zero_point = _scale(rng), _zero(rng)
        tensors = [b.input((1, 2, 3, 4), scale, zero_point) for _ in range(count)]
        return b.concatenation(tensors, axis, scale, zero_point)

    _compare(build, tmp_path, seed=11, tolerance=0)


@pytest.mark.parametrize("shape", [(1, 24), (24,), (2, 3, 4), (1, 2, 2, 6)])
def test_reshape(tmp_path, shape) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.reshape(_input(b, rng, 1, 2, 3, 4), shape)

    _compare(build, tmp_path, seed=12, tolerance=0)


@pytest.mark.parametrize("kind", ["relu", "relu6"])
def test_relu(tmp_path, kind) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return getattr(b, kind)(_input(b, rng, 1, 5, 5, 4), _scale(rng), _zero(rng))

    _compare(build, tmp_path, seed=13)


@pytest.mark.parametrize("beta", [1.0, 0.5, 2.25])
@pytest.mark.parametrize("shape", [(1, 10), (4, 6), (1, 3, 3, 5)])
def test_softmax(tmp_path, beta, shape) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.softmax(_input(b, rng, *shape), beta=beta)

    _compare(build, tmp_path, seed=14)


def test_quantize_float(tmp_path) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.quantize(b.input((1, 6, 6, 3), dtype="float32"), 0.037, 11)

    _compare(build, tmp_path, seed=15)


def test_requantize(tmp_path) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.quantize(_input(b, rng, 1, 6, 6, 3), 0.037, 11)

    _compare(build, tmp_path, seed=16)


def test_a_uint8_input_is_requantized(tmp_path) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b.quantize(b.input((1, 6, 6, 3), 0.05, 128, dtype="uint8"), 0.05, 0)

    _compare(build, tmp_path, seed=17)


def test_a_float_output_is_dequantized(tmp_path) -> None:
    rng = np.random.default_rng(18)
    builder = TfliteBuilder()
    builder.output(builder.dequantize(_input(builder, rng, 1, 6, 6, 3)))
    content = builder.build()
    x = rng.integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
    (ours,) = run_on_host(_import(content, tmp_path), [x])
    (theirs,) = run_reference(content, [x])
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("op", "scale", "zero_point"),
    [("LOGISTIC", 1 / 256, -128), ("TANH", 1 / 128, 0), ("RELU_N1_TO_1", 0.013, -7)],
)
def test_functions_of_one_tensor(tmp_path, monkeypatch, op, scale, zero_point) -> None:
    monkeypatch.setitem(tflite_builder._VERSIONS, "RELU_N1_TO_1", 1)  # the only one LiteRT registers

    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        return b._operator(op, [_input(b, rng, 1, 5, 5, 4)], None, (1, 5, 5, 4), scale, zero_point)

    _compare(build, tmp_path, seed=20)


@pytest.mark.parametrize(("op", "options"), [("MUL", schema.MulOptionsT), ("SUB", schema.SubOptionsT)])
@pytest.mark.parametrize("activation", [0, 1, 3])
def test_elementwise(tmp_path, op, options, activation) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        chosen = options()
        chosen.fusedActivationFunction = activation
        tensors = [_input(b, rng, 1, 5, 5, 4), _input(b, rng, 1, 1, 1, 4)]
        return b._operator(op, tensors, chosen, (1, 5, 5, 4), 0.09, _zero(rng))

    _compare(build, tmp_path, seed=21)


def test_squeeze_expand_dims_and_transpose_move_bytes(tmp_path) -> None:
    def build(b: TfliteBuilder, rng: Rng) -> Tensor:
        x = _input(b, rng, 1, 5, 1, 4)
        options = schema.SqueezeOptionsT()
        options.squeezeDims = [-2]
        y = b._operator("SQUEEZE", [x], options, (1, 5, 4), x.scale, x.zero_point)
        axis = b.constant(np.array(-1, np.int32))
        y = b._operator(
            "EXPAND_DIMS", [y, axis], schema.ExpandDimsOptionsT(), (1, 5, 4, 1), x.scale, x.zero_point
        )
        order = b.constant(np.array([0, 3, 2, 1], np.int32))
        return b._operator(
            "TRANSPOSE", [y, order], schema.TransposeOptionsT(), (1, 1, 4, 5), x.scale, x.zero_point
        )

    _compare(build, tmp_path, seed=22, tolerance=0)


def test_a_tensor_read_twice_is_computed_once(tmp_path) -> None:
    rng = np.random.default_rng(19)
    b = TfliteBuilder()
    x = b.conv2d(_input(b, rng, 1, 4, 4, 2), _weights(rng, 2, 1, 1, 2), _bias(rng, 2), [0.01], 0.1, 0)
    y = b.conv2d(x, _weights(rng, 2, 1, 1, 2), _bias(rng, 2), [0.01], 0.1, 0)
    b.output(b.add(x, y, 0.1, 0), x)
    content = b.build()
    model = _import(content, tmp_path)
    calls = [
        str(v.value.op)
        for block in model.module["main"].body.blocks
        for v in block.bindings
        if hasattr(v.value, "op")
    ]
    assert sum("conv2d" in call for call in calls) == 2
    data = rng.integers(-128, 128, (1, 4, 4, 2)).astype(np.int8)
    assert worst_difference(run_on_host(model, [data]), run_reference(content, [data])) <= 2


def test_the_page_lists_what_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    listed = page.split("TFLite: ABS")[1].split(" (SHAPE")[0]
    assert {"ABS", *re.findall(r"[A-Z][A-Z0-9_]+", listed)} == {*RULES, "SHAPE"}
