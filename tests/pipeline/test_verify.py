"""Every byte of every row is compared, a difference is named down to its operator, accuracy is measured."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgekit.artifacts import CompiledOperator, Quantization, TensorSpec
from edgekit.data import Rows
from edgekit.errors import ModelError, VerificationError
from edgekit.verify import accuracy_top1, is_classified, verify

SPEC = TensorSpec("scores", (1, 4), "int8", Quantization(0.5, 0))
FLOATS = TensorSpec("reals", (1, 4), "float32")


@dataclass
class FakeRunner:
    """Two operators: `first` of the input, then `second` of that; a run destroys the input."""

    first: Callable[[np.ndarray], np.ndarray] = lambda x: x
    second: Callable[[np.ndarray], np.ndarray] = lambda x: x
    loaded: bytes | None = None
    output: bytes = b""
    calls: list[str] = field(default_factory=list)

    def write_input(self, index: int, data: bytes, program: int = 0) -> None:
        assert index == 0
        self.loaded = data

    def _operators(self) -> list[bytes]:
        assert self.loaded is not None
        x = np.frombuffer(self.loaded, np.int8)
        self.loaded = None
        middle = self.first(x)
        return [middle.tobytes(), self.second(middle).tobytes()]

    def run(self, program: int = 0) -> None:
        self.output = self._operators()[-1]

    def read_output(self, index: int, program: int = 0) -> bytes:
        return self.output

    def operator_checksums(self, program: int = 0) -> tuple[int, ...]:
        return tuple(zlib.crc32(data) for data in self._operators())


def rows(x: list[list[int]], y: list[int] | None = None) -> Rows:
    values = np.array(x, dtype=np.int8)
    labels = None if y is None else np.array(y, dtype=np.int64)
    return Rows((values,), labels, np.arange(len(x)) + 100, "rows.npz")


def operator(number: int, name: str) -> CompiledOperator:
    return CompiledOperator(number, name, "conv2d", "portable.conv2d", 1, 0, 4, 0, 0, (1, 4))


OPERATORS = [operator(0, "stem"), operator(1, "\x1b[2Jhead")]
ROWS = rows([[1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 9, 0]])


def test_equal_programs_are_exact() -> None:
    done: list[int] = []
    found = verify(FakeRunner(), FakeRunner(), ROWS, [SPEC], OPERATORS, exact=True, advanced=done.append)
    assert found.verification.passed
    assert found.verification.bit_exact
    assert (found.verification.samples, found.verification.max_abs_error) == (3, 0.0)
    assert found.verification.first_difference is None
    assert found.outputs[0].tolist() == [[[1, 2, 3, 4]], [[4, 3, 2, 1]], [[0, 0, 9, 0]]]
    assert done == [1, 2, 3]


def test_one_wrong_byte_names_the_row_the_index_and_the_operator() -> None:
    def off(x: np.ndarray) -> np.ndarray:
        wrong = x.copy()
        wrong[2] -= (x[2] == 9) * 3
        return wrong

    found = verify(FakeRunner(), FakeRunner(second=off), ROWS, [SPEC], OPERATORS, exact=True)
    assert not found.verification.passed
    assert found.verification.max_abs_error == 3.0
    assert found.verification.first_difference == (
        "row 102 of rows.npz, output 0 (scores), index 2: host 9, board 6; "
        "first operator that differs: 1 conv2d \\x1b[2Jhead (portable.conv2d)"
    )


def test_the_earliest_wrong_operator_is_named() -> None:
    found = verify(
        FakeRunner(), FakeRunner(first=lambda x: x + np.int8(1)), ROWS, [SPEC], OPERATORS, exact=True
    )
    assert "first operator that differs: 0 conv2d stem" in (found.verification.first_difference or "")
    assert "row 100" in (found.verification.first_difference or "")


def test_float_outputs_may_differ_within_the_stated_tolerance_only() -> None:
    def floats(offset: float) -> FakeRunner:
        return FakeRunner(second=lambda x: x.astype(np.float32) * 10 + np.float32(offset))

    near = verify(floats(0), floats(5e-5), ROWS, [FLOATS], OPERATORS, exact=False).verification
    assert near.passed
    assert not near.bit_exact
    assert near.mode == "tolerance"
    assert 0 < near.max_abs_error < 1e-3
    far = verify(floats(0), floats(0.1), ROWS, [FLOATS], OPERATORS, exact=False).verification
    assert not far.passed
    assert far.max_abs_error == pytest.approx(0.1, rel=1e-2)
    nan = verify(floats(0), floats(float("nan")), ROWS, [FLOATS], OPERATORS, exact=False).verification
    assert not nan.passed
    assert nan.max_abs_error == float("inf")


def test_floats_in_an_exact_program_are_compared_by_their_bytes() -> None:
    plus = FakeRunner(second=lambda x: np.zeros(4, np.float32))
    minus = FakeRunner(second=lambda x: np.array([0, 0, 0, -0.0], np.float32))
    found = verify(plus, minus, ROWS, [FLOATS], OPERATORS, exact=True).verification
    assert not found.passed
    assert "index 3" in (found.first_difference or "")


def test_a_quantised_output_of_a_float_program_may_differ_by_one_step() -> None:
    one, two = FakeRunner(second=lambda x: x + np.int8(1)), FakeRunner(second=lambda x: x + np.int8(2))
    found = verify(FakeRunner(), one, ROWS, [SPEC], OPERATORS, exact=False).verification
    assert found.passed
    assert (found.tolerance, found.max_abs_error) == (0.5, 0.5)
    assert not verify(FakeRunner(), two, ROWS, [SPEC], OPERATORS, exact=False).verification.passed


def test_an_output_of_another_size_is_another_image() -> None:
    with pytest.raises(VerificationError, match="3 bytes"):
        verify(FakeRunner(), FakeRunner(second=lambda x: x[:3]), ROWS, [SPEC], OPERATORS, exact=True)


def test_accuracy_is_top_1_of_what_the_board_answered() -> None:
    labelled = rows([[1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 9, 0]], y=[3, 0, 1])
    found = verify(FakeRunner(), FakeRunner(), labelled, [SPEC], OPERATORS, exact=True)
    accuracy = accuracy_top1(labelled, found.outputs[0], [SPEC])
    assert accuracy is not None
    assert accuracy.value == pytest.approx(2 / 3)
    assert accuracy.samples == 3
    assert accuracy_top1(ROWS, found.outputs[0], [SPEC]) is None


def test_a_class_the_model_has_no_output_for_is_refused() -> None:
    labelled = rows([[1, 2, 3, 4]], y=[4])
    with pytest.raises(ModelError, match="class 4"):
        is_classified(labelled, [SPEC])


def test_a_picture_as_output_has_no_top_1() -> None:
    labelled = rows([[1, 2, 3, 4]], y=[1])
    picture = TensorSpec("picture", (1, 8, 8, 2), "int8")
    assert not is_classified(labelled, [picture])
    assert accuracy_top1(labelled, np.zeros((1, 1, 8, 8, 2), np.int8), [picture]) is None


def test_floats_are_compared_by_the_magnitude_of_their_output() -> None:
    def floats(offset: float) -> FakeRunner:
        return FakeRunner(second=lambda x: x.astype(np.float32) * np.float32(1e-3) + np.float32(offset))

    assert verify(floats(0), floats(1e-7), ROWS, [FLOATS], OPERATORS, exact=False).verification.passed
    assert not verify(floats(0), floats(1e-5), ROWS, [FLOATS], OPERATORS, exact=False).verification.passed


def test_steps_of_requantised_programs_may_grow_but_seldom() -> None:
    many = rows([[number % 100, 2, 3, 4] for number in range(200)])

    def off(steps: int, every: int) -> FakeRunner:
        def second(x: np.ndarray) -> np.ndarray:
            changed = x.copy()
            changed[1] += steps if x[0] % every == 0 else 1
            return changed

        return FakeRunner(second=second)

    def passes(runner: FakeRunner) -> bool:
        found = verify(FakeRunner(), runner, many, [SPEC], OPERATORS, exact=False, requantised=True)
        assert found.verification.tolerance == 4 * 0.5
        return found.verification.passed

    assert passes(off(4, 50))
    assert not passes(off(5, 50))
    assert not passes(off(2, 2))
    found = verify(FakeRunner(), off(2, 2), many, [SPEC], OPERATORS, exact=False, requantised=True)
    assert "more than a step" in (found.verification.first_difference or "")


def test_indices_of_a_float_program_may_not_differ() -> None:
    indices = TensorSpec("class", (4,), "int8")
    one = FakeRunner(second=lambda x: x + np.int8(1))
    assert not verify(FakeRunner(), one, ROWS, [indices], OPERATORS, exact=False).verification.passed
