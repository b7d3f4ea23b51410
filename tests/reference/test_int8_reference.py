"""The numpy rules of `int8.py` against LiteRT's reference kernels, value by value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.campaign import campaign_count
from tests.reference import int8
from tests.reference.cases import OPERATORS, Case, batch_model
from tests.reference.int8 import Quantized
from tests.reference.litert import run_reference
from tests.reference.tflite_builder import TfliteBuilder

EXAMPLES = campaign_count(200, 12)
CASES_EACH = 12


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_rule_equals_litert(operator: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(OPERATORS[operator], min_size=CASES_EACH, max_size=CASES_EACH))
    def check(cases: list[Case]) -> None:
        content, inputs = batch_model(cases)
        for case, actual in zip(cases, run_reference(content, inputs), strict=True):
            assert case.expected is not None
            expected = case.expected()
            assert actual.dtype == expected.dtype
            assert actual.size == expected.size
            np.testing.assert_array_equal(actual.reshape(expected.shape), expected, err_msg=repr(case))

    check()


@settings(max_examples=EXAMPLES * 20, deadline=None)
@given(
    st.one_of(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-(2**16), 2**16)),
    st.integers(1, 2**24 - 1),
    st.integers(1, 2**24 - 1),
    st.integers(-30, 8),
)
def test_integer_form_of_fully_connected_equals_float64(
    accumulator: int, above: int, below: int, exponent: int
) -> None:
    real = above / below * 2.0**exponent
    if real >= 2.0**20:
        return
    rounded = int(np.clip(int8.round_half_away(float(accumulator) * real), -256, 256))
    assert int8.fully_connected_scale(accumulator, real) == rounded


@pytest.mark.parametrize("below", [3, 5, 6, 7, 9, 10, 11, 12, 13, 49, 96])
def test_integer_form_of_fully_connected_on_halves(below: int) -> None:
    """Quotients like 1/6 are rounded down in float64, but 3 · (1/6) is rounded back up to the half."""
    for shift in range(-6, 3):
        real = 2.0**shift / below
        for accumulator in range(-600, 601):
            rounded = int(np.clip(int8.round_half_away(float(accumulator) * real), -256, 256))
            assert int8.fully_connected_scale(accumulator, real) == rounded, (accumulator, real)


def test_float_quantisation_saturates_what_litert_leaves_undefined() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**31)], np.float32)
    assert int8.quantize(x, Quantized(0.5, -7)).tolist() == [-128, 127, -128, 127, -128, 127, -128]


def test_softmax_row_that_aborts_litert_is_all_minimum() -> None:
    x = np.full((1, 512), 5, np.int8)
    assert (int8.softmax(x, 0.1) == -128).all()
    assert (int8.softmax(x[:, :511], 0.1) == -127).all()


def test_litert_refuses_to_rescale_in_concatenation() -> None:
    builder = TfliteBuilder()
    tensors = [builder.input((1, 2), scale, 0) for scale in (0.5, 0.25)]
    builder.output(builder.concatenation(tensors, 1, 0.5, 0))
    with pytest.raises(RuntimeError, match="scale"):
        run_reference(builder.build(), [np.zeros((1, 2), np.int8)] * 2)
