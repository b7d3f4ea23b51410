"""Functions of one tensor, and elementwise operators of two: against LiteRT, numpy and torch.

Every function is compared on all 256 stored values; many cases share one compiled library.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from numpy.typing import NDArray
from tvm import relax

from edgekit.artifacts import Quantization
from edgekit.compiler import compile_model, tables
from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.compiler.qdq import Graph, qdq_model
from tests.reference.cases import Case, batch_model
from tests.reference.elementwise_cases import ELEMENTWISE, FUNCTIONS, function_case
from tests.reference.host_library import HostLibrary, build_host_library, compile_tflite
from tests.reference.litert import run_reference
from tests.reference.tflite_builder import TfliteBuilder

CASES_EACH = 8

Float64 = NDArray[np.float64]


def compare(content: bytes, inputs: Sequence[NDArray[Any]], places: Sequence[str]) -> HostLibrary:
    """Equal bytes on LiteRT's reference kernels and compiled for the host."""
    reference = run_reference(content, inputs)
    with tempfile.TemporaryDirectory() as directory:
        library = compile_tflite(content, Path(directory))
        outputs = library.run(inputs)
    for actual, expected, place in zip(outputs, reference, places, strict=True):
        np.testing.assert_array_equal(actual.reshape(expected.shape), expected, err_msg=place)
    return library


# --- LiteRT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(campaign_count(40, 1)))
def test_every_function_equals_litert_on_every_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [function_case(name, rng) for name in FUNCTIONS for _ in range(CASES_EACH)]
    content, inputs = batch_model(cases)
    library = compare(content, inputs, [repr(case) for case in cases])
    assert {operator.op for operator in library.compiled.operators} == {"lookup"}


