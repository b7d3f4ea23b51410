"""A board as the search sees it: programs in, measured costs out, every flash counted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from edgekit.artifacts import CompiledModel, Image, Measurement, Serving
from edgekit.errors import BudgetError, DeviceError, DoesNotFitError
from edgekit.profile import default_runs, measure, tick_unit, under_conditions
from edgekit.search.problem import Measured
from edgekit.search.shapes import OperatorKey
from edgekit.stages import STAGES, Stages
from edgekit.target import Target

if TYPE_CHECKING:
    from edgekit.compiler.program import Program, Step
    from edgekit.device import BoardAddress

__all__ = ["MeasuringBoard", "OperatorCost"]

_ATTEMPTS = 5
_WAIT_SECONDS = 5.0
"""Before the second attempt; twice as long before each later one."""
PROBE_OPERATORS = 96
"""Operators in one probe; more make an image that is slow to compile."""


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """What one operator cost, by which schedule."""

    key: OperatorKey
    schedule: str
    cost: float


class MeasuringBoard:
    """Measures whole programs and single operators on one board."""

    def __init__(
        self,
        target: Target,
        address: BoardAddress | None,
        folder: Path,
        *,
        flashed: Callable[[str], int],
        flashes: int,
        max_flashes: int | None,
        stages: Stages = STAGES,
        waiting: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """
        Args:
            folder: where images are built; each is removed once it was measured.
            flashed: told of each flash, says how many there were.
            flashes: how many there were before.
            max_flashes: how many there may be in all.
            waiting: told that the board is gone and waited for.
        """
        self.target = target
        self.flashes = flashes
        self._address, self._folder = address, folder
        self._flashed, self._max_flashes = flashed, max_flashes
        self._stages, self._waiting = stages, waiting

    def measure_program(
        self, program: Program, name: str
    ) -> tuple[Measured, Measurement, tuple[OperatorCost, ...]]:
        """A whole program end to end, and each of its operators.

        Raises:
            BudgetError: no flash is left.
            DoesNotFitError: it does not fit the board.
            DeviceError: the board is gone and did not come back.
        """
        compiled, image = self._build(program, name)
        found = self._run(compiled, image)
        costs = _operator_costs(program, compiled, found)
        memory = image.memory
        self._discard(image)
        return Measured(found.p50, memory.flash_bytes, memory.ram_bytes), found, costs

    def measure_operators(
        self, selected: Sequence[tuple[Program, Step]]
    ) -> Iterator[tuple[OperatorCost, ...]]:
        """Operators apart from their programs, as many an image as fit; what each image told.

        Raises:
            BudgetError: no flash is left.
        """
        from edgekit.compiler.probe import channels_of, operator_kind, probe_program

        pending = [list(selected[i : i + PROBE_OPERATORS]) for i in range(0, len(selected), PROBE_OPERATORS)]
        while pending:
            part = pending.pop(0)
            try:
                compiled, image = self._build(probe_program(part), "probe")
            except DoesNotFitError:
                if len(part) == 1:
                    continue  # an operator too large for the board has no cost there
                pending[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
                continue
            found = self._run(compiled, image)
            self._discard(image)
            costs = []
            for operator in found.operators:
                program, step = part[int(operator.name)]
                key = OperatorKey(operator_kind(program, step), channels_of(program, step))
                costs.append(OperatorCost(key, operator.schedule, operator.p50))
            yield tuple(costs)

    def _build(self, program: Program, name: str) -> tuple[CompiledModel, Image]:
        from edgekit.compiler import compile_program

        if self._max_flashes is not None and self.flashes >= self._max_flashes:
            raise BudgetError(
                f"all {self._max_flashes} flashes are spent", hint="--max-flashes N allows more"
            )
        compiled = compile_program(program, self.target, name=name)
        directory = self._folder / f"image-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        return compiled, self._stages.build_image(compiled, self.target, directory, {})

    def _run(self, compiled: CompiledModel, image: Image) -> Measurement:
        """Flash and measure; a board that is gone is waited for."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._run_once(compiled, image)
            except DeviceError as error:  # noqa: PERF203 - a few turns
                if attempt == _ATTEMPTS - 1:
                    raise DeviceError(
                        f"{self.target.name} did not come back: {error.message}",
                        hint="plug it in and run the same command again: it goes on where it stopped",
                    ) from error
                self._waiting(f"{self.target.name} is gone ({error.message}); waiting for it")
                sleep(_WAIT_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returned or raised")

    def _run_once(self, compiled: CompiledModel, image: Image) -> Measurement:
        unit, serving = tick_unit(self.target), Serving()
        with self._stages.flash(self.target, image, self._address):
            self.flashes = self._flashed(compiled.name)
            with self._stages.open_board(self.target, image, self._address, serving) as client:
                before = self._stages.health(self.target, image, self._address)
                inputs = tuple(bytes(spec.size_bytes) for spec in compiled.inputs)
                found = measure(client, compiled.operators, inputs, unit, runs=default_runs(unit))
                after = self._stages.health(self.target, image, self._address)
        return under_conditions(found, before, after, serving)

    def _discard(self, image: Image) -> None:
        shutil.rmtree(image.directory, ignore_errors=True)


def _operator_costs(
    program: Program, compiled: CompiledModel, found: Measurement
) -> tuple[OperatorCost, ...]:
    """The operators' costs by key; none where outputs share names and can't be told apart."""
    from edgekit.compiler.probe import channels_of, operator_kind

    by_name = {program.tensors[step.output].name: step for step in program.steps}
    if len(by_name) != len(program.steps) or len(found.operators) != len(compiled.operators):
        return ()
    return tuple(
        OperatorCost(
            OperatorKey(
                operator_kind(program, by_name[operator.name]), channels_of(program, by_name[operator.name])
            ),
            operator.schedule,
            operator.p50,
        )
        for operator in found.operators
    )
