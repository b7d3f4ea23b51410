"""What a search came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from edgekit.errors import BudgetError
from edgekit.optimization.accuracy import Drop
from edgekit.pipeline import Deployment
from edgekit.search.problem import Limits, Measured, Outcome, Trial
from edgekit.target import Target
from edgekit.text import printable

__all__ = ["Baseline", "HeldOut", "Optimization", "PredictionErrors"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The uncompressed model in int8 on the board."""

    measured: Measured
    float_accuracy: float
    """Of the float model, on the validation rows."""
    accuracy: float
    """Of the int8 program, on the validation rows."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Accuracy on the test rows: the deployed program against the float model, and against its int8 build."""

    against_float: Drop
    against_int8: Drop


@dataclass(frozen=True, slots=True)
class PredictionErrors:
    """How far predictions were from what was measured end to end, as shares of it; the start is left out,
    which predictions are calibrated by.
    """

    median: float
    worst: float
    count: int


@dataclass(frozen=True, slots=True)
class Optimization:
    """What `optimize` found and deployed."""

    name: str
    directory: Path
    target: Target
    limits: Limits
    """The cost is in `unit`."""
    max_drop: float | None
    max_flashes: int | None
    unit: str
    baseline: Baseline
    trials: tuple[Trial, ...]
    outcome: Outcome
    deployment: Deployment
    winner: Measured
    winner_accuracy: float
    """Of the deployed int8 program, on the validation rows."""
    quantised: str
    """`after training` or `in training`: whichever kept more accuracy on the validation rows."""
    test: HeldOut | None
    """On the test rows; None where there are none with labels."""
    looks: int
    """Winners of this folder for which the test rows were asked."""
    measurements: int
    """Whole candidates that were measured, the deployed one included."""
    flashes: int
    problems: tuple[str, ...]

    @property
    def front(self) -> tuple[Trial, ...]:
        """Measured trials that no other beats in both cost and accuracy, the cheapest first."""
        found: list[Trial] = []
        for trial in sorted(
            (trial for trial in self.trials if trial.measured is not None),
            key=lambda trial: (trial.measured.cost if trial.measured else 0.0, -trial.accuracy),
        ):
            if not found or trial.accuracy > found[-1].accuracy:
                found.append(trial)
        return tuple(found)

    @property
    def prediction_errors(self) -> PredictionErrors | None:
        """Of the trials that were measured; None where none were besides the start."""
        errors = [
            abs(trial.predicted.cost - trial.measured.cost) / trial.measured.cost
            for trial in self.trials
            if trial.measured is not None and trial.role == "chosen"
        ]
        return PredictionErrors(median(errors), max(errors), len(errors)) if errors else None

    def raise_for_problems(self) -> Optimization:
        """Itself, where the budget is met.

        Raises:
            BudgetError: it is not; the message has the best found and what binds.
        """
        if self.problems:
            raise BudgetError(
                "; ".join(self.problems),
                hint="allow more, or start from a smaller network; the best found is in "
                f"{printable(str(self.directory))}",
            )
        return self
