"""What a strategy searches: channels kept by group, what they are predicted to cost and measured to cost.

A strategy is a generator of trials. It asks the problem for predictions and for short trainings, and
`measure` for what a whole candidate costs on the board; it knows nothing of torch, boards or databases, so
that it is tested without them and another can take its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = [
    "Candidate",
    "Group",
    "Limits",
    "Measure",
    "Measured",
    "Outcome",
    "Prediction",
    "Problem",
    "Strategy",
    "Trained",
    "Trial",
]


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that lose channels together. Counts are multiples of `unit`, at least one."""

    name: str
    channels: int
    unit: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network as the channels that its groups keep, and the trial whose weights it starts from."""

    channels: tuple[tuple[str, int], ...]
    """(group, channels) in the order of the groups."""
    parent: str | None = None
    """Key of the trial that it was pruned from; None for the start."""

    @property
    def key(self) -> str:
        """A name that is equal for equal candidates with the same history."""
        text = repr((self.parent, self.channels))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def with_channels(self, group: str, count: int, parent: str) -> Candidate:
        """The same with another count in one group, started from the trial `parent`."""
        changed = tuple((name, count if name == group else kept) for name, kept in self.channels)
        return Candidate(changed, parent)

    def count(self, group: str) -> int:
        return dict(self.channels)[group]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Cost of one inference as the table of measured operators has it, in the board's unit.

    `low` and `high` bound it by the errors of the interpolation; equal to `cost` where every operator was
    measured.
    """

    cost: float
    low: float
    high: float
    flash_bytes: int | None = None
    ram_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a whole candidate cost on the board, and what its image takes."""

    cost: float
    flash_bytes: int
    ram_bytes: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate after its training, on the validation rows."""

    accuracy: float
    loss: float
    """Mean of what the training minimises. It tells candidates apart that answer equally many rows right."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the winner may cost, in the board's unit and bytes; None is no limit. Accuracy is a share."""

    cost: float | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None

    def met_by(self, found: Measured) -> bool:
        pairs = (
            (self.cost, found.cost),
            (self.flash_bytes, found.flash_bytes),
            (self.ram_bytes, found.ram_bytes),
        )
        return all(limit is None or value <= limit for limit, value in pairs)


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate that was trained; measured where a decision hung on it."""

    step: int
    candidate: Candidate
    group: str | None
    """The group that it changed; None for the start, and where all did."""
    accuracy: float
    loss: float
    predicted: Prediction
    measured: Measured | None
    role: Literal["start", "proposal", "finalist", "chosen"]

    @property
    def what(self) -> str:
        """What it changed, for people."""
        return self.group or ("as it is" if self.role == "start" else "all groups")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a search ended: its last chosen trial, and why it stopped."""

    best: Trial
    met: bool
    reason: str
    binding: str | None = None
    """The group that could lose no more, where that is why."""


class Problem(Protocol):
    """What a strategy may ask."""

    @property
    def groups(self) -> tuple[Group, ...]: ...

    def predict(self, candidate: Candidate) -> Prediction: ...

    def train(self, candidate: Candidate) -> Trained:
        """Prune the parent's weights to the candidate's channels and fine-tune them for a short while; where
        it has its parent's channels, train those weights on for longer.
        """
        ...


Measure = Callable[[Candidate], Measured]
Strategy = Callable[[Problem, Measure, Limits], Generator[Trial, None, Outcome]]