@pytest.mark.parametrize("operator", sorted(ELEMENTWISE))
def test_operator_equals_litert(operator: str) -> None:
    @settings(
        max_examples=campaign_count(60, 3),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    @given(st.lists(ELEMENTWISE[operator], min_size=CASES_EACH, max_size=CASES_EACH))
    def check(cases: list[Case]) -> None:
        content, inputs = batch_model(cases)
        compare(content, inputs, [repr(case) for case in cases])

    check()


def test_elu_equals_litert() -> None:
    """LiteRT has no reference kernel of ELU; its own kernel is the same table whatever the resolver."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    rng = np.random.default_rng(8)
    cases = [function_case("ELU", rng) for _ in range(CASES_EACH)]
    content, inputs = batch_model(cases)
    interpreter: Any = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    with tempfile.TemporaryDirectory() as directory:
        outputs = compile_tflite(content, Path(directory)).run(inputs)
    for actual, detail, case in zip(outputs, interpreter.get_output_details(), cases, strict=True):
        np.testing.assert_array_equal(actual, interpreter.get_tensor(detail["index"]), err_msg=repr(case))


def test_a_fused_activation_is_part_of_the_table() -> None:
    """x + x and a clamp behind it are one table, and so are tables of tables."""
    builder = TfliteBuilder()
    x = builder.input((1, 256), 0.05, -3)
    doubled = builder.binary("ADD", x, x, 0.11, 5, activation="RELU6")
    gate = builder.function("LOGISTIC", doubled, 1 / 256, -128)
    builder.output(builder.quantize(builder.function("HARD_SWISH", gate, 0.004, -128), 0.01, 3))
    library = compare(builder.build(), [np.arange(-128, 128, dtype=np.int8).reshape(1, 256)], ["chain"])
    assert [operator.op for operator in library.compiled.operators] == ["lookup"]


# --- functions as exporters write them ---------------------------------------------------------------------

X, Y = Quantization(0.0471, 3), Quantization(0.0193, -7)
OUT = Quantization(0.0313, 1)


def _number(value: float) -> Any:
    return relax.const(np.float32(value))


def _numbers(values: Sequence[float]) -> Any:
    return relax.const(np.asarray(values, np.float32))


def _sigmoid(x: Float64) -> Float64:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _erf(x: Float64) -> Float64:
    return np.asarray(np.vectorize(math.erf)(x))


op = relax.op

CHAINS: Mapping[str, tuple[Callable[[Any, Any], Any], Callable[[Float64], Float64]]] = {
    "silu": (lambda g, x: op.multiply(x, g.emit(op.sigmoid(x))), lambda x: x * _sigmoid(x)),
    "nn.silu": (lambda g, x: op.nn.silu(x), lambda x: x * _sigmoid(x)),
    "hard_sigmoid": (
        lambda g, x: op.clip(g.emit(op.add(g.emit(op.multiply(_number(0.2), x)), _number(0.5))), 0, 1),
        lambda x: np.clip(np.float32(0.2) * x + 0.5, 0, 1),
    ),
    "hard_swish": (
        lambda g, x: op.multiply(
            x, g.emit(op.divide(g.emit(op.clip(g.emit(op.add(x, _number(3))), 0, 6)), _number(6)))
        ),
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
    ),
    "gelu in parts": (
        lambda g, x: op.multiply(
            g.emit(op.multiply(_number(0.5), x)),
            g.emit(op.add(_number(1), g.emit(op.erf(g.emit(op.divide(x, _number(math.sqrt(2)))))))),
        ),
        lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    ),
    "gelu": (lambda g, x: op.nn.gelu(x), lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    "gelu_tanh": (
        lambda g, x: op.nn.gelu_tanh(x),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "elu": (
        lambda g, x: op.add(
            g.emit(
                op.multiply(
                    _number(-0.7), g.emit(op.nn.relu(g.emit(op.subtract(_number(1), g.emit(op.exp(x))))))
                )
            ),
            g.emit(op.nn.relu(x)),
        ),
        lambda x: np.where(x > 0, x, 0.7 * np.expm1(x)),
    ),
    "selu": (
        lambda g, x: op.nn.selu(x),
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    ),
    "softplus": (lambda g, x: op.nn.softplus(x, 2.0, 20.0), lambda x: np.logaddexp(0, 2 * x) / 2),
    "mish": (
        lambda g, x: op.multiply(x, g.emit(op.tanh(g.emit(op.nn.softplus(x))))),
        lambda x: x * np.tanh(np.logaddexp(0, x)),
    ),
    "softsign": (
        lambda g, x: op.divide(x, g.emit(op.add(g.emit(op.abs(x)), _number(1)))),
        lambda x: x / (np.abs(x) + 1),
    ),
    "thresholded": (
        lambda g, x: op.multiply(g.emit(op.astype(g.emit(op.greater(x, _number(0.51))), "float32")), x),
        lambda x: np.where(x > 0.51, x, 0),
    ),
    "shrink": (
        lambda g, x: op.where(
            g.emit(op.less(x, _number(-0.52))), g.emit(op.add(x, _number(0.5))), g.emit(op.zeros_like(x))
        ),
        lambda x: np.where(x < -0.52, x + 0.5, 0),
    ),
    "cube": (lambda g, x: op.power(x, _number(3)), lambda x: x**3),
    "square": (lambda g, x: op.square(x), lambda x: x * x),
    "one less": (lambda g, x: op.subtract(_number(1), x), lambda x: 1 - x),
    "reciprocal": (
        lambda g, x: op.divide(_number(1), g.emit(op.add(g.emit(op.exp(x)), _number(1)))),
        lambda x: 1 / (np.exp(x) + 1),
    ),
    "negative": (lambda g, x: op.negative(x), lambda x: -x),
    "leaky": (lambda g, x: op.nn.leakyrelu(x, 0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
    "negative factor": (lambda g, x: op.multiply(x, _number(-0.3)), lambda x: -0.3 * x),
    "sine": (lambda g, x: op.sin(x), np.sin),
}
"""Relax of one activation, and what it is in float64."""


@pytest.fixture(scope="module")
def chains() -> tuple[HostLibrary, list[NDArray[np.int8]]]:
    def body(graph: Graph, x: Any) -> list[Any]:
        real = graph.requantized(x, X.scale, X.zero_point)
        results = [graph.emit(build(graph, real)) for build, _ in CHAINS.values()]
        return [graph.quantize(result, OUT.scale, OUT.zero_point) for result in results]

    with tempfile.TemporaryDirectory() as directory:
        compiled = compile_model(qdq_model([(4, 8, 8)], body), load_target("host"))
        library = build_host_library(compiled, Path(directory))
        values = np.arange(-128, 128, dtype=np.int8).reshape(4, 8, 8)
        return library, [output.reshape(-1) for output in library.run([values])]


def rounded(real: Float64, q: Quantization) -> NDArray[np.int64]:
    return np.asarray(np.clip(np.rint(real / q.scale) + q.zero_point, -128, 127).astype(np.int64))


def reals(q: Quantization) -> Float64:
    return np.asarray(np.float64(np.float32(q.scale)) * (np.arange(-128, 128) - q.zero_point))


def test_every_chain_is_one_table(chains: tuple[HostLibrary, list[NDArray[np.int8]]]) -> None:
    assert [operator.op for operator in chains[0].compiled.operators] == ["lookup"] * len(CHAINS)


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_the_rounded_real_function(
    name: str, chains: tuple[HostLibrary, list[NDArray[np.int8]]]
) -> None:
    """Within a step, where float32 and float64 lie on two sides of a half; equal on 99 %."""
    actual = chains[1][list(CHAINS).index(name)].astype(np.int64)
    expected = rounded(CHAINS[name][1](reals(X)), OUT)
    assert np.abs(actual - expected).max() <= 1
    assert (actual != expected).mean() <= 0.01


def test_tables_saturate_what_is_no_number() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, 1e30, 0.0157, -0.0157, 0.0156], np.float32)
    expected = [-128, 127, -128, 127, -128, 1, 127, 2, 0, 1]
    np.testing.assert_array_equal(tables.rounded(values, OUT), expected)


# --- two tensors, and constants a channel ------------------------------------------------------------------

FACTORS = (1.5, -0.3, 0.0, 2.2)
OFFSETS = (0.11, 0.2, 0.3, -0.4)

PAIRS: Mapping[str, tuple[Callable[[Any, Any, Any], Any], Callable[[Float64, Float64], Float64]]] = {
    "multiply": (lambda g, x, y: op.multiply(x, y), lambda x, y: x * y),
    "subtract": (lambda g, x, y: op.subtract(x, y), lambda x, y: x - y),
    "maximum": (lambda g, x, y: op.maximum(x, y), np.maximum),
    "minimum": (lambda g, x, y: op.minimum(x, y), np.minimum),
    "batch norm": (
        lambda g, x, y: op.add(g.emit(op.multiply(x, _numbers(FACTORS))), _numbers(OFFSETS)),
        lambda x, y: x * np.array(FACTORS) + np.array(OFFSETS),
    ),
    "less a channel": (
        lambda g, x, y: op.subtract(g.emit(op.multiply(x, _numbers(FACTORS))), _numbers(OFFSETS)),
        lambda x, y: x * np.array(FACTORS) - np.array(OFFSETS),
    ),
    "division by a channel": (
        lambda g, x, y: op.divide(x, _numbers([1.5, -0.7, 0.9, 2.2])),
        lambda x, y: x / np.array([1.5, -0.7, 0.9, 2.2]),
    ),
    "prelu": (
        lambda g, x, y: op.nn.prelu(x, _numbers([0.25, 0.1, -0.05, 0.01]), 2),
        lambda x, y: np.where(x > 0, x, x * np.array([0.25, 0.1, -0.05, 0.01])),
    ),
    "first channels": (
        lambda g, x, y: op.multiply(x, relax.const(np.array([[[0.5]], [[1.25]]], np.float32))),
        lambda x, y: x * np.array([[[0.5]], [[1.25]]]),
    ),
    "in float": (lambda g, x, y: op.add(g.emit(op.sigmoid(x)), y), lambda x, y: _sigmoid(x) + y),
}


@pytest.fixture(scope="module")
def pairs() -> tuple[HostLibrary, NDArray[np.int8], NDArray[np.int8], list[NDArray[np.int8]]]:
    def body(graph: Graph, x: Any, y: Any) -> list[Any]:
        first = graph.requantized(x, X.scale, X.zero_point)
        second = graph.requantized(y, Y.scale, Y.zero_point)
        results = [graph.emit(build(graph, first, second)) for build, _ in PAIRS.values()]
        return [graph.quantize(result, OUT.scale, OUT.zero_point) for result in results]

    rng = np.random.default_rng(3)
    shape = (2, 64, 4)
    x, y = (rng.integers(-128, 128, shape).astype(np.int8) for _ in range(2))
    with tempfile.TemporaryDirectory() as directory:
        compiled = compile_model(qdq_model([shape, shape], body), load_target("host"))
        library = build_host_library(compiled, Path(directory))
        return library, x, y, library.run([x, y])


@pytest.mark.parametrize("name", PAIRS)
def test_two_operands_are_near_float(
    name: str, pairs: tuple[HostLibrary, NDArray[np.int8], NDArray[np.int8], list[NDArray[np.int8]]]
) -> None:
    _, x, y, outputs = pairs
    actual = outputs[list(PAIRS).index(name)].astype(np.int64)
    real = [
        np.float64(np.float32(q.scale)) * (v.astype(np.int64) - q.zero_point) for v, q in ((x, X), (y, Y))
    ]
    expected = rounded(PAIRS[name][1](real[0], real[1]), OUT)
    assert np.abs(actual - expected).max() <= 1
    # Slopes of prelu are stored as int8.
    assert (actual != expected).mean() <= (0.1 if name == "prelu" else 0.02)


def test_what_two_operands_become(
    pairs: tuple[HostLibrary, NDArray[np.int8], NDArray[np.int8], list[NDArray[np.int8]]],
) -> None:
    operators = [operator.op for operator in pairs[0].compiled.operators]
    assert operators.count("depthwise_conv2d") == 4
    for name in ("multiply", "subtract", "maximum", "minimum", "prelu", "lookup"):
        assert operators.count(name) == 1, operators
    assert sum(name.startswith("float") for name in operators) == 1, operators
