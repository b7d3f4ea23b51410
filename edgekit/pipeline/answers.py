"""What a board answers: that it is right, how often, and what a run costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import CompiledModel, Measurement, TensorSpec, Verification
from edgekit.data import DEFAULT_RANDOM_ROWS, Rows, evaluation_rows, random_rows, select_rows, to_stored
from edgekit.errors import BudgetError, EdgekitError, ModelError, UsageError, VerificationError
from edgekit.pipeline.board import BoardPlace
from edgekit.pipeline.request import Imported
from edgekit.profile import OPERATOR_SUM_TOLERANCE, default_runs, measure, tick_unit, under_conditions
from edgekit.progress import Notice, Progress, Step, step
from edgekit.report.document import AccuracySection
from edgekit.stages import ConnectedBoard, Stages
from edgekit.target import Target
from edgekit.text import printable
from edgekit.verify import accuracy_top1, verify

__all__ = [
    "MAX_BOARD_ROWS",
    "Answers",
    "Array",
    "accuracy_section",
    "ask_board",
    "check_counts",
    "choose_rows",
    "given_rows",
    "measure_board",
    "problems_of",
    "verified_outcome",
]

Array = npt.NDArray[Any]


MAX_BOARD_ROWS = 1000
"""Rows that go over a serial line when nobody said how many; on the host all rows are run."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a board said: that it is right, how often its first output was, and what a run costs."""

    verification: Verification
    accuracy: AccuracySection | None
    measurement: Measurement | None


def choose_rows(
    imported: Imported, inputs: Sequence[TensorSpec], target: Target, samples: int | None, seed: int
) -> Rows:
    if imported.data is None:
        return random_rows(inputs, samples or DEFAULT_RANDOM_ROWS, seed)
    rows = evaluation_rows(
        imported.data,
        inputs,
        calibrated_on_it=imported.calibrated_on_data,
        seed=seed,
        excluded=imported.used,
    )
    default = None if target.transport.kind == "pipe" else MAX_BOARD_ROWS
    return select_rows(rows, samples if samples is not None else default, seed)


def given_rows(inputs: Sequence[npt.ArrayLike], specs: Sequence[TensorSpec]) -> Rows:
    """What an application gives: one array an input, of one row or several.

    Raises:
        ModelError: They don't fit the inputs.
    """
    if len(inputs) != len(specs):
        raise ModelError(f"{len(inputs)} input(s) were given, and the model takes {len(specs)}")
    stored: list[Array] = []
    for index, (given, spec) in enumerate(zip(inputs, specs, strict=True)):
        values = _numbers(given, index)
        if values.shape == spec.shape:
            rows = values[np.newaxis]
        elif values.ndim > 0 and len(values) and values.size == len(values) * spec.elements:
            rows = values.reshape(len(values), *spec.shape)
        else:
            raise ModelError(
                f"input {index} ({printable(spec.name, 60)}) is {spec.shape}, "
                f"and the array given is {values.shape}"
            )
        stored.append(to_stored(rows, spec, f"input {index}"))
    if len({len(values) for values in stored}) > 1:
        raise ModelError(
            f"the inputs have different numbers of rows: {', '.join(str(len(v)) for v in stored)}"
        )
    return Rows(tuple(stored), None, np.arange(len(stored[0])), "the given rows")


def _numbers(given: npt.ArrayLike, index: int) -> Array:
    try:
        values = np.asarray(given)
    except ValueError as error:  # lists of different lengths
        raise ModelError(f"input {index} is no array: {printable(str(error), 200)}") from None
    if values.dtype.kind not in "fiub":
        raise ModelError(f"input {index} is no array of numbers, but {printable(type(given).__name__)}")
    return values


def ask_board(
    reference: ConnectedBoard,
    board: ConnectedBoard,
    compiled: CompiledModel,
    rows: Rows,
    place: BoardPlace,
    runs: int | None,
    progress: Progress,
    stages: Stages,
) -> Answers:
    """Verify, then measure: what a program costs that answers wrongly is of no use to anybody."""
    with step(progress, Step.VERIFY, rows.source, len(rows)) as running:
        verified = verify(
            reference,
            board,
            rows,
            compiled.outputs,
            compiled.operators,
            exact=compiled.exact,
            requantised=compiled.requantised,
            advanced=running.advance,
        )
        accuracy = accuracy_section(rows, verified.outputs[0], compiled.outputs, place.target)
        running.outcome = verified_outcome(verified.verification)
    if not verified.verification.passed:
        return Answers(verified.verification, accuracy, None)
    measurement = None
    problem = stages.unmeasurable(place.target, place.serving)
    if problem is None:
        measurement = measure_board(board, compiled, rows, place, runs, progress, stages)
    else:
        progress(Notice(f"nothing was measured: {problem.message}; {problem.hint or ''}".rstrip("; ")))
    return Answers(verified.verification, accuracy, measurement)


def check_counts(**counts: int | None) -> None:
    """Counts by name, as the user gives them; None is for the default.

    Raises:
        UsageError: One of them is less than 1.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UsageError(f"{name} must be at least 1")


def measure_board(
    board: ConnectedBoard,
    compiled: CompiledModel,
    rows: Rows,
    place: BoardPlace,
    runs: int | None,
    progress: Progress,
    stages: Stages,
) -> Measurement:
    target = place.target
    unit = tick_unit(target)
    runs = default_runs(unit) if runs is None else runs
    with step(progress, Step.PROFILE, f"{runs} runs on {target.name}", 2 * runs) as running:
        before = stages.health(target, place.image, place.address)
        found = measure(
            board, compiled.operators, rows.input_bytes(0), unit, runs=runs, advanced=running.advance
        )
        after = stages.health(target, place.image, place.address)
        found = under_conditions(found, before, after, place.serving)
        running.outcome = f"{found.p50:,.0f} {found.unit}"
    if compiled.operators and not found.operators:
        progress(
            Notice(
                f"there is no table of operators: measured one by one their sum is more than "
                f"{OPERATOR_SUM_TOLERANCE:.0%} away from the run; try again on a quiet machine"
            )
        )
    return found


def accuracy_section(
    rows: Rows, answers: Array, outputs: Sequence[TensorSpec], target: Target
) -> AccuracySection | None:
    found = accuracy_top1(rows, answers, outputs)
    if found is None:
        return None
    where: Literal["device", "host"] = "host" if target.transport.kind == "pipe" else "device"
    return AccuracySection(metric="top1", value=found.value, samples=found.samples, measured_on=where)


def verified_outcome(verification: Verification) -> str:
    if not verification.passed:
        return "the answers differ"
    how = "bit for bit" if verification.bit_exact else f"within {verification.tolerance:g}"
    return f"{verification.samples} of {verification.samples} rows equal the host {how}"


def problems_of(verification: Verification, misses: Sequence[str]) -> tuple[EdgekitError, ...]:
    problems: list[EdgekitError] = []
    if not verification.passed:
        problems.append(
            VerificationError(
                f"the board's answers differ from the host's: {verification.first_difference}",
                hint="the report in the bundle has the details; `edgekit doctor` checks the tools",
            )
        )
    if misses:
        problems.append(
            BudgetError(
                "over the budget: " + "; ".join(misses),
                hint="raise the limit, or deploy a smaller model",
            )
        )
    return tuple(problems)
