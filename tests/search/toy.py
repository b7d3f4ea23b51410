"""A search problem whose best answer is known: cost and accuracy are linear in channels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from edgekit.search.problem import (
    Candidate,
    Group,
    Limits,
    Measured,
    Outcome,
    Prediction,
    Strategy,
    Trained,
    Trial,
)

__all__ = ["Toy", "run"]


@dataclass
class Toy:
    """Costs are linear in channels; accuracy falls by what each channel of a group is worth."""

    groups: tuple[Group, ...] = (Group("cheap", 32, 4), Group("dear", 32, 4), Group("tiny", 4, 4))
    cost_of: dict[str, float] = field(default_factory=lambda: {"cheap": 10.0, "dear": 10.0, "tiny": 1.0})
    worth: dict[str, float] = field(default_factory=lambda: {"cheap": 0.0001, "dear": 0.01, "tiny": 0.0001})
    table_error: float = 0.0
    trained: list[Candidate] = field(default_factory=list)
    measured: list[Candidate] = field(default_factory=list)

    def true_cost(self, candidate: Candidate) -> float:
        return 100.0 + sum(self.cost_of[name] * count for name, count in candidate.channels)

    def predict(self, candidate: Candidate) -> Prediction:
        cost = self.true_cost(candidate) * (1 + self.table_error)
        return Prediction(cost, cost, cost)

    def train(self, candidate: Candidate) -> Trained:
        self.trained.append(candidate)
        lost = sum(
            self.worth[group.name] * (group.channels - candidate.count(group.name)) for group in self.groups
        )
        return Trained(0.95 - lost, lost)

    def measure(self, candidate: Candidate) -> Measured:
        self.measured.append(candidate)
        return Measured(self.true_cost(candidate), 1000, 100)


def run(toy: Toy, strategy: Strategy, limits: Limits) -> tuple[list[Trial], Outcome]:
    """All trials of a search, and how it ended."""
    outcomes: list[Outcome] = []

    def ending() -> Generator[Trial, None, None]:
        outcomes.append((yield from strategy(toy, toy.measure, limits)))

    trials = list(ending())
    return trials, outcomes[0]
