"""The board's answers against the host reference, sample by sample, and the accuracy of what the board
answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import CompiledOperator, TensorSpec, Verification
from edgekit.data import Rows
from edgekit.errors import ModelError, VerificationError
from edgekit.text import printable

__all__ = [
    "FLOAT_TOLERANCE",
    "Accuracy",
    "Runner",
    "Verified",
    "accuracy_top1",
    "compare",
    "infer",
    "is_classified",
    "verify",
]

FLOAT_TOLERANCE = 1e-4
"""Of an output's largest magnitude in a row, for programs with float parts: the same float code contracts to
fused multiply-adds on one core and not on another, and their libraries' exponentials differ in the last bits.
"""

FLOAT_FLOOR = 1e-6
"""Added to it, for outputs that are rounding errors throughout."""

REQUANTISED_STEP = 1 / 256
"""Where results of float operators are quantised again inside the program, a difference in the last bits can
become a whole step. One step of a float output is this part of its largest magnitude in a row.
"""

REQUANTISED_STEPS = 4
"""Such a step may grow on its way through integer operators: the most that a value may differ."""

REQUANTISED_SHARE = 0.01
"""The most values of an output, over all rows, that may differ by more than one step."""

Array = npt.NDArray[Any]


class Runner(Protocol):
    """What verification needs of a connected board or host reference."""

    def write_input(self, index: int, data: bytes, program: int = 0) -> None: ...

    def run(self, program: int = 0) -> object: ...

    def read_output(self, index: int, program: int = 0) -> bytes: ...

    def operator_checksums(self, program: int = 0) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome, and what the board answered: each output is (N, *spec.shape) in its stored type."""

    verification: Verification
    outputs: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of rows whose largest value of output 0 is at the row's class."""

    value: float
    samples: int


@dataclass(frozen=True, slots=True)
class _Difference:
    """How far two answers are apart: over all, and the first place where they are too far."""

    largest: float
    identical: bool
    place: tuple[int, int] | None
    """(output, flat index in it), None where all is within what is allowed."""
    allowed: float
    """The most that a value of any output was allowed to differ."""
    beyond_a_step: tuple[int, ...]
    """Of each output, the values that differ by more than one step."""
    worst: tuple[int, int] | None
    """The first of those."""


def infer(runner: Runner, inputs: Sequence[bytes], outputs: Sequence[TensorSpec]) -> tuple[Array, ...]:
    """One inference: the outputs in their shapes and stored types.

    Raises:
        VerificationError: The runner gave another number of bytes than the output has.
    """
    for index, data in enumerate(inputs):
        runner.write_input(index, data)
    runner.run()
    return tuple(_array(runner.read_output(index), spec) for index, spec in enumerate(outputs))


def verify(
    reference: Runner,
    board: Runner,
    rows: Rows,
    outputs: Sequence[TensorSpec],
    operators: Sequence[CompiledOperator],
    *,
    exact: bool,
    requantised: bool = False,
    advanced: Callable[[int], None] = lambda done: None,
) -> Verified:
    """Run all rows on both and compare every byte that they answer.

    With `exact` the bytes must be the same, and `max_abs_error` is in stored units. Otherwise a float output
    may differ by `FLOAT_TOLERANCE` of its largest magnitude in the row, a quantised one by one step, others
    not at all. With `requantised`, float results are quantised inside the program: outputs may then differ by
    `REQUANTISED_STEPS` steps, `REQUANTISED_SHARE` of their values by more than one. `max_abs_error` and
    `tolerance` are in real units. All rows are run even when an early one differs, so that the error is that
    of the whole set.
    """
    answers: list[tuple[Array, ...]] = []
    largest, allowed, identical, first = 0.0, 0.0, True, None
    beyond = [0] * len(outputs)
    beyond_first: list[str | None] = [None] * len(outputs)
    for row in range(len(rows)):
        inputs = rows.input_bytes(row)
        expected = infer(reference, inputs, outputs)
        answer = infer(board, inputs, outputs)
        difference = compare(expected, answer, outputs, exact=exact, requantised=requantised)
        largest, identical = max(largest, difference.largest), identical and difference.identical
        allowed = max(allowed, difference.allowed)
        beyond = [before + more for before, more in zip(beyond, difference.beyond_a_step, strict=True)]
        if difference.worst is not None and beyond_first[difference.worst[0]] is None:
            output, index = difference.worst
            beyond_first[output] = _sentence(
                rows, row, outputs[output], output, index, expected[output], answer[output]
            )
        if first is None and difference.place is not None:
            output, index = difference.place
            first = _sentence(rows, row, outputs[output], output, index, expected[output], answer[output])
            first += _first_operator(reference, board, inputs, operators, exact=exact)
        answers.append(answer)
        advanced(row + 1)
    for output, spec in enumerate(outputs):
        if first is None and beyond[output] > math.ceil(REQUANTISED_SHARE * spec.elements * len(rows)):
            share = beyond[output] / (spec.elements * len(rows))
            first = f"{share:.1%} of the values differ by more than a step, first {beyond_first[output]}"
    return Verified(
        Verification(
            mode="exact" if exact else "tolerance",
            passed=first is None,
            bit_exact=identical,
            samples=len(rows),
            tolerance=allowed,
            max_abs_error=largest,
            first_difference=first,
        ),
        tuple(np.stack([answer[index] for answer in answers]) for index in range(len(outputs))),
    )


