"""Float against int8, layer by layer, as `edgekit analyze --data` prints it."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.layer_errors import Comparison, LayerError
from edgekit.text import printable

__all__ = ["comparison_table"]

_GOOD_DB, _POOR_DB = 30.0, 15.0
_BAR_DB = 3.0
"""A character of a bar."""
_WIDTHS = {"#": 3, "kind": 18, "SQNR": 5, "alone": 5, "max error": 9, "beyond": 6}

REFERENCES = {
    "source": "the float model",
    "dequantized": "the quantised model with its activations unrounded",
}


def comparison_table(comparison: Comparison, width: int) -> RenderableType:
    """The ratios of every layer, then the layers that lose most with what would help them."""
    parts: list[RenderableType] = [
        Text(f"float against integers, {comparison.rows} rows", style="bold"),
        Text(f"reference: {REFERENCES[comparison.reference]}; SQNR in dB, more is better"),
        _layers(comparison, width),
    ]
    if comparison.reference == "dequantized":
        parts.append(
            Text("it came quantised: what would help is done where it is quantised, or to its float model")
        )
    lossy = [comparison.layers[position] for position in comparison.worst]
    parts += [line for layer in lossy if layer.advice for line in _help(layer)]
    if not any(layer.advice for layer in lossy):
        parts.append(
            Text(f"no layer loses much by itself: all have {_GOOD_DB:.0f} dB and more", style="green")
        )
    return Group(*parts)


def _layers(comparison: Comparison, width: int) -> Table:
    headings = ["#", "layer", "kind", "SQNR", "alone", "max error", "beyond", ""]
    dropped = [("kind", 90), ("beyond", 80), ("max error", 66), ("", 56)]
    shown = [
        each for each in headings if width >= next((least for name, least in dropped if name == each), 0)
    ]
    used = sum(_WIDTHS.get(each, 16 if each == "" else 0) + 3 for each in shown)
    name_width = max(10, min(width - 2 - used, 60, max(len(each.name) for each in comparison.layers)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in shown:
        side = "left" if heading in ("layer", "kind", "") else "right"
        column_width = name_width if heading == "layer" else _WIDTHS.get(heading, 16)
        table.add_column(heading, justify=side, width=column_width)  # type: ignore[arg-type]
    worst = {comparison.layers[position].index for position in comparison.worst}
    for layer in comparison.layers:
        cells = {
            "#": str(layer.index),
            "layer": printable(layer.name, 120),
            "kind": printable(layer.op, 40),
            "SQNR": decibels(layer.sqnr_db),
            "alone": decibels(layer.alone_db),
            "max error": f"{layer.max_abs_error:.3g}",
            "beyond": share(layer.saturated),
            "": "█" * max(0, min(16, round((layer.sqnr_db or 0.0) / _BAR_DB))),
        }
        style = "bold" if layer.index in worst and layer.advice else ""
        row = [Text(cells[each], no_wrap=True, overflow="ellipsis", style=style) for each in shown]
        if "" in shown:
            row[-1].stylize(_colour(layer.sqnr_db))
        table.add_row(*row)
    return table


def decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def share(value: float) -> str:
    """A share in percent; one that is not nothing never looks like it."""
    return "" if value == 0 else ("<0.01%" if value < 0.0001 else f"{value:.2%}")


def _colour(value: float | None) -> str:
    if value is None or value >= _GOOD_DB:
        return "green"
    return "yellow" if value >= _POOR_DB else "red"


def _help(layer: LayerError) -> list[Text]:
    name = printable(layer.name, 60)
    lines = [Text(f"#{layer.index} {layer.op} {name}: {decibels(layer.alone_db)} dB alone", style="bold")]
    return lines + [Text(f"    {printable(advice.text, 300)}") for advice in layer.advice]
