"""Elementwise ONNX operators in QDQ form, compiled for the host, against ONNX Runtime without optimisations.

All functions share one model, and so do all operators of two tensors. ONNX Runtime computes in float32 and
rounds halves to even: within a step of the output's scale, and the same on nearly all values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compiler.test_operators_onnx import compile_onnx, near, quantisation, stored
from tests.reference import int8
from tests.reference.host_library import HostLibrary
from tests.reference.int8 import Quantized
from tests.reference.onnx_builder import QdqBuilder, run_onnxruntime

ROUNDS = 3
"""Scales that each operator is tried at."""

# Operator → attributes, and the output's quantisation where the input's does not tell it.
FUNCTIONS: Mapping[str, tuple[dict[str, Any], float | None]] = {
    "Abs": ({}, None),
    "Elu": ({"alpha": 0.7}, None),
    "Erf": ({}, 1 / 128),
    "Exp": ({}, 0.1),
    "HardSigmoid": ({"alpha": 0.25, "beta": 0.4}, 1 / 256),
    "HardSwish": ({}, None),
    "LeakyRelu": ({"alpha": 0.2}, None),
    "Neg": ({}, None),
    "Selu": ({}, None),
    "Sigmoid": ({}, 1 / 256),
    "Softplus": ({}, None),
    "Softsign": ({}, 1 / 128),
    "Tanh": ({}, 1 / 128),
}


def one(model: QdqBuilder, value: float) -> str:
    return model.constant(np.array(value, np.float32))


PAIRS: Mapping[str, tuple[Callable[[QdqBuilder, str, str], str], float]] = {
    "Sub": (lambda m, a, b: m.node("Sub", [a, b]), 2.0),
    "Mul": (lambda m, a, b: m.node("Mul", [a, b]), 1.0),
    "Max": (lambda m, a, b: m.node("Max", [a, b]), 1.0),
    "Min": (lambda m, a, b: m.node("Min", [a, b]), 1.0),
    "squeeze and excite": (
        lambda m, a, b: m.node(
            "Mul", [a, m.quantized(m.node("GlobalAveragePool", [b]), Quantized(0.005, 3))]
        ),
        1.0,
    ),
    "a channel": (
        lambda m, a, b: m.node(
            "Add",
            [
                m.node("Mul", [a, m.constant(np.array([[[0.5]], [[-1.5]], [[1.1]]], np.float32))]),
                m.constant(np.array([[[0.2]], [[0.3]], [[-0.1]]], np.float32)),
            ],
        ),
        1.5,
    ),
    "by a number": (lambda m, a, b: m.node("Div", [a, one(m, -3.0)]), 0.3),
    "PRelu": (
        lambda m, a, b: m.node("PRelu", [a, m.constant(np.array([[[0.25]], [[0.1]], [[0.02]]], np.float32))]),
        1.0,
    ),
    "LayerNormalization": (
        lambda m, a, b: m.node(
            "LayerNormalization",
            [
                a,
                m.constant(np.linspace(0.5, 1.5, 7, dtype=np.float32)),
                m.constant(np.linspace(-0.2, 0.2, 7, dtype=np.float32)),
            ],
            axis=-1,
        ),
        0.0,
    ),
    "Softmax": (lambda m, a, b: m.node("Softmax", [a], axis=1), 0.0),
}

FIXED = {"LayerNormalization": Quantized(0.03, -20), "Softmax": Quantized(1 / 256, -128)}
"""Output quantisations of those whose input does not tell it."""


class Run:
    """A compiled model with its answers, and ONNX Runtime's as stored values, by output."""

    def __init__(self, content: bytes, inputs: Mapping[str, tuple[NDArray[np.int8], Quantized]]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            self.library: HostLibrary = compile_onnx(content, Path(directory))
            self.actual = self.library.run([x for x, _ in inputs.values()])
        self.reals = run_onnxruntime(content, {name: int8.dequantize(*item) for name, item in inputs.items()})

    def difference(self, index: int) -> NDArray[np.int64]:
        quantization = self.library.compiled.outputs[index].quantization
        assert quantization is not None
        q = Quantized(quantization.scale, quantization.zero_point)
        wanted = np.clip(stored(self.reals[index], q), -128, 127)
        return np.asarray(np.abs(wanted - self.actual[index]))


@pytest.fixture(scope="module")
def functions() -> Run:
    rng = np.random.default_rng(21)
    model = QdqBuilder()
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 4, 8, 8)
    inputs = {}
    for name, (attributes, scale) in FUNCTIONS.items():
        for number in range(ROUNDS):
            key = f"{name}{number}"
            q_x = quantisation(rng, -6.0, -3.5)
            q_y = near(rng, q_x.scale) if scale is None else Quantized(scale, int(rng.integers(-128, 128)))
            out = model.node(name, [model.input(key, x.shape, q_x)], **attributes)
            model.output(model.quantized(out, q_y), x.shape)
            inputs[key] = (x, q_x)
    return Run(model.build(), inputs)


def test_functions_are_tables(functions: Run) -> None:
    operators = [operator.op for operator in functions.library.compiled.operators]
    assert operators == ["lookup"] * (ROUNDS * len(FUNCTIONS))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_near_onnxruntime(name: str, functions: Run) -> None:
    """Within a step, and equal on 99 % of the values."""
    first = list(FUNCTIONS).index(name) * ROUNDS
    differences = np.concatenate([functions.difference(first + i).reshape(-1) for i in range(ROUNDS)])
    assert differences.max() <= 1
    assert differences.mean() <= 0.01


@pytest.fixture(scope="module")
def pairs() -> Run:
    rng = np.random.default_rng(22)
    model = QdqBuilder()
    shape = (1, 3, 5, 7)
    inputs: dict[str, tuple[NDArray[np.int8], Quantized]] = {}
    for index, (name, (build, factor)) in enumerate(PAIRS.items()):
        q_a, q_b = quantisation(rng, -6.5, -5.0), quantisation(rng, -6.5, -5.0)
        a, b = (rng.integers(-128, 128, shape).astype(np.int8) for _ in range(2))
        names = [model.input(f"{key}{index}", shape, q) for key, q in (("a", q_a), ("b", q_b))]
        q_y = near(rng, max(q_a.scale, q_b.scale) * factor) if factor else FIXED[name]
        model.output(model.quantized(build(model, names[0], names[1]), q_y), shape)
        inputs |= {f"a{index}": (a, q_a), f"b{index}": (b, q_b)}
    return Run(model.build(), inputs)


@pytest.mark.parametrize("name", PAIRS)
def test_an_operator_of_two_tensors_is_near_onnxruntime(name: str, pairs: Run) -> None:
    """Within a step, and equal on 90 % of the values; two where two roundings follow each other."""
    index = list(PAIRS).index(name)
    difference = pairs.difference(index)
    assert difference.max() <= (2 if name in ("Softmax", "squeeze and excite") else 1)
    assert (difference > 0).mean() <= 0.1


def test_nothing_of_them_is_float(pairs: Run) -> None:
    assert pairs.library.compiled.exact
