"""A search on the terminal: a line a trial while it goes on, and what came out."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.cli.tables import plain_table
from edgekit.optimization import Optimization
from edgekit.optimization.accuracy import accuracy_interval
from edgekit.optimization.page import REPORT_FILE
from edgekit.progress import Progress, TableLine
from edgekit.search.problem import Measured, Trial
from edgekit.text import printable

__all__ = ["TrialLines", "summary"]

_GROUP_WIDTH = 28


class TrialLines:
    """Tells of each trial as a line of a table; the first one has the headings above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._before: dict[str, int] = {}

    def __call__(self, trial: Trial) -> None:
        if trial.role == "start":
            self._line("step", "group", "channels", "predicted", "measured", "accuracy")
        change = ""
        if trial.group is not None:
            change = f"{self._before.get(trial.group, 0)} to {trial.candidate.count(trial.group)}"
        self._line(
            f"{trial.step}{'*' if trial.role == 'chosen' else ''}",
            printable(trial.what, _GROUP_WIDTH),
            change,
            f"{trial.predicted.cost:,.0f}",
            "" if trial.measured is None else f"{trial.measured.cost:,.0f}",
            f"{trial.accuracy:.4f}",
        )
        if trial.role in ("start", "chosen"):
            self._before = dict(trial.candidate.channels)

    def _line(
        self, step: str, group: str, channels: str, predicted: str, measured: str, accuracy: str
    ) -> None:
        self._progress(
            TableLine(
                f"  {step:<5} {group:<{_GROUP_WIDTH}} {channels:>12} {predicted:>14} "
                f"{measured:>14} {accuracy:>9}"
            )
        )


def summary(found: Optimization) -> RenderableType:
    """Before and after, what was searched, and where it is."""
    test = found.test
    emulated = " (emulated)" if found.target.emulated else ""

    def row(what: str, measured: Measured, validation: float, tested: float | None) -> tuple[str, ...]:
        return (
            what,
            f"{measured.cost:,.0f}",
            f"{measured.flash_bytes:,}",
            f"{measured.ram_bytes:,}",
            f"{validation:.4f}",
            "" if tested is None else f"{tested:.4f}",
        )

    baseline = found.baseline
    table = plain_table(
        [
            ("", "left"),
            (found.unit, "right"),
            ("flash", "right"),
            ("RAM", "right"),
            ("validation", "right"),
            ("test", "right"),
        ],
        [
            ("float", "", "", "", f"{baseline.float_accuracy:.4f}", f"{test.against_float.before:.4f}")
            if test is not None
            else ("float", "", "", "", f"{baseline.float_accuracy:.4f}", ""),
            row(
                "int8, as it was",
                baseline.measured,
                baseline.accuracy,
                None if test is None else test.against_int8.before,
            ),
            row(
                "int8, optimized",
                found.winner,
                found.winner_accuracy,
                None if test is None else test.against_float.after,
            ),
        ],
        flexible=0,
    )
    return Group(
        Text(f"{printable(found.name, 80)} on {found.target.name}{emulated}", style="bold"),
        table,
        Text("\n".join(_sentences(found))),
    )


def _sentences(found: Optimization) -> list[str]:
    share = found.winner.cost / found.baseline.measured.cost
    lines = [
        (
            f"{1 / share:.2f} times fewer {found.unit}; quantised {found.quantised}; "
            f"{found.measurements} candidates measured, {found.flashes} flashes"
        )
    ]
    if found.test is not None:
        drop = found.test.against_float
        low, high = accuracy_interval(drop.after, drop.rows)
        lines.append(
            f"test: {drop.after:.4f} of {drop.rows:,} rows (95 % {low:.4f} to {high:.4f}); {drop.points:.2f} "
            f"points under float (95 % {drop.low:.2f} to {drop.high:.2f})"
        )
        if found.looks > 1:
            lines.append(f"the test rows have seen {found.looks} winners of this folder")
    errors = found.prediction_errors
    if errors is not None:
        lines.append(
            f"predicted against measured: median {errors.median:.2%}, worst {errors.worst:.2%} "
            f"of {errors.count} candidates"
        )
    kept = dict(found.outcome.best.candidate.channels)
    start = dict(found.trials[0].candidate.channels)
    changed = ", ".join(
        f"{printable(name, 40)} {start[name]} to {kept[name]}" for name in start if kept[name] != start[name]
    )
    lines += [
        f"channels: {changed or 'all kept'}",
        f"model      {printable(str(found.directory / 'model'))}",
        f"deployment {printable(str(found.deployment.image.directory))}",
        f"report     {printable(str(found.directory / REPORT_FILE))}",
    ]
    return lines
