"""The tables of `edgekit analyze`, as wide as the terminal: columns that tell least give way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.arena import arena_line
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.compiler import OperatorAnalysis
    from edgekit.pipeline import Analysis

__all__ = ["analysis_table"]

_BAR_WIDTH = 20
_NAME_WIDTH, _LEAST_NAME_WIDTH = 60, 16
_FORM_STYLES = {"integer": "", "float": "yellow", "refused": "bold red"}


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    side: Literal["left", "right"]
    cell: Callable[[int, OperatorAnalysis], str]
    total: Callable[[Sequence[OperatorAnalysis]], str]
    rank: int
    """0 is always shown; of the others the highest goes first where space is short."""


def analysis_table(found: Analysis, width: int) -> RenderableType:
    """Operators with a row of totals, kinds with their share of the work, memory, and why what is float."""
    operators = found.operators
    parts: list[RenderableType] = [
        Text(f"{printable(found.model.name, 80)} on {found.target.name}", style="bold"),
        Text(f"{found.model.format}, {_forms(operators)}"),
        Text(_totals(operators)),
        _operators(operators, width),
        _kinds(operators, width),
        _memory(found),
    ]
    if found.program.arena_bytes is not None:
        kinds = [(operator.op, operator.name) for operator in operators]
        parts.append(Text(arena_line(found.program.allocations, kinds, found.program.arena_bytes)))
    reasons = _reasons(operators)
    if reasons:
        parts += [Text(), *reasons]
    return Group(*parts)


def _forms(operators: Sequence[OperatorAnalysis]) -> str:
    counts = [
        f"{count} {form}"
        for form in ("integer", "float", "refused")
        if (count := sum(operator.form == form for operator in operators))
    ]
    return f"{len(operators)} operators: {', '.join(counts)}"


def _totals(operators: Sequence[OperatorAnalysis]) -> str:
    macs = sum(operator.macs for operator in operators)
    return f"{macs:,} MACs, {sum(operator.parameters for operator in operators):,} parameters"


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _shape(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part and whole else ""


def _columns(operators: Sequence[OperatorAnalysis]) -> list[_Column]:
    macs = sum(operator.macs for operator in operators)

    def summed(field: str) -> Callable[[Sequence[OperatorAnalysis]], str]:
        return lambda rows: _count(sum(getattr(row, field) for row in rows))

    return [
        _Column("#", "right", lambda index, _: str(index), lambda _: "", 0),
        _Column("operator", "left", lambda _, each: each.name, lambda _: "total", 0),
        _Column("kind", "left", lambda _, each: each.op, lambda _: "", 4),
        _Column("input", "left", lambda _, each: " ".join(map(_shape, each.input_shapes)), lambda _: "", 9),
        _Column("output", "left", lambda _, each: _shape(each.output_shape), lambda _: "", 5),
        _Column("MACs", "right", lambda _, each: _count(each.macs), summed("macs"), 0),
        _Column("share", "right", lambda _, each: _share(each.macs, macs), lambda _: "", 7),
        _Column("parameters", "right", lambda _, each: _count(each.parameters), summed("parameters"), 8),
        _Column("weights B", "right", lambda _, each: _count(each.weights_bytes), summed("weights_bytes"), 3),
        _Column("output B", "right", lambda _, each: _count(each.activation_bytes), lambda _: "", 6),
        _Column("runs as", "left", lambda _, each: each.schedule or each.form, lambda _: "", 1),
    ]


def _operators(operators: Sequence[OperatorAnalysis], width: int) -> Table:
    columns = _columns(operators)
    cells = {
        column.heading: [
            printable(column.cell(index, operator), 120) for index, operator in enumerate(operators)
        ]
        for column in columns
    }
    widths = {
        column.heading: max(map(len, (column.heading, column.total(operators), *cells[column.heading])))
        for column in columns
    }
    longest, widths["operator"] = widths["operator"], min(widths["operator"], _LEAST_NAME_WIDTH)
    while (room := width - 2 - sum(widths[column.heading] + 3 for column in columns)) < 0:
        least = max(columns, key=lambda column: column.rank)
        if least.rank == 0:
            break
        columns.remove(least)
    widths["operator"] = min(longest, _NAME_WIDTH, widths["operator"] + max(room, 0))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    for column in columns:
        table.add_column(
            column.heading,
            column.total(operators),
            justify=column.side,
            width=widths[column.heading],
            footer_style="bold",
        )
    for index, operator in enumerate(operators):
        row = (cells[column.heading][index] for column in columns)
        style = _FORM_STYLES[operator.form]
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis", style=style) for cell in row))
    return table


def _kinds(operators: Sequence[OperatorAnalysis], width: int) -> Table:
    """Kinds of operators, those with the most work first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("kind", no_wrap=True, max_width=28)
    for heading in ("operators", "MACs", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    if width >= 70:
        table.add_column("", width=_BAR_WIDTH)
    macs = sum(operator.macs for operator in operators)
    work = dict.fromkeys((operator.op for operator in operators), 0)
    for operator in operators:
        work[operator.op] += operator.macs
    for kind, amount in sorted(work.items(), key=lambda item: -item[1]):
        count = sum(operator.op == kind for operator in operators)
        bar = "█" * round(_BAR_WIDTH * amount / macs) if macs else ""
        cells = [printable(kind, 40), str(count), _count(amount), _share(amount, macs)]
        table.add_row(*(Text(cell, overflow="ellipsis") for cell in [*cells, bar][: len(table.columns)]))
    return table


def _memory(found: Analysis) -> Table:
    """Sizes that are known before a build; each is less than what the built image takes."""
    program = found.program
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("memory, before a build")
    for heading in ("bytes", "of", "used"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = (
        ("RAM: arena (stack and agent come on top)", program.arena_bytes, program.ram_limit),
        ("flash: constants (code comes on top)", program.constants_bytes, program.flash_limit),
    )
    for name, size, limit in rows:
        share = "" if size is None or not limit else f"{size / limit:.1%}"
        over = size is not None and limit is not None and size > limit
        table.add_row(
            Text(name),
            "" if size is None else f"{size:,}",
            "" if limit is None else f"{limit:,}",
            share,
            style="bold red" if over else "",
        )
    return table


def _reasons(operators: Sequence[OperatorAnalysis]) -> list[Text]:
    """Why operators are not integer, one line a reason with the operators that have it."""
    because: dict[tuple[str, str], list[str]] = {}
    for index, operator in enumerate(operators):
        if operator.form != "integer" and operator.reason:
            because.setdefault((operator.form, operator.reason), []).append(f"#{index} {operator.op}")
    lines = []
    for (form, reason), names in because.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        lines.append(Text(printable(f"{form}: {shown}: {reason}", 400), style=_FORM_STYLES[form]))
    return lines
