"""Every lowered operator, compiled for the host, against LiteRT's reference kernels: equal bytes.

Random shapes, strides, paddings, dilations, scales, zero points and clamps; several operators a model, so
that a compilation is paid for once. `EDGEKIT_CAMPAIGN=1` raises the counts.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings, strategies as st
from numpy.typing import NDArray

from edgekit.artifacts import ImportOptions, Quantization
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.program import Program
from edgekit.frontend import load_model
from tests.campaign import campaign_count
from tests.reference import int8
from tests.reference.arithmetic_cases import ARITHMETIC
from tests.reference.cases import OPERATORS, Case, batch_model
from tests.reference.convolution_cases import CONVOLUTIONS
from tests.reference.host_library import HostLibrary, compile_tflite
from tests.reference.int8 import Quantized
from tests.reference.int16_cases import INT16
from tests.reference.litert import ReferenceModel, run_reference
from tests.reference.movement_cases import MOVEMENTS
from tests.reference.tflite_builder import TfliteBuilder

EXAMPLES = campaign_count(60, 5)
CASES_EACH = 8

# At the border of a model quantize and dequantize are stripped, and reshape computes nothing: tested below.
COMPUTING = {
    name: cases
    for name, cases in {**OPERATORS, **CONVOLUTIONS}.items()
    if name not in ("quantize", "dequantize", "reshape")
}


def program_of(content: bytes) -> Program:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.tflite"
        path.write_bytes(content)
        return lower_model(load_model(path))


def equal_bytes(actual: NDArray[np.generic], expected: NDArray[np.generic], place: str) -> None:
    assert actual.dtype == expected.dtype, place
    assert actual.size == expected.size, place
    np.testing.assert_array_equal(actual.reshape(expected.shape), expected, err_msg=place)


def compare(content: bytes, inputs: Sequence[NDArray[np.generic]], places: Sequence[str]) -> None:
    reference = run_reference(content, inputs)
    with tempfile.TemporaryDirectory() as directory:
        outputs = compile_tflite(content, Path(directory)).run(inputs)
    for actual, expected, place in zip(outputs, reference, places, strict=True):
        equal_bytes(actual, expected, place)


@pytest.mark.parametrize("operator", sorted(COMPUTING))
def test_operator_equals_litert(operator: str) -> None:
    # No shrinking: a batch of cases is slow to shrink, and the message names the one case that differs.
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )
    @given(st.lists(COMPUTING[operator], min_size=CASES_EACH, max_size=CASES_EACH))
    def check(cases: list[Case]) -> None:
        assume(not all(case.parameters.get("q_x") == case.parameters.get("q_y", "") for case in cases))
        content, inputs = batch_model(cases)
        compare(content, inputs, [repr(case) for case in cases])

    check()


@settings(
    max_examples=campaign_count(60, 3),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.tuples(*MOVEMENTS.values()), OPERATORS["relu"])
def test_movements_equal_litert_and_numpy(cases: tuple[Case, ...], computing: Case) -> None:
    """One of each in a model, and one operator that computes: a model that moves nothing is refused."""
    content, inputs = batch_model([computing, *cases])
    reference = run_reference(content, inputs)
    with tempfile.TemporaryDirectory() as directory:
        outputs = compile_tflite(content, Path(directory)).run(inputs)
    for number, (actual, expected) in enumerate(zip(outputs, reference, strict=True)):
        equal_bytes(actual, expected, f"output {number} of {[computing, *cases]!r}")
    moved = np.concatenate([output.ravel() for output in outputs[1:]])
    expected = np.concatenate([case.expected() for case in cases if case.expected is not None])
    np.testing.assert_array_equal(moved, expected)


@settings(
    max_examples=campaign_count(60, 2),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.lists(st.tuples(*INT16.values()), min_size=3, max_size=3))
def test_int16_layers_equal_litert(cases: list[tuple[Case, ...]]) -> None:
    every = list(itertools.chain(*cases))
    content, inputs = batch_model(every)
    compare(content, inputs, [repr(case) for case in every])


@settings(
    max_examples=campaign_count(60, 2),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.lists(st.tuples(*ARITHMETIC.values()), min_size=2, max_size=2), OPERATORS["relu"])
def test_products_resizes_and_reductions_equal_litert(cases: list[tuple[Case, ...]], computing: Case) -> None:
    every = [computing, *itertools.chain(*cases)]
    content, inputs = batch_model(every)
    compare(content, inputs, [repr(case) for case in every])


@pytest.mark.parametrize("y_scale", [1.0, 3.0, 1.5, 2.75])
def test_fully_connected_rounds_halves_as_litert(y_scale: float) -> None:
    """LiteRT rounds float64 products, halves away from zero; a 31-bit multiplier is off on many of these."""
    x = np.arange(-128, 128, dtype=np.int8).reshape(256, 1)
    weights = np.array([[1], [-1], [2], [-3], [5], [-127]], np.int8)
    builder = TfliteBuilder()
    outputs = [
        builder.fully_connected(builder.input((256, 1), 0.5, zero), weights, None, scales, y_scale, 3)
        for zero, scales in ((-3, [0.5]), (0, [0.25, 0.5, 1.0, 0.5, 0.125, 1 / 3]))
    ]
    builder.output(*outputs)
    compare(builder.build(), [x, x], ["per tensor", "per channel"])


@settings(max_examples=EXAMPLES, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(OPERATORS["quantize"], min_size=2, max_size=4))
def test_quantize_on_the_board(cases: list[Case]) -> None:
    """A float input read at several scales stays float; the program quantises it, NaN and infinities too."""
    scales = [case.parameters["q_y"] for case in cases]
    assume(len(set(scales)) > 1)
    odd = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31)], np.float32)
    values = np.concatenate([odd, *(case.inputs[0].values.ravel() for case in cases)])[None]
    builder = TfliteBuilder()
    x = builder.input(values.shape, dtype="float32")
    builder.output(*(builder.quantize(x, q.scale, q.zero_point) for q in scales))
    with tempfile.TemporaryDirectory() as directory:
        library = compile_tflite(builder.build(), Path(directory))
        assert [operator.op for operator in library.compiled.operators] == ["quantize"] * len(cases)
        for actual, q in zip(library.run([values]), scales, strict=True):
            equal_bytes(actual, int8.quantize(values, q), repr(q))


def test_quantisation_at_the_border_is_the_hosts_work() -> None:
    """A float model's input and output become int8, with the quantisation that the file states."""
    q_x, q_y = Quantized(float(np.float32(0.07)), 9), Quantized(float(np.float32(0.05)), -128)
    values = np.random.default_rng(7).uniform(-10, 10, (1, 300)).astype(np.float32)
    builder = TfliteBuilder()
    x = builder.input(values.shape, dtype="float32")
    inside = builder.relu6(builder.quantize(x, q_x.scale, q_x.zero_point), q_y.scale, q_y.zero_point)
    builder.output(builder.dequantize(inside))
    content = builder.build()
    (expected,) = run_reference(content, [values])
    with tempfile.TemporaryDirectory() as directory:
        library = compile_tflite(content, Path(directory))
        for spec, quantized in ((library.compiled.inputs[0], q_x), (library.compiled.outputs[0], q_y)):
            assert spec.dtype == "int8"
            assert spec.quantization == Quantization(quantized.scale, quantized.zero_point)
        (actual,) = library.run([int8.quantize(values, q_x)])
    equal_bytes(int8.dequantize(actual, q_y), expected, "relu6")


