"""Repeated measurement of one inference on a board, and of each of its operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edgekit.artifacts import CompiledOperator, Measurement, OperatorMeasurement
from edgekit.errors import VerificationError
from edgekit.profile.statistics import percentile
from edgekit.profile.units import TickUnit

__all__ = ["OPERATOR_SUM_TOLERANCE", "HighWaterMarks", "Meter", "default_runs", "measure"]

OPERATOR_SUM_TOLERANCE = 0.02
"""How far the operators' sum may be from the whole run."""

_WARM_UP_RUNS: Mapping[str, int] = {"instructions": 1, "cycles": 2, "us": 30}
"""Enough for caches, branch prediction and the clock frequency of a large core to settle."""

_ATTEMPTS = 4
"""As many times `runs` are made when the sum is off: what disturbs a machine has an end."""


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


def default_runs(unit: TickUnit) -> int:
    """A few where the counter repeats to a tick; many where it is a time, which everything else disturbs."""
    return 50 if unit.unit == "us" else 5


def measure(
    meter: Meter,
    operators: Sequence[CompiledOperator],
    inputs: Sequence[bytes],
    unit: TickUnit,
    *,
    runs: int,
    advanced: Callable[[int], None] = lambda done: None,
) -> Measurement:
    """Run `runs` times uninstrumented after a warm-up, and as often operator by operator, in turns.

    The figures of the run are nearest-rank percentiles of the uninstrumented runs; those of the operators are
    medians of the instrumented ones, which stand only when their sum is within 2 % of the median run:
    otherwise `operators` is empty. The inputs are written before every run, since a run uses their memory
    again.

    Args:
        inputs: The bytes of each input, the same for all runs.
        advanced: Called with the number of runs that are done, out of 2 · `runs`.

    Raises:
        VerificationError: The board runs another number of operators.
    """
    for _ in range(_WARM_UP_RUNS[unit.unit]):
        _run(meter, inputs)
    # read now: the agent uses more stack operator by operator than the program's own run does
    marks = meter.high_water()
    whole: list[float] = []
    passes: list[tuple[float, ...]] = []
    medians: list[float] | None = None
    for attempt in range(_ATTEMPTS):
        for run in range(runs):
            # in turns, so that what disturbs the machine disturbs both alike
            whole.append(unit.amount(_run(meter, inputs)))
            passes.append(_run_operators(meter, inputs, unit, len(operators)))
            if attempt == 0:
                advanced(2 * (run + 1))
        medians = _medians(passes, len(operators), percentile(whole, 50))
        if medians is not None:
            break
    return Measurement(
        unit=unit.unit,
        trusted=unit.trusted,
        runs=tuple(whole),
        p10=percentile(whole, 10),
        p50=percentile(whole, 50),
        p90=percentile(whole, 90),
        operators=tuple(
            OperatorMeasurement(
                operator.id, operator.name, operator.op, operator.schedule, operator.macs, median
            )
            for operator, median in zip(operators, medians or (), strict=False)
        ),
        stack_high_water_bytes=marks.stack_bytes,
        arena_high_water_bytes=marks.arena_bytes,
    )


def _run(meter: Meter, inputs: Sequence[bytes]) -> int:
    for index, data in enumerate(inputs):
        meter.write_input(index, data)
    return meter.profile_run()


def _run_operators(meter: Meter, inputs: Sequence[bytes], unit: TickUnit, count: int) -> tuple[float, ...]:
    for index, data in enumerate(inputs):
        meter.write_input(index, data)
    ticks = meter.profile_operators()
    if len(ticks) != count:
        raise VerificationError(
            f"the board measured {len(ticks)} operators, and the program has {count}",
            hint="flash the bundle again: the board runs another image",
        )
    return tuple(unit.amount(tick) for tick in ticks)


def _medians(passes: Sequence[tuple[float, ...]], count: int, whole: float) -> list[float] | None:
    """The median of each operator, or None where they don't add up to the whole."""
    medians = [percentile([one[index] for one in passes], 50) for index in range(count)]
    return medians if abs(sum(medians) - whole) <= OPERATOR_SUM_TOLERANCE * whole else None
