"""The pipeline's progress events shown on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgekit.progress import Notice, ProgressEvent, StepAdvanced, StepFinished, StepStarted, TableLine
from edgekit.text import printable

__all__ = ["LinesView", "TerminalView"]

_SECONDS_BETWEEN_LINES = 10.0


class LinesView:
    """One line when a step is over, and one every ten seconds while its units of work go by."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._total: int | None = None
        self._last = time.monotonic()

    def __call__(self, event: ProgressEvent) -> None:
        if isinstance(event, StepStarted):
            self._total, self._last = event.total, time.monotonic()
        elif isinstance(event, StepAdvanced):
            if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
                self._last = time.monotonic()
                whole = "" if self._total is None else f" of {self._total}"
                detail = f": {printable(event.detail, 80)}" if event.detail else ""
                self._say(f"{event.step.value:<9} {event.done}{whole}{detail}")
        elif isinstance(event, StepFinished):
            self._say(_finished(event))
        elif isinstance(event, TableLine):
            self._last = time.monotonic()
            self._say(event.text)
        else:
            self._say(f"note: {event.text}")


class TerminalView:
    """A bar for the running step, a line for each one that is over."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._description = ""

    def __enter__(self) -> TerminalView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, event: ProgressEvent) -> None:
        if isinstance(event, StepStarted):
            self._start(event)
        elif isinstance(event, StepAdvanced):
            if self._bars is not None and self._task is not None:
                detail = f": {printable(event.detail, 80)}" if event.detail else ""
                self._bars.update(self._task, completed=event.done, description=self._description + detail)
        elif isinstance(event, StepFinished):
            self._stop()
            self._console.print(Text(_finished(event)))
        elif isinstance(event, TableLine):
            self._console.print(Text(printable(event.text, 500)), soft_wrap=True)
        else:
            assert isinstance(event, Notice)
            self._console.print(Text(f"note: {printable(event.text, 500)}", style="yellow"))

    def _start(self, event: StepStarted) -> None:
        self._stop()
        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
        if event.total is not None:
            columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
        self._description = f"{event.step.value:<9} {printable(event.detail, 80)}"
        self._task = self._bars.add_task(self._description, total=event.total)
        self._bars.start()

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None


def _finished(event: StepFinished) -> str:
    outcome = f"{printable(event.detail, 500)}  " if event.detail else ""
    return f"{event.step.value:<9} {outcome}({event.seconds:.1f} s)"