def test_reshape_between_operators() -> None:
    """Row-major order is kept, also where a 4-D activation is flattened for a fully connected layer."""
    rng = np.random.default_rng(4)
    builder = TfliteBuilder()
    x = builder.input((1, 3, 4, 5), 0.05, -3)
    pooled = builder.max_pool(x, (2, 2), padding="SAME")
    flat = builder.reshape(pooled, (1, 60))
    weights = rng.integers(-127, 128, (7, 60)).astype(np.int8)
    dense = builder.fully_connected(flat, weights, rng.integers(-99, 99, 7).astype(np.int32), [0.02], 0.3, 4)
    square = builder.reshape(dense, (7, 1))
    builder.output(builder.relu(square, 0.2, -128), builder.quantize(flat, 0.07, 1))
    values = rng.integers(-128, 128, (1, 3, 4, 5)).astype(np.int8)
    compare(builder.build(), [values], ["dense", "flat"])


def test_constant_operands() -> None:
    """A constant may be an operand of ADD and CONCATENATION."""
    rng = np.random.default_rng(6)
    builder = TfliteBuilder()
    x = builder.input((1, 4, 4, 3), 0.1, 7)
    offsets = builder.constant(rng.integers(-128, 128, 3).astype(np.int8), [0.03], 5)
    tail = builder.constant(rng.integers(-128, 128, (1, 4, 4, 2)).astype(np.int8), [0.1], 7)
    added = builder.add(x, offsets, 0.12, -4, activation="RELU")
    builder.output(added, builder.concatenation([x, tail], 3, 0.1, 7))
    values = rng.integers(-128, 128, (1, 4, 4, 3)).astype(np.int8)
    compare(builder.build(), [values], ["add", "concatenation"])


