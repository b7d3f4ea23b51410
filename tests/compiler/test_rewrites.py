"""Rewrites of the program that change no answer: padding that windows do themselves, clamps to one value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.reference.host_library import compile_tflite
from tests.reference.litert import run_reference
from tests.reference.tflite_builder import TfliteBuilder

BORDERS = ((0, 0), (1, 2), (2, 1), (0, 0))


@pytest.mark.parametrize(("zero_point", "pads"), [(-128, 0), (-3, 1)])
def test_windows_pad_themselves(tmp_path: Path, zero_point: int, pads: int) -> None:
    """Convolutions and an average take any zero point, a maximum only what never wins."""
    rng = np.random.default_rng(3)
    builder = TfliteBuilder()
    x = builder.input((1, 7, 6, 4), 0.05, zero_point)
    padded = builder.pad(x, BORDERS)
    weights = rng.integers(-127, 128, (8, 3, 3, 4)).astype(np.int8)
    taps = rng.integers(-127, 128, (1, 3, 3, 4)).astype(np.int8)
    builder.output(
        builder.conv2d(
            padded,
            weights,
            rng.integers(-500, 500, 8).astype(np.int32),
            [0.004] * 8,
            0.05,
            -3,
            padding="VALID",
        ),
        builder.depthwise_conv2d(
            padded, taps, rng.integers(-500, 500, 4).astype(np.int32), [0.004] * 4, 0.05, -3, padding="VALID"
        ),
        builder.average_pool(padded, (3, 3), stride=(2, 2), padding="VALID"),
        builder.max_pool(padded, (2, 2), stride=(2, 2), padding="VALID"),
    )
    content = builder.build()
    library = compile_tflite(content, tmp_path)
    assert [operator.op for operator in library.compiled.operators].count("pad") == pads
    for _ in range(3):
        values = rng.integers(-128, 128, (1, 7, 6, 4)).astype(np.int8)
        for mine, reference in zip(library.run([values]), run_reference(content, [values]), strict=True):
            np.testing.assert_array_equal(mine, reference)


def test_another_value_is_no_padding_of_a_convolution(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    builder = TfliteBuilder()
    x = builder.input((1, 5, 5, 4), 0.05, 7)
    weights = rng.integers(-127, 128, (4, 3, 3, 4)).astype(np.int8)
    bias = np.zeros(4, np.int32)
    padded = builder.padv2(x, BORDERS, 12)
    builder.output(builder.conv2d(padded, weights, bias, [0.004] * 4, 0.05, -3, padding="VALID"))
    content = builder.build()
    library = compile_tflite(content, tmp_path)
    assert "pad" in [operator.op for operator in library.compiled.operators]
    values = rng.integers(-128, 128, (1, 5, 5, 4)).astype(np.int8)
    np.testing.assert_array_equal(library.run([values])[0], run_reference(content, [values])[0])


def test_padding_before_a_transposition_is_done_behind_it(tmp_path: Path) -> None:
    """As torch's ZeroPad2d of an NCHW input before its first convolution: the window pads itself."""
    rng = np.random.default_rng(5)
    builder = TfliteBuilder()
    x = builder.input((1, 3, 6, 5), 0.05, -9)
    padded = builder.pad(x, ((0, 0), (0, 0), (1, 2), (0, 1)))
    (moved,) = builder.move(
        "TRANSPOSE",
        [padded],
        schema.TransposeOptionsT(),
        [(1, 9, 6, 3)],
        after=[np.array([0, 2, 3, 1], np.int32)],
    )
    weights = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    bias = rng.integers(-500, 500, 4).astype(np.int32)
    builder.output(builder.conv2d(moved, weights, bias, [0.004] * 4, 0.05, -3, padding="VALID"))
    content = builder.build()
    library = compile_tflite(content, tmp_path)
    assert [operator.op for operator in library.compiled.operators] == ["transpose", "conv2d"]
    values = rng.integers(-128, 128, (1, 3, 6, 5)).astype(np.int8)
    np.testing.assert_array_equal(library.run([values])[0], run_reference(content, [values])[0])


def test_a_clamp_to_one_value_leaves_nothing_to_compute(tmp_path: Path) -> None:
    """A dead ReLU: nothing above the zero point can be stored."""
    rng = np.random.default_rng(6)
    builder = TfliteBuilder()
    x = builder.input((1, 6, 5, 3), 0.05, -9)
    weights = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    bias = rng.integers(-500, 500, 4).astype(np.int32)
    dead = builder.conv2d(x, weights, bias, [0.004] * 4, 0.05, 127, activation="RELU")
    alive = builder.conv2d(x, weights, bias, [0.004] * 4, 0.05, 127)
    builder.output(builder.concatenation([dead, alive], 3, 0.05, 127))
    content = builder.build()
    library = compile_tflite(content, tmp_path)
    assert [operator.op for operator in library.compiled.operators].count("conv2d") == 1
    values = rng.integers(-128, 128, (1, 6, 5, 3)).astype(np.int8)
    np.testing.assert_array_equal(library.run([values])[0], run_reference(content, [values])[0])
