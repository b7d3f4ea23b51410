"""What the pipeline tells while it works: typed events given to a callback. The library itself never
prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Notice",
    "Progress",
    "ProgressEvent",
    "RunningStep",
    "Step",
    "StepAdvanced",
    "StepFinished",
    "StepStarted",
    "TableLine",
    "silent",
    "step",
]


class Step(Enum):
    """The steps of a deployment, in the words shown to people."""

    IMPORT = "import"
    DATA = "data"
    COMPRESS = "compress"
    TRAIN = "train"
    SEARCH = "search"
    ANALYZE = "analyze"
    COMPARE = "compare"
    TUNE = "tune"
    COMPILE = "compile"
    BUILD = "build"
    REFERENCE = "reference"
    FLASH = "flash"
    CONNECT = "connect"
    VERIFY = "verify"
    RUN = "run"
    PROFILE = "profile"
    ACTIVATE = "activate"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step began; `total` is how many units of work it has (rows, runs), None where that is not known."""

    step: Step
    detail: str
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StepAdvanced:
    """`done` units of work of the running step are over; `detail` says what the last of them came to."""

    step: Step
    done: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step is over; `detail` says what came out of it."""

    step: Step
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should know and that stops nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class TableLine:
    """A line of a table that grows while a step runs."""

    text: str


ProgressEvent = StepStarted | StepAdvanced | StepFinished | Notice | TableLine
Progress = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """The callback that hears nothing."""


class RunningStep:
    """Handle of a step in progress: advance it, and say at the end what came out."""

    def __init__(self, progress: Progress, name: Step) -> None:
        self._progress = progress
        self._name = name
        self.outcome = ""

    def advance(self, done: int, detail: str = "") -> None:
        self._progress(StepAdvanced(self._name, done, detail))


@contextmanager
def step(progress: Progress, name: Step, detail: str, total: int | None = None) -> Iterator[RunningStep]:
    """Report one step around a block; a step that raises is not reported as finished."""
    began = time.monotonic()
    progress(StepStarted(name, detail, total))
    running = RunningStep(progress, name)
    yield running
    progress(StepFinished(name, running.outcome, time.monotonic() - began))