def test_one_tensor_read_by_several_operators() -> None:
    """Residual blocks: a tensor outlives its first reader, and in-place execution must respect that."""
    rng = np.random.default_rng(5)
    builder = TfliteBuilder()
    x = builder.input((1, 6, 6, 4), 0.1, 7)
    kernel = rng.integers(-127, 128, (4, 3, 3, 4)).astype(np.int8)
    bias = rng.integers(-500, 500, 4).astype(np.int32)
    first = builder.conv2d(x, kernel, bias, [0.01, 0.02, 0.03, 0.004], 0.2, -5, activation="RELU")
    second = builder.conv2d(first, kernel[::-1].copy(), bias, [0.02], 0.3, 11)
    joined = builder.add(first, second, 0.25, -8, activation="RELU6")
    again = builder.add(joined, x, 0.31, 3)
    total = builder.add(again, again, 0.6, 2)
    both = builder.concatenation([total, builder.quantize(first, 0.6, 2)], 3, 0.6, 2)
    builder.output(builder.mean(both, [1, 2], 0.5, -1, keep_dims=False), total, both)
    values = rng.integers(-128, 128, (1, 6, 6, 4)).astype(np.int8)
    compare(builder.build(), [values], ["mean", "total", "both"])


def test_sums_equal_litert() -> None:
    """Over any axes, to scales that fit and scales that clamp; by its optimised kernel."""
    rng = np.random.default_rng(8)
    builder = TfliteBuilder()
    x = builder.input((2, 5, 6, 3), 0.03, -17)
    forms = [((1, 2), 0.2, True), ((3,), 0.05, False), ((0, -1), 0.011, True), ((2,), 0.9, False)]
    for axes, scale, keep in forms:
        builder.output(builder.reduction("SUM", x, axes, scale, 5, keep_dims=keep))
    values = rng.integers(-128, 128, (2, 5, 6, 3)).astype(np.int8)
    content = builder.build()
    with tempfile.TemporaryDirectory() as directory:
        found = compile_tflite(content, Path(directory)).run([values])
    for ours, theirs in zip(found, ReferenceModel(content, optimised=True).run([values]), strict=True):
        equal_bytes(ours, theirs, "sum")
    assert {step.operator.NAME for step in program_of(content).steps} == {"mean"}


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_rows_that_are_normalised_in_float(dtype: str) -> None:
    """LiteRT's int8 forms are fixed point; the rounded reals are a step off here and there."""
    rng = np.random.default_rng(9)
    builder = TfliteBuilder()
    real = dtype == "float32"
    x = builder.input((4, 9), 0.0 if real else 0.05, 0 if real else 3, dtype=dtype)
    builder.output(builder.normalized("L2_NORMALIZATION", x), builder.normalized("LOG_SOFTMAX", x))
    values = (rng.normal(size=(4, 9)) if real else rng.integers(-128, 128, (4, 9))).astype(dtype)
    values[2] = 0 if real else 3
    content = builder.build()
    with tempfile.TemporaryDirectory() as directory:
        found = compile_tflite(content, Path(directory), ImportOptions(precision="float32")).run([values])
    for ours, theirs in zip(found, run_reference(content, [values]), strict=True):
        assert ours.dtype == theirs.dtype
        difference = np.abs(ours.astype(np.float64).reshape(theirs.shape) - theirs)
        assert difference.max() <= (1e-5 if real else 1)
    assert not found[0].reshape(4, 9)[2].any()


