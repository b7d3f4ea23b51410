"""A search's result as files: the document for programs and the page for people."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.fsutil import atomic_write
from edgekit.optimization.accuracy import accuracy_interval
from edgekit.optimization.document import optimize_values
from edgekit.optimization.result import Optimization
from edgekit.report.search import SearchedGroup, SearchedTrial, SearchPage, render_search

__all__ = ["DOCUMENT_FILE", "REPORT_FILE", "search_page", "write_report"]

DOCUMENT_FILE = "optimize.json"
REPORT_FILE = "report.html"


def write_report(found: Optimization) -> Path:
    """Write both into the search's folder; returns the page's path."""
    document = json.dumps(optimize_values(found), indent=2, allow_nan=False) + "\n"
    atomic_write(found.directory / DOCUMENT_FILE, document.encode("ascii"))
    page = found.directory / REPORT_FILE
    atomic_write(page, render_search(search_page(found)).encode("utf-8"))
    return page


def search_page(found: Optimization) -> SearchPage:
    """What the page shows of a result."""
    start = dict(found.trials[0].candidate.channels)
    kept = dict(found.outcome.best.candidate.channels)
    trials, before = [], start
    for trial in found.trials:
        channels = dict(trial.candidate.channels)
        change = "" if trial.group is None else f"{before[trial.group]} to {channels[trial.group]}"
        trials.append(
            SearchedTrial(
                trial.step,
                trial.role,
                trial.what,
                change,
                trial.predicted.cost,
                None if trial.measured is None else trial.measured.cost,
                trial.accuracy,
            )
        )
        if trial.role in ("start", "chosen"):
            before = channels
    return SearchPage(
        model=found.name,
        target=found.target.name,
        unit=found.unit,
        emulated=found.target.emulated,
        cost_limit=found.limits.cost,
        float_accuracy=found.baseline.float_accuracy,
        int8_cost=found.baseline.measured.cost,
        int8_accuracy=found.baseline.accuracy,
        winner_cost=found.winner.cost,
        winner_accuracy=found.winner_accuracy,
        trials=tuple(trials),
        groups=tuple(SearchedGroup(name, start[name], kept[name]) for name in start),
        facts=_facts(found),
        problems=found.problems,
    )


def _facts(found: Optimization) -> tuple[tuple[str, str], ...]:
    before, after, unit = found.baseline.measured, found.winner, found.unit
    facts = [
        ("One inference", f"{after.cost:,.0f} {unit}, before {before.cost:,.0f}, measured on the board"),
        ("Flash", f"{after.flash_bytes:,} B, before {before.flash_bytes:,} B, read from the ELF"),
        ("RAM", f"{after.ram_bytes:,} B, before {before.ram_bytes:,} B, read from the ELF"),
    ]
    if found.test is None:
        facts.append(("Accuracy", "the data have no test rows with labels"))
    else:
        drop, rounded = found.test.against_float, found.test.against_int8
        low, high = accuracy_interval(drop.after, drop.rows)
        facts += [
            (
                "Accuracy",
                (
                    f"{100 * drop.after:.2f} % of {drop.rows:,} test rows (95 %: {100 * low:.2f} to "
                    f"{100 * high:.2f}); the test rows have seen {found.looks} winner(s) of this folder"
                ),
            ),
            (
                "Lost",
                (
                    f"{drop.points:.2f} points against float's {100 * drop.before:.2f} % "
                    f"(95 %: {drop.low:.2f} to {drop.high:.2f}), "
                    f"{rounded.points:.2f} against its int8 build's {100 * rounded.before:.2f} % "
                    f"(95 %: {rounded.low:.2f} to {rounded.high:.2f})"
                ),
            ),
        ]
    errors = found.prediction_errors
    if errors is not None:
        facts.append(
            (
                "Predictions",
                (
                    f"median error {errors.median:.2%}, worst {errors.worst:.2%} "
                    f"of {errors.count} candidates measured end to end"
                ),
            )
        )
    facts += [
        (
            "Work",
            f"{len(found.trials)} trials, {found.measurements} candidates measured, {found.flashes} flashes",
        ),
        ("Ended", found.outcome.reason),
        ("Deployed", f"quantised {found.quantised}; {found.deployment.image.directory}"),
    ]
    return tuple(facts)
