"""Repeated measurement of one inference on a board, and of each of its operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edgekit.artifacts import CompiledOperator, Measurement, OperatorMeasurement
from edgekit.errors import VerificationError
from edgekit.profile.statistics import percentile
from edgekit.profile.units import TickUnit

__all__ = ["DEFAULT_RUNS", "OPERATOR_SUM_TOLERANCE", "HighWaterMarks", "Meter", "measure"]

DEFAULT_RUNS = 5
OPERATOR_SUM_TOLERANCE = 0.02
"""How far the operators' sum may be from the whole run."""

_WARM_UP_RUNS = 1
_ATTEMPTS = 4
"""Passes over again when the sum is off: on a machine that does other work too, one pass may be disturbed."""


class HighWaterMarks(Protocol):
    """The most bytes of stack and arena that were used; None where the board can't tell."""

    @property
    def stack_bytes(self) -> int | None: ...

    @property
    def arena_bytes(self) -> int | None: ...


class Meter(Protocol):
    """What measuring needs of a connected board."""

    def write_input(self, index: int, data: bytes, program: int = 0) -> None: ...

    def profile_run(self, program: int = 0) -> int: ...

    def profile_operators(self, program: int = 0) -> tuple[int, ...]: ...

    def high_water(self, program: int = 0) -> HighWaterMarks: ...


def measure(
    meter: Meter,
    operators: Sequence[CompiledOperator],
    inputs: Sequence[bytes],
    unit: TickUnit,
    *,
    runs: int = DEFAULT_RUNS,
    advanced: Callable[[int], None] = lambda done: None,
) -> Measurement:
    """Run `runs` times uninstrumented after a warm-up, then `runs` times operator by operator.

    The figures of the run are nearest-rank percentiles of the uninstrumented runs; those of the operators are
    medians of the instrumented ones. The inputs are written before every run, since a run uses their memory
    again.

    Args:
        inputs: The bytes of each input, the same for all runs.
        advanced: Called with the number of runs that are done, out of 2 · `runs`.

    Raises:
        VerificationError: The operators' sum stays more than 2 % away from the run.
    """
    for _ in range(_WARM_UP_RUNS):
        _load(meter, inputs)
        meter.profile_run()
    total: list[float] = []
    for run in range(runs):
        _load(meter, inputs)
        total.append(unit.amount(meter.profile_run()))
        advanced(run + 1)
    # read now: the operator-by-operator passes use more stack than the program's own run
    marks = meter.high_water()
    p50 = percentile(total, 50)
    medians = _operator_medians(
        meter, inputs, unit, len(operators), runs, p50, lambda done: advanced(runs + done)
    )
    return Measurement(
        unit=unit.unit,
        trusted=unit.trusted,
        runs=tuple(total),
        p10=percentile(total, 10),
        p50=p50,
        p90=percentile(total, 90),
        operators=tuple(
            OperatorMeasurement(
                operator.id, operator.name, operator.op, operator.schedule, operator.macs, median
            )
            for operator, median in zip(operators, medians, strict=True)
        ),
        stack_high_water_bytes=marks.stack_bytes,
        arena_high_water_bytes=marks.arena_bytes,
    )


def _operator_medians(
    meter: Meter,
    inputs: Sequence[bytes],
    unit: TickUnit,
    count: int,
    runs: int,
    whole: float,
    advanced: Callable[[int], None],
) -> list[float]:
    passes: list[tuple[float, ...]] = []
    medians: list[float] = []
    for attempt in range(_ATTEMPTS):
        for run in range(runs):
            _load(meter, inputs)
            ticks = meter.profile_operators()
            if len(ticks) != count:
                raise VerificationError(
                    f"the board measured {len(ticks)} operators, and the program has {count}",
                    hint="flash the bundle again: the board runs another image",
                )
            passes.append(tuple(unit.amount(tick) for tick in ticks))
            if attempt == 0:
                advanced(run + 1)
        medians = [percentile([one[index] for one in passes], 50) for index in range(count)]
        if abs(sum(medians) - whole) <= OPERATOR_SUM_TOLERANCE * whole:
            return medians
    raise VerificationError(
        f"the operators' sum is {sum(medians):.0f} {unit.unit} and a run takes {whole:.0f}: more than "
        f"{OPERATOR_SUM_TOLERANCE:.0%} apart, so the table of operators would be wrong",
        hint="try again on a quiet machine, or with more --runs",
    )


def _load(meter: Meter, inputs: Sequence[bytes]) -> None:
    for index, data in enumerate(inputs):
        meter.write_input(index, data)
