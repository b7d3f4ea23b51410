"""ONNX models in QDQ form of convolutions, products and movements: integers only, near ONNX Runtime.

One model holds one of each, so that it is compiled once an example.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from tests.campaign import campaign_count
from tests.compiler.test_operators_onnx import compile_onnx, near, quantisation, stored, values
from tests.reference import int8
from tests.reference.int8 import Quantized
from tests.reference.onnx_builder import QdqBuilder, run_onnxruntime

Inputs = dict[str, tuple[Any, Quantized]]
Made = tuple[str, Quantized]
Maker = Callable[[QdqBuilder, str, np.random.Generator, Inputs], Made]


def operand(
    model: QdqBuilder, name: str, rng: np.random.Generator, inputs: Inputs, shape: tuple[int, ...]
) -> tuple[str, Quantized]:
    quantized = quantisation(rng)
    inputs[name] = values(rng, shape), quantized
    return model.input(name, shape, quantized), quantized


def convolution(kind: str, spatial: int) -> Maker:
    def make(model: QdqBuilder, name: str, rng: np.random.Generator, inputs: Inputs) -> Made:
        groups = int(rng.integers(1, 4))
        depth, outputs = (int(size) for size in rng.integers(1, 4, 2))
        if rng.integers(3) == 0:
            depth = 1
        kernel = rng.integers(1, 4, spatial)
        extent = tuple(int(size) for size in rng.integers(3, 7, spatial) + kernel)
        x, q_x = operand(model, name, rng, inputs, (1, groups * depth, *extent))
        strides = rng.integers(1, 4, spatial)
        attributes = {"strides": strides.tolist(), "group": groups}
        attributes["pads"] = [int(rng.integers(0, size)) for size in (*kernel, *kernel)]
        if kind == "ConvTranspose":
            shape = (groups * depth, outputs, *kernel)
            attributes["output_padding"] = [int(rng.integers(0, stride)) for stride in strides]
        else:
            shape = (groups * outputs, depth, *kernel)
            attributes["dilations"] = rng.integers(1, 3, spatial).tolist()
        w = rng.integers(-127, 128, shape).astype(np.int8)
        scale = float(np.float32(2.0 ** rng.uniform(-9, -4)))
        bias = rng.integers(-2000, 2000, groups * outputs).astype(np.int32)
        weights = [model.weights(w, [scale], 0)]
        weights.append(model.weights(bias, [float(np.float32(q_x.scale) * np.float32(scale))], 0))
        out = model.node(kind, [x, *weights], **attributes)
        return out, near(rng, q_x.scale * scale * 60 * np.sqrt(depth * np.prod(kernel)))

    return make


def product(model: QdqBuilder, name: str, rng: np.random.Generator, inputs: Inputs) -> Made:
    """With one operand transposed, as attention has it."""
    heads, rows, depth, columns = (int(size) for size in rng.integers(1, 8, 4))
    a, q_a = operand(model, f"{name}_a", rng, inputs, (1, heads, rows, depth))
    b, q_b = operand(model, f"{name}_b", rng, inputs, (1, heads, columns, depth))
    out = model.node("MatMul", [a, model.node("Transpose", [b], perm=[0, 1, 3, 2])])
    return out, near(rng, q_a.scale * q_b.scale * 100 * np.sqrt(depth))


def moved(operator: str) -> Maker:
    def make(model: QdqBuilder, name: str, rng: np.random.Generator, inputs: Inputs) -> Made:
        shape = tuple(int(size) for size in rng.integers(2, 6, 4) * 2)
        x, q_x = operand(model, name, rng, inputs, shape)

        def integers(*numbers: int) -> str:
            return model.constant(np.array(numbers, np.int64))

        if operator == "Slice":
            operands = [integers(1, -1), integers(shape[2], -(2**31)), integers(2, 3), integers(1, -2)]
            return model.node("Slice", [x, *operands]), q_x
        if operator == "Split":
            half = shape[1] // 2
            first, second = f"{name}_first", f"{name}_second"
            model.several("Split", [x, integers(half, shape[1] - half)], [first, second], axis=1)
            return second, q_x
        if operator == "Gather":
            return model.node("Gather", [x, integers(1, 0, -1)], axis=1), q_x
        if operator == "Tile":
            return model.node("Tile", [x, integers(1, 2, 1, 3)]), q_x
        if operator == "Pad":
            return model.node("Pad", [x, integers(0, 0, 1, 2, 0, 0, 2, 1)], mode="reflect"), q_x
        if operator == "DepthToSpace":
            return model.node("SpaceToDepth", [x], blocksize=2), q_x
        if operator == "ReduceMax":
            return model.node("ReduceMax", [x], axes=[2, 3], keepdims=0), q_x
        assert operator in ("nearest", "linear")
        sizes = integers(*shape[:2], shape[2] * 2, shape[3] * 2)
        empty = model.constant(np.array([], np.float32))
        options: dict[str, Any] = {"mode": operator, "coordinate_transformation_mode": "half_pixel"}
        return model.node("Resize", [x, empty, empty, sizes], **options), q_x

    return make


MAKERS: Mapping[str, Maker] = {
    "conv1d": convolution("Conv", 1),
    "conv2d": convolution("Conv", 2),
    "transposed1d": convolution("ConvTranspose", 1),
    "transposed2d": convolution("ConvTranspose", 2),
    "product": product,
    **{
        name: moved(name)
        for name in (
            "Slice",
            "Split",
            "Gather",
            "Tile",
            "Pad",
            "DepthToSpace",
            "ReduceMax",
            "nearest",
            "linear",
        )
    },
}


RANKS = {"conv1d": 3, "transposed1d": 3, "ReduceMax": 2}
"""Of the outputs that are not of four dimensions."""


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integers_only_and_near_onnxruntime(dtype: str) -> None:
    @settings(
        max_examples=campaign_count(40, 2),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        rng = np.random.default_rng(seed)
        model, inputs = QdqBuilder(dtype), Inputs()
        made = {name: maker(model, f"x_{name}", rng, inputs) for name, maker in MAKERS.items()}
        for name, (out, q_y) in made.items():
            model.output(model.quantized(out, q_y), [None] * RANKS.get(name, 4))
        content = model.build()
        with tempfile.TemporaryDirectory() as directory:
            library = compile_onnx(content, Path(directory))
            assert not [each.op for each in library.compiled.operators if each.op.startswith("float")]
            by_name = {spec.name: inputs[spec.name][0] for spec in library.compiled.inputs}
            outputs = library.run(list(by_name.values()))
        floats = run_onnxruntime(content, {name: int8.dequantize(*item) for name, item in inputs.items()})
        for (name, (_, q_y)), actual, real in zip(made.items(), outputs, floats, strict=True):
            wanted = np.clip(stored(real, q_y), -128, 127)
            assert actual.shape == wanted.shape, name
            assert np.abs(wanted - actual).max() <= 1, f"{name} of seed {seed}"

    check()
