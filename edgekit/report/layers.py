"""Float against int8 as one HTML page without scripts or links: a chart of every layer, a table, what helps.

Names come from model files and are never trusted: the template escapes all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

import edgekit
from edgekit.layer_errors import Comparison, LayerError
from edgekit.text import printable

__all__ = ["LayerChart", "Point", "layer_chart", "render_layers"]

WIDTH: Final = 960.0
HEIGHT: Final = 320.0
LEFT: Final = 52.0
RIGHT: Final = 14.0
TOP: Final = 14.0
BOTTOM: Final = 34.0
_STEP_DB: Final = 10.0
_NAME_LIMIT: Final = 64

_REFERENCES: Final = {
    "source": "the float model that was quantised",
    "dequantized": "the quantised model with its activations unrounded (its weights are the quantised ones)",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A layer in the chart: x, and the heights of its two ratios; None where a layer is exact."""

    x: float
    whole_y: float | None
    alone_y: float | None
    label: str
    title: str
    worst: bool


@dataclass(frozen=True, slots=True)
class LayerChart:
    """SQNR over the layers: dB grow upwards. The line joins the ratios in the program."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    points: tuple[Point, ...]
    line: str
    """Of an SVG polyline."""
    grid: tuple[tuple[float, str], ...]
    """Heights and their texts."""


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    name: str
    op: str
    dtype: str
    whole: str
    alone: str
    error: str
    beyond: str
    worst: bool
    advice: tuple[str, ...]


def layer_chart(comparison: Comparison) -> LayerChart:
    """Where each layer stands. Pure arithmetic."""
    values = [
        each for layer in comparison.layers for each in (layer.sqnr_db, layer.alone_db) if each is not None
    ]
    low = min(0.0, _STEP_DB * (min(values, default=0.0) // _STEP_DB))
    high = max(_STEP_DB, -_STEP_DB * (-max(values, default=0.0) // _STEP_DB))
    inner = HEIGHT - TOP - BOTTOM

    def height(value: float | None) -> float | None:
        return None if value is None else round(TOP + inner * (high - value) / (high - low), 1)

    count = len(comparison.layers)
    space = (WIDTH - LEFT - RIGHT) / max(count, 1)
    every = -(-count // 40)
    points = tuple(
        Point(
            x=round(LEFT + space * (position + 0.5), 1),
            whole_y=height(layer.sqnr_db),
            alone_y=height(layer.alone_db),
            label=str(layer.index) if position % every == 0 else "",
            title=f"#{layer.index} {layer.op} {printable(layer.name, _NAME_LIMIT)}: "
            f"{_decibels(layer.sqnr_db)} in the program, {_decibels(layer.alone_db)} alone",
            worst=position in comparison.worst,
        )
        for position, layer in enumerate(comparison.layers)
    )
    steps = round((high - low) / _STEP_DB)
    grid = [low + _STEP_DB * step for step in range(steps + 1)]
    return LayerChart(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=HEIGHT - BOTTOM,
        points=points,
        line=" ".join(f"{point.x},{point.whole_y}" for point in points if point.whole_y is not None),
        grid=tuple((height(value) or 0.0, f"{value:.0f}") for value in grid),
    )


def render_layers(model: str, target: str, comparison: Comparison) -> str:
    """The whole page. The same arguments give the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    source = files("edgekit.report").joinpath("layers.html.j2").read_text(encoding="utf-8")
    rows = [_row(layer, position in comparison.worst) for position, layer in enumerate(comparison.layers)]
    return environment.from_string(source).render(
        model=printable(model, _NAME_LIMIT),
        target=printable(target, _NAME_LIMIT),
        version=edgekit.__version__,
        rows=comparison.rows,
        reference=_REFERENCES[comparison.reference],
        chart=layer_chart(comparison),
        layers=rows,
        worst=[rows[position] for position in comparison.worst if rows[position].advice],
    )


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"


def _row(layer: LayerError, worst: bool) -> _Row:
    return _Row(
        index=layer.index,
        name=printable(layer.name, _NAME_LIMIT),
        op=printable(layer.op, _NAME_LIMIT),
        dtype=layer.dtype,
        whole=_decibels(layer.sqnr_db),
        alone=_decibels(layer.alone_db),
        error=f"{layer.max_abs_error:.4g}",
        beyond=f"{layer.saturated:.3%}" if layer.saturated else "",
        worst=worst,
        advice=tuple(printable(advice.text, 300) for advice in layer.advice),
    )