def compare(
    expected: Sequence[Array],
    answer: Sequence[Array],
    outputs: Sequence[TensorSpec],
    *,
    exact: bool,
    requantised: bool = False,
) -> _Difference:
    """Two answers to one row, output by output; the first difference is the first in the outputs' order."""
    largest, allowed, identical, place, worst = 0.0, 0.0, True, None, None
    beyond = []
    for output, (one, other, spec) in enumerate(zip(expected, answer, outputs, strict=True)):
        scale = 1.0 if exact or spec.quantization is None else spec.quantization.scale
        reals, others = one.astype(np.float64) * scale, other.astype(np.float64) * scale
        step = 0.0 if exact else _step(spec, reals, requantised)
        most = step * REQUANTISED_STEPS if requantised else step
        allowed = max(allowed, most)
        if one.tobytes() == other.tobytes():
            beyond.append(0)
            continue
        identical = False
        with np.errstate(invalid="ignore"):
            error = np.abs(reals - others)
        # a NaN on one side only is as wrong as can be, on both sides it is the same answer
        both = np.isnan(reals) & np.isnan(others)
        error = np.where(both | (reals == others), 0.0, np.where(np.isnan(error), np.inf, error))
        largest = max(largest, float(error.max()))
        if exact:
            bytes_differ = one.reshape(-1).view(np.uint8) != other.reshape(-1).view(np.uint8)
            wrong = bytes_differ.reshape(one.size, -1).any(axis=1)
            far = np.zeros_like(wrong)
        else:
            # steps are compared after a product that need not be exact
            wrong = (error > most * (1 + 1e-9)).reshape(-1)
            far = (error > step * (1 + 1e-9)).reshape(-1)
        beyond.append(int(far.sum()))
        if worst is None and far.any():
            worst = (output, int(np.argmax(far)))
        if place is None and wrong.any():
            place = (output, int(np.argmax(wrong)))
    return _Difference(largest, identical, place, allowed, tuple(beyond), worst)


def is_classified(rows: Rows, outputs: Sequence[TensorSpec]) -> bool:
    """Whether the rows have classes and output 0 has one value a class: then there is a top-1 accuracy.

    Raises:
        ModelError: A row's class is one that the model has no value for.
    """
    if rows.y is None or not outputs or not outputs[0].shape:
        return False
    classes = outputs[0].shape[-1]
    if classes != outputs[0].elements or classes < 2:
        return False
    if int(rows.y.max()) >= classes:
        raise ModelError(
            f"{rows.source}: y has class {int(rows.y.max())}, and the model's first output has "
            f"{classes} values",
            hint="classes count from 0, in the order of the output's values",
        )
    return True


def accuracy_top1(rows: Rows, answers: Array, outputs: Sequence[TensorSpec]) -> Accuracy | None:
    """Top-1 over the last axis of output 0; None where `is_classified` says that there is none.

    Args:
        answers: (N, *shape) of output 0.
    """
    if rows.y is None or not is_classified(rows, outputs):
        return None
    return Accuracy(float(np.mean(np.argmax(answers.reshape(len(rows), -1), axis=1) == rows.y)), len(rows))


def _step(spec: TensorSpec, reals: Array, requantised: bool) -> float:
    """By how much a value may differ, in reals; where steps can add up, one step."""
    if spec.quantization is not None:
        return spec.quantization.scale
    if np.dtype(spec.dtype).kind != "f":
        return 0.0
    finite = np.abs(reals[np.isfinite(reals)])
    magnitude = float(finite.max(initial=0.0))
    return magnitude * (REQUANTISED_STEP if requantised else FLOAT_TOLERANCE) + FLOAT_FLOOR


def _array(data: bytes, spec: TensorSpec) -> Array:
    if len(data) != spec.size_bytes:
        raise VerificationError(
            f"output {printable(spec.name)} came as {len(data)} bytes, and the model says {spec.size_bytes}",
            hint="flash the bundle again: the board runs another image",
        )
    return np.frombuffer(data, dtype=np.dtype(spec.dtype).newbyteorder("<")).reshape(spec.shape)


def _sentence(
    rows: Rows, row: int, spec: TensorSpec, output: int, index: int, expected: Array, answer: Array
) -> str:
    return (
        f"row {int(rows.numbers[row])} of {rows.source}, output {output} ({printable(spec.name, 60)}), "
        f"index {index}: host {expected.reshape(-1)[index]}, board {answer.reshape(-1)[index]}"
    )


def _first_operator(
    reference: Runner,
    board: Runner,
    inputs: Sequence[bytes],
    operators: Sequence[CompiledOperator],
    *,
    exact: bool,
) -> str:
    """Where the two programs part ways, by the CRC-32 of every operator's output."""
    sums: list[tuple[int, ...]] = []
    for runner in (reference, board):
        for index, data in enumerate(inputs):
            runner.write_input(index, data)
        sums.append(runner.operator_checksums())
    if not len(sums[0]) == len(sums[1]) == len(operators):
        return "; the host has other operators than the board, so the first wrong one can't be named"
    for operator, host, device in zip(operators, *sums, strict=True):
        if host != device:
            what = "first operator that differs" if exact else "first operator whose bytes differ"
            name = printable(operator.name, 80)
            return f"; {what}: {operator.id} {operator.op} {name} ({operator.schedule})"
    return "; run operator by operator all outputs are the same: the fault is in the run as a whole"
