"""Variants of operators measured on a board, as many in one image as fit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifacts import CompiledModel, Image, Measurement, Preference, Serving
from edgekit.errors import DeviceError, DoesNotFitError, MissingToolError
from edgekit.profile import default_runs, measure, tick_unit, under_conditions
from edgekit.stages import Stages
from edgekit.target import Target
from edgekit.tuning.costs import OperatorKey, VariantCost
from edgekit.tuning.model_cycles import modelled_core, operator_cycles

if TYPE_CHECKING:
    from edgekit.compiler.candidates import Candidate
    from edgekit.device import BoardAddress

__all__ = ["VARIANTS_PER_IMAGE", "VariantBoard", "key_of"]

VARIANTS_PER_IMAGE = 96
"""More make an image that is slow to compile."""


class VariantBoard:
    """A board that images with variants side by side are flashed to; `images` counts them."""

    def __init__(
        self,
        target: Target,
        address: BoardAddress | None,
        prefer: Preference,
        stages: Stages,
        noticed: Callable[[str], None],
    ) -> None:
        """
        Args:
            noticed: told why there are no model cycles, where there could be.
        """
        self.images = 0
        self._target, self._address, self._prefer = target, address, prefer
        self._stages, self._noticed = stages, noticed

    def measure(
        self, selected: Sequence[tuple[Candidate, str]]
    ) -> Iterator[list[tuple[OperatorKey, VariantCost]]]:
        """Measure (operator, variant); what each image told. What doesn't fit the board alone has no cost.

        Raises:
            DeviceError: the board is gone, or what it says of the operators is not what it says of all.
        """
        size = VARIANTS_PER_IMAGE
        pending = [list(selected[i : i + size]) for i in range(0, len(selected), size)]
        while pending:
            part = pending.pop(0)
            with tempfile.TemporaryDirectory(prefix="edgekit-tune-") as folder:
                try:
                    compiled, image = self._build(part, Path(folder) / "image")
                except DoesNotFitError:
                    half = len(part) // 2
                    if half:
                        pending[:0] = [part[:half], part[half:]]
                    continue
                self.images += 1
                found = self._run(compiled, image)
                cycles = self._model(compiled, image, found)
            yield [
                (
                    key_of(part[int(operator.name)][0]),
                    VariantCost(part[int(operator.name)][1], operator.p50, modelled),
                )
                for operator, modelled in zip(found.operators, cycles, strict=True)
            ]

    def _build(self, part: Sequence[tuple[Candidate, str]], folder: Path) -> tuple[CompiledModel, Image]:
        from edgekit.compiler import compile_program
        from edgekit.compiler.probe import probe_program

        program = probe_program([(candidate.program, candidate.step) for candidate, _ in part])
        choices = {step.output: part[int(program.tensors[step.output].name)][1] for step in program.steps}
        compiled = compile_program(program, self._target, name="tune", prefer=self._prefer, choices=choices)
        return compiled, self._stages.build_image(compiled, self._target, folder, {})

    def _run(self, compiled: CompiledModel, image: Image) -> Measurement:
        unit, serving, stages = tick_unit(self._target), Serving(), self._stages
        # Instructions repeat themselves; one run tells all.
        runs = 1 if unit.unit == "instructions" else default_runs(unit)
        inputs = tuple(bytes(spec.size_bytes) for spec in compiled.inputs)
        with stages.flash(self._target, image, self._address):  # noqa: SIM117 - the board is there first
            with stages.open_board(self._target, image, self._address, serving) as client:
                before = stages.health(self._target, image, self._address)
                found = measure(client, compiled.operators, inputs, unit, runs=runs)
                after = stages.health(self._target, image, self._address)
        if len(found.operators) != len(compiled.operators):
            raise DeviceError(
                f"{self._target.name}: measured one by one the operators' sum is not the run's",
                hint="run the same command again when the machine is quiet; what was measured is kept",
            )
        return under_conditions(found, before, after, serving)

    def _model(self, compiled: CompiledModel, image: Image, found: Measurement) -> Sequence[int | None]:
        none: tuple[int | None, ...] = (None,) * len(compiled.operators)
        if modelled_core(self._target) is None:
            return none
        try:
            instructions = [operator.p50 for operator in found.operators]
            return operator_cycles(compiled, image, self._target, instructions)
        except (DeviceError, MissingToolError) as error:
            self._noticed(f"no model of the core's cycles: {error.message}; the count alone decides")
            return none


def key_of(candidate: Candidate) -> OperatorKey:
    """By what a candidate's costs are kept."""
    return OperatorKey(candidate.kind, candidate.channels)
