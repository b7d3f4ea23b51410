"""The tables that people read, drawn from the documents that programs read. Names are printed as plain
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.arena import arena_line
from edgekit.artifacts import CompiledModel
from edgekit.report.document import ConditionsSection, DeployDocument, MemorySection, ProfileSection
from edgekit.text import printable

__all__ = ["deploy_table", "plain_table"]

_UNIT_NAMES = {"instructions": "instructions", "cycles": "cycles", "us": "µs"}
_TEXT_WIDTH = 60

Side = Literal["left", "right"]


def deploy_table(
    document: DeployDocument, compiled: CompiledModel | None = None, report: str | None = None
) -> RenderableType:
    """A deployment: memory against its limits, verification, accuracy, cost by operator, files."""
    emulated = " (emulated)" if document.target.emulated else ""
    model = document.model
    parts: list[RenderableType] = [
        Text(f"{printable(model.name, 80)} on {document.target.name}{emulated}", style="bold"),
        Text(f"{model.format}, {model.macs:,} MACs, {model.parameters:,} parameters"),
        Text(),
        _memory(document.memory),
    ]
    if compiled is not None:
        kinds = [(operator.op, operator.name) for operator in compiled.operators]
        parts += [Text(arena_line(compiled.allocations, kinds, compiled.arena_bytes)), Text()]
    if document.verify is not None:
        parts.append(_facts(_verdicts(document)))
        parts.append(Text())
    if document.profile is not None:
        parts.append(_profile(document.profile))
    files = [("image", document.artifacts.image), ("manifest", document.artifacts.manifest)]
    parts.append(_facts(files if report is None else [*files, ("report", report)]))
    return Group(*parts)


def plain_table(headings: Sequence[tuple[str, Side]], rows: Sequence[Sequence[str]], flexible: int) -> Table:
    """A table of untrusted texts: nothing in it is markup. Only the column `flexible` is cut when space is
    short.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, (heading, side) in enumerate(headings):
        if column == flexible:
            table.add_column(heading, justify=side, max_width=_TEXT_WIDTH)
        else:
            table.add_column(heading, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell, 120), no_wrap=True, overflow="ellipsis") for cell in row))
    return table


def _facts(facts: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(Text(name), Text(printable(text, 1000)))
    return table


def _memory(memory: MemorySection) -> Table:
    rows: list[tuple[str, int, int | None]] = [
        ("flash", memory.flash_bytes, memory.flash_limit),
        ("  weights", memory.weights_bytes, None),
        ("RAM", memory.ram_bytes, memory.ram_limit),
        ("  arena", memory.arena_bytes, None),
        ("  stack", memory.stack_bytes, None),
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("memory")
    for heading in ("bytes", "of", "used"):
        table.add_column(heading, justify="right")
    for name, used, limit in rows:
        share = "" if not limit else f"{used / limit:.1%}"
        table.add_row(name, f"{used:,}", "" if limit is None else f"{limit:,}", share)
    return table


def _verdicts(document: DeployDocument) -> list[tuple[str, str]]:
    verify = document.verify
    assert verify is not None
    how = "bit for bit" if verify.bit_exact else f"within {verify.tolerance:g}"
    if verify.passed:
        facts = [("verified", f"{verify.samples} of {verify.samples} rows equal the host reference {how}")]
    else:
        facts = [("VERIFICATION FAILED", verify.first_difference or "the answers differ")]
    if document.accuracy is not None:
        accuracy = document.accuracy
        share = (
            f"top-1 {accuracy.value:.2%} of {accuracy.samples} rows, measured on the {accuracy.measured_on}"
        )
        facts.append(("accuracy", share))
    return facts


def _profile(profile: ProfileSection) -> RenderableType:
    unit = _UNIT_NAMES[profile.unit]
    trust = "" if profile.trusted or profile.unit == "instructions" else f", {_distrust(profile)}"
    threads = "" if profile.threads == 1 else f", {profile.threads} threads"
    whole = Text(
        f"{_cost(profile.p50)} {unit} a run (p10 {_cost(profile.p10)}, p90 {_cost(profile.p90)}, "
        f"{profile.runs} runs{threads}{trust})",
        style="bold",
    )
    notes = [
        Text(f"not trusted: {printable(reason)}", style="yellow") for reason in profile.untrusted_because
    ]
    if profile.conditions is not None:
        notes.append(Text(_conditions(profile.conditions), style="dim"))
    small, factor = ("ns", 1000.0) if profile.unit == "us" else (unit, 1.0)
    total = sum(operator.p50 for operator in profile.operators)
    rows = [
        (
            str(operator.id),
            operator.name,
            operator.schedule,
            f"{operator.macs:,}" if operator.macs else "",
            _cost(operator.p50),
            f"{operator.p50 / total:.1%}" if total else "",
            _per_mac(operator.p50 * factor, operator.macs),
        )
        for operator in profile.operators
    ]
    headings: list[tuple[str, Side]] = [
        ("#", "right"),
        ("operator", "left"),
        ("kernel", "left"),
        ("MACs", "right"),
        (unit, "right"),
        ("share", "right"),
        (f"{small}/MAC" if profile.unit == "us" else "per MAC", "right"),
    ]
    return Group(whole, *notes, *([plain_table(headings, rows, flexible=1)] if rows else []))


def _distrust(profile: ProfileSection) -> str:
    return "not trusted" if profile.untrusted_because else "by a clock that is not trusted"


def _conditions(conditions: ConditionsSection) -> str:
    """One line of what the board said of itself; of what it can't tell nothing."""
    first, last = conditions.frequency_before_khz, conditions.frequency_after_khz
    cold, hot = conditions.temperature_before_millicelsius, conditions.temperature_after_millicelsius
    facts = [
        None if conditions.machine is None else conditions.machine,
        None if conditions.cores is None else f"{conditions.cores} cores",
        None if conditions.core is None else f"bound to core {conditions.core}",
        None if conditions.governor is None else f"governor {conditions.governor}",
        None if first is None or last is None else f"{first / 1000:,.0f} → {last / 1000:,.0f} MHz",
        None if cold is None or hot is None else f"{cold / 1000:.1f} → {hot / 1000:.1f} °C",
        None if conditions.throttled_after is None else f"throttled {conditions.throttled_after:#x}",
        None if conditions.clock is None else f"clock {conditions.clock}",
    ]
    return "board: " + printable(", ".join(fact for fact in facts if fact is not None))


def _cost(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _per_mac(cost: float, macs: int) -> str:
    return f"{cost / macs:.2f}" if macs else ""