def test_a_gate_is_one_table() -> None:
    """x · sigmoid(x) and the like, both ways round and clamped; other products of tables stay products."""
    builder = TfliteBuilder()
    x = builder.input((1, 16, 16), 0.043, 9)
    gate = builder.function("LOGISTIC", x, 1 / 256, -128)
    bent = builder.function("TANH", x, 1 / 128, 0)
    silu = builder.binary("MUL", x, gate, 0.031, -77)
    clamped = builder.binary("MUL", gate, x, 0.05, 3, activation="RELU6")
    both = builder.binary("MUL", bent, gate, 0.008, -5)
    builder.output(silu, clamped, both, gate)
    content = builder.build()
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16)
    compare(content, [values], ["silu", "clamped", "both", "gate"])
    assert [step.operator.NAME for step in program_of(content).steps] == ["lookup"] * 4
    builder = TfliteBuilder()
    x, other = builder.input((1, 4, 4), 0.1, 0), builder.input((1, 4, 4), 0.1, 0)
    builder.output(builder.binary("MUL", x, builder.function("LOGISTIC", other, 1 / 256, -128), 0.1, 0))
    assert [step.operator.NAME for step in program_of(builder.build()).steps] == ["lookup", "multiply"]


# --- whole models ----------------------------------------------------------------------------------


def library_and_reference(path: Path, directory: Path) -> tuple[HostLibrary, ReferenceModel]:
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent}")
    content = path.read_bytes()
    return compile_tflite(content, directory), ReferenceModel(content)


def compare_rows(library: HostLibrary, reference: ReferenceModel, rows: NDArray[np.int8]) -> None:
    for number, row in enumerate(rows):
        outputs, expected = library.run([row]), reference.run([row])
        for actual, wanted in zip(outputs, expected, strict=True):
            equal_bytes(actual, wanted, f"row {number}")


def compare_layers(library: HostLibrary, reference: ReferenceModel, rows: NDArray[np.int8]) -> None:
    """Every operator's output against the tensor of the same name."""
    for row in rows:
        operators = library.run_operators([row])
        reference.run([row])
        tensors = reference.tensors()
        for operator, content in operators:
            assert content == tensors[operator.name].tobytes(), (operator.id, operator.op, operator.name)


def test_keyword_spotting_equals_litert_on_every_row(data_dir: Path, tmp_path: Path) -> None:
    rows_file = data_dir / "kws01_600.npz"
    if not rows_file.is_file():
        pytest.skip(f"no {rows_file.name} in {data_dir}")
    library, reference = library_and_reference(data_dir / "kws_ref_model.tflite", tmp_path)
    with np.load(rows_file, allow_pickle=False) as data:
        rows = data["x"]
    assert len(rows) == 600
    compare_rows(library, reference, rows)
    compare_layers(library, reference, rows[:32])


def test_image_classification_equals_litert_on_random_rows(data_dir: Path, tmp_path: Path) -> None:
    library, reference = library_and_reference(data_dir / "pretrainedResnet_quant.tflite", tmp_path)
    rows = np.random.default_rng(3).integers(-128, 128, (64, 32, 32, 3)).astype(np.int8)
    compare_rows(library, reference, rows)
    compare_layers(library, reference, rows[:4])
