"""A search as one HTML page without scripts or links: accuracy against measured cost, the way there, the
channels that were kept, predictions against measurements.

Names come from models and are never trusted: the template escapes all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Literal

from jinja2 import Environment, StrictUndefined

import edgekit
from edgekit.text import printable

__all__ = ["Mark", "Plot", "SearchPage", "SearchedGroup", "SearchedTrial", "plot", "render_search"]

WIDTH: Final = 960.0
HEIGHT: Final = 360.0
LEFT: Final = 76.0
RIGHT: Final = 40.0
TOP: Final = 16.0
BOTTOM: Final = 44.0
_NAME_LIMIT: Final = 64

Kind = Literal["float", "int8", "winner", "start", "proposal", "finalist", "chosen"]


@dataclass(frozen=True, slots=True)
class SearchedTrial:
    """One trial. Costs are in the page's unit; `measured` is None where only predicted."""

    step: int
    kind: Literal["start", "proposal", "finalist", "chosen"]
    group: str
    channels: str
    predicted: float
    measured: float | None
    accuracy: float


@dataclass(frozen=True, slots=True)
class SearchedGroup:
    """Channels of a group before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class SearchPage:
    """All that the page shows. Accuracies are shares of the validation rows."""

    model: str
    target: str
    unit: str
    emulated: bool
    cost_limit: float | None
    float_accuracy: float
    int8_cost: float
    int8_accuracy: float
    winner_cost: float
    winner_accuracy: float
    trials: tuple[SearchedTrial, ...]
    groups: tuple[SearchedGroup, ...]
    facts: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a plot."""

    x: float
    y: float
    kind: Kind
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart of points, and lines through some of them. Ticks are (position, text)."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    marks: tuple[Mark, ...]
    line: str
    """Of an SVG polyline through the trajectory."""
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    vertical: float | None
    """Where the budget is."""
    horizontal: float | None
    """Where the float model's accuracy is."""


Point = tuple[float, float, Kind, str]


def plot(
    points: Sequence[Point],
    line: Sequence[tuple[float, float]],
    *,
    y_percent: bool,
    limit: float | None = None,
    level: float | None = None,
) -> Plot:
    """Lay out points (x, y, kind, title); at least one. Pure arithmetic.

    Args:
        line: points of the polyline.
        y_percent: y is a share, written in percent.
        limit: x of the vertical rule.
        level: y of the horizontal rule.
    """
    x_steps = _steps([x for x, *_ in points] + ([] if limit is None else [limit]))
    y_steps = _steps([y for _, y, *_ in points] + ([] if level is None else [level]))

    def x_of(value: float) -> float:
        span = x_steps[-1] - x_steps[0]
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - x_steps[0]) / span, 1)

    def y_of(value: float) -> float:
        span = y_steps[-1] - y_steps[0]
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (y_steps[-1] - value) / span, 1)

    return Plot(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        marks=tuple(Mark(x_of(x), y_of(y), kind, title) for x, y, kind, title in points),
        line=" ".join(f"{x_of(x)},{y_of(y)}" for x, y in line),
        x_ticks=tuple((x_of(value), f"{value:,.0f}") for value in x_steps),
        y_ticks=tuple(
            (y_of(value), f"{100 * value:.4g} %" if y_percent else f"{value:,.0f}") for value in y_steps
        ),
        vertical=None if limit is None else x_of(limit),
        horizontal=None if level is None else y_of(level),
    )


def _steps(values: Sequence[float]) -> list[float]:
    """Round numbers around the values, 1, 2 or 5 times a power of ten apart; two at least."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def render_search(page: SearchPage) -> str:
    """The whole page. The same argument gives the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    source = files("edgekit.report").joinpath("search.html.j2").read_text(encoding="utf-8")
    measured = [trial for trial in page.trials if trial.measured is not None]
    return environment.from_string(source).render(
        model=_name(page.model),
        target=_name(page.target),
        unit=page.unit,
        emulated=page.emulated,
        version=edgekit.__version__,
        accuracy=_accuracy_plot(page),
        predictions=_prediction_plot(page) if measured else None,
        groups=[
            (_name(one.name), one.before, one.after, round(100 * one.after / one.before, 1))
            for one in page.groups
        ],
        trials=[
            (
                trial.step,
                trial.kind,
                _name(trial.group),
                trial.channels,
                f"{trial.predicted:,.0f}",
                "" if trial.measured is None else f"{trial.measured:,.0f}",
                f"{trial.accuracy:.4f}",
            )
            for trial in page.trials
        ],
        facts=[(name, printable(text, 300)) for name, text in page.facts],
        problems=[printable(text, 600) for text in page.problems],
    )


def _accuracy_plot(page: SearchPage) -> Plot:
    """Accuracy over cost: proposals by their predicted cost, all else as measured."""
    points: list[Point] = []
    line = []
    for trial in page.trials:
        cost = trial.predicted if trial.measured is None else trial.measured
        how = "predicted" if trial.measured is None else "measured"
        title = (
            f"step {trial.step}, {_name(trial.group)} {trial.channels}: {cost:,.0f} {page.unit} {how}, "
            f"{trial.accuracy:.4f} after its training in the search"
        )
        points.append((cost, trial.accuracy, trial.kind, title))
        if trial.measured is not None:
            line.append((cost, trial.accuracy))
    points += [
        (
            page.int8_cost,
            page.int8_accuracy,
            "int8",
            f"int8 as it was: {page.int8_cost:,.0f} {page.unit}, {page.int8_accuracy:.4f}",
        ),
        (
            page.winner_cost,
            page.winner_accuracy,
            "winner",
            f"deployed: {page.winner_cost:,.0f} {page.unit}, {page.winner_accuracy:.4f}",
        ),
    ]
    return plot(points, line, y_percent=True, limit=page.cost_limit, level=page.float_accuracy)


def _prediction_plot(page: SearchPage) -> Plot:
    """Measured over predicted cost; the line is where both are the same."""
    points: list[Point] = [
        (
            trial.predicted,
            trial.measured,
            trial.kind,
            f"step {trial.step}: {trial.predicted:,.0f} predicted, {trial.measured:,.0f} measured",
        )
        for trial in page.trials
        if trial.measured is not None
    ]
    both = [value for x, y, *_ in points for value in (x, y)]
    return plot(points, [(min(both), min(both)), (max(both), max(both))], y_percent=False)


def _name(text: str) -> str:
    return printable(text, _NAME_LIMIT)
