"""The report for people: one HTML file without scripts or links, readable offline, in light and dark.

Names come from model and target files and are never trusted: control characters are escaped, lengths limited,
and the template escapes all of them for HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, StrictUndefined

from edgekit.arena import ArenaPeak, arena_peak
from edgekit.artifacts import Allocation, CompiledModel, CompiledOperator, Quantization, TensorSpec
from edgekit.report.document import DeployDocument, OperatorSection, ProfileSection
from edgekit.report.geometry import memory_chart
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["ReportDetails", "render_html"]

NAME_LIMIT: Final = 64
TEXT_LIMIT: Final = 300
SERIES: Final = 6
"""Colours of the operator chart; the last one is for all further kinds."""

UNIT_NAMES: Final = {"instructions": "instructions", "cycles": "cycles", "us": "µs"}


@dataclass(frozen=True, slots=True)
class ReportDetails:
    """What the report shows besides the document; what is None was not measured or not said."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Tool or package to its version, from the bundle's manifest."""
    data_source: str | None = None
    """Where the rows came from."""
    stack_high_water_bytes: int | None = None
    arena_high_water_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Figure:
    """A number with its unit and where it comes from."""

    title: str
    value: str
    unit: str
    source: str
    state: str = ""
    """`good`, `bad` or empty."""


@dataclass(frozen=True, slots=True)
class _Bar:
    """One row of the operator chart."""

    id: int
    name: str
    op: str
    schedule: str
    shape: str
    macs: str
    cost: str
    per_mac: str
    share: str
    width: float
    """Percent of the chart's width; the costliest operator is 100."""
    series: int


@dataclass(frozen=True, slots=True)
class _Meter:
    """A size against its limit."""

    title: str
    used: str
    limit: str
    percent: float | None
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class _Peak:
    """The operator at which most of the arena is taken. Rows: role, meaning, names, bytes."""

    step: int
    op: str
    name: str
    taken: str
    rows: list[tuple[str, str, str, str]]


@dataclass(frozen=True, slots=True)
class _Fact:
    name: str
    value: str


def render_html(
    document: DeployDocument, compiled: CompiledModel, target: Target, details: ReportDetails | None = None
) -> str:
    """The whole page. The same arguments give the same text."""
    details = details or ReportDetails()
    # A measurement may lack its table of operators (when their sum is too far from the run).
    profile = document.profile if document.profile is not None and document.profile.operators else None
    bars, measured = _bars(profile, compiled)
    names = [_name(allocation.name) for allocation in compiled.allocations]
    peak = arena_peak(compiled.allocations)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    template = environment.from_string(
        files("edgekit.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    return template.render(
        model=_name(document.model.name),
        target=_name(document.target.name),
        description=printable(target.description, TEXT_LIMIT),
        emulated=document.target.emulated,
        version=_name(document.edgekit),
        model_hash=_name(compiled.model_hash),
        figures=_figures(document, compiled, details),
        bars=bars,
        measured=measured,
        kinds=_kinds(profile, compiled),
        cost_title=_cost_title(profile),
        cost_source=_cost_source(document.profile, target),
        meters=_meters(document, details),
        chart=memory_chart(
            compiled.allocations, names, compiled.arena_bytes, None if peak is None else peak.step
        ),
        peak=_peak(peak, compiled),
        allocation_kinds=_allocation_kinds(compiled.allocations),
        arena_bytes=f"{compiled.arena_bytes:,}",
        tensors=[*_tensors("input", compiled.inputs), *_tensors("output", compiled.outputs)],
        verification=_verification(document),
        accuracy=_accuracy(document, details),
        provenance=_provenance(document, compiled, target),
        versions=[_Fact(_name(name), _name(text)) for name, text in sorted(details.versions.items())],
    )


def _name(text: str) -> str:
    return printable(text, NAME_LIMIT)


def _number(value: float) -> str:
    """Whole from 100 on; below that the tenth may matter."""
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:,.1f}"


def _bytes(value: int) -> str:
    return f"{value:,} B" if value < 1024 else f"{value:,} B ({value / 1024:,.1f} KiB)"


def _unit(profile: ProfileSection) -> str:
    return UNIT_NAMES[profile.unit]


def _figures(document: DeployDocument, compiled: CompiledModel, details: ReportDetails) -> list[_Figure]:
    memory, profile, verify, accuracy = document.memory, document.profile, document.verify, document.accuracy
    figures = []
    if profile is not None:
        figures.append(
            _Figure(
                "One inference",
                _number(profile.p50),
                _unit(profile),
                f"counted on the board, median of {profile.runs} runs",
            )
        )
    figures += [
        _Figure("Flash", f"{memory.flash_bytes:,}", "B", "read from the ELF"),
        _Figure("RAM", f"{memory.ram_bytes:,}", "B", "read from the ELF"),
    ]
    if accuracy is not None:
        figures.append(
            _Figure(
                "Accuracy",
                f"{accuracy.value * 100:.2f}",
                "%",
                f"{accuracy.metric}, {accuracy.samples:,} rows, answered by the {accuracy.measured_on}",
            )
        )
    if verify is not None:
        answer = "bit-exact" if verify.bit_exact else ("within tolerance" if verify.passed else "differs")
        figures.append(
            _Figure(
                "Verification",
                answer,
                "",
                f"{verify.samples:,} rows, board against host",
                "good" if verify.passed else "bad",
            )
        )
    figures.append(_Figure("Work", f"{compiled.macs:,}", "MACs", "counted in the compiled program"))
    return figures


def _kind_order(profile: ProfileSection | None, compiled: CompiledModel) -> list[str]:
    """Kinds of operators, the costliest first."""
    total: dict[str, float] = {}
    rows: Sequence[OperatorSection | CompiledOperator] = (
        compiled.operators if profile is None else profile.operators
    )
    for row in rows:
        cost = row.p50 if isinstance(row, OperatorSection) else row.macs
        total[row.op] = total.get(row.op, 0) + cost
    return sorted(total, key=lambda op: (-total[op], op))


def _series(order: Sequence[str], op: str) -> int:
    return min(order.index(op), SERIES - 1)


def _kinds(profile: ProfileSection | None, compiled: CompiledModel) -> list[tuple[int, str]]:
    order = _kind_order(profile, compiled)
    shown = [(number, _name(op)) for number, op in enumerate(order[: SERIES - 1])]
    rest = order[SERIES - 1 :]
    if rest:
        shown.append((SERIES - 1, _name(rest[0]) if len(rest) == 1 else "others"))
    return shown


def _bars(profile: ProfileSection | None, compiled: CompiledModel) -> tuple[list[_Bar], bool]:
    """Rows of the chart, and whether their lengths are measured costs (else they are MACs)."""
    order = _kind_order(profile, compiled)
    measured = {row.id: float(row.p50) for row in profile.operators} if profile is not None else {}
    lengths = [
        measured.get(op.id, 0.0) if profile is not None else float(op.macs) for op in compiled.operators
    ]
    longest, total = max(lengths, default=0.0) or 1.0, sum(lengths) or 1.0
    bars = []
    for operator, length in zip(compiled.operators, lengths, strict=True):
        cost = measured.get(operator.id)
        bars.append(
            _Bar(
                id=operator.id,
                name=_name(operator.name),
                op=_name(operator.op),
                schedule=_name(operator.schedule),
                shape=" × ".join(str(size) for size in operator.output_shape),
                macs=f"{operator.macs:,}" if operator.macs else "–",
                cost="–" if cost is None else _number(cost),
                per_mac=f"{cost / operator.macs:.2f}" if cost is not None and operator.macs else "–",
                share=f"{100 * length / total:.1f} %",
                width=round(100 * length / longest, 2),
                series=_series(order, operator.op),
            )
        )
    return bars, profile is not None


def _cost_title(profile: ProfileSection | None) -> str:
    return "MACs" if profile is None else _unit(profile)


def _cost_source(profile: ProfileSection | None, target: Target) -> str:
    if profile is None:
        return "Nothing was measured: the bars are the MACs that the compiler counted, which are no cost."
    clock = f"{target.clock.source} at {target.clock.hz:,} Hz"
    spread = (
        f"p10 {_number(profile.p10)}, p50 {_number(profile.p50)}, p90 {_number(profile.p90)} {_unit(profile)}"
    )
    caution = {
        "instructions": "The emulator counts instructions. They are no time and no cycles of a real core.",
        "cycles": "Counted by the core's own cycle counter.",
        "us": "Timed by the board's clock.",
    }[profile.unit]
    trust = "" if profile.trusted or profile.unit == "instructions" else " This clock is not a trusted one."
    operators = (
        "The operators are medians of a second pass that reads the clock between them."
        if profile.operators
        else "No operator has a cost of its own: the bars are the MACs that the compiler counted."
    )
    return (
        f"{profile.runs} uninstrumented runs on the board: {spread} (clock: {clock}). "
        f"{operators} {caution}{trust}"
    )


def _meters(document: DeployDocument, details: ReportDetails) -> list[_Meter]:
    memory = document.memory

    def meter(title: str, used: int, limit: int | None, source: str) -> _Meter:
        percent = None if not limit else 100 * used / limit
        return _Meter(
            title=title,
            used=_bytes(used),
            limit="no limit stated" if limit is None else _bytes(limit),
            percent=None if percent is None else round(min(percent, 100.0), 2),
            text="" if percent is None else f"{percent:.1f} %",
            source=source,
        )

    meters = [
        meter("Flash", memory.flash_bytes, memory.flash_limit, "ELF against the target file's [[memory]]"),
        meter("RAM", memory.ram_bytes, memory.ram_limit, "ELF against the target file's [[memory]]"),
    ]
    if details.stack_high_water_bytes is not None:
        meters.append(
            meter(
                "Stack",
                details.stack_high_water_bytes,
                memory.stack_bytes or None,
                "high-water mark painted and read on the board, against what the linker script reserves",
            )
        )
    if details.arena_high_water_bytes is not None:
        meters.append(
            meter(
                "Arena",
                details.arena_high_water_bytes,
                memory.arena_bytes or None,
                "high-water mark painted and read on the board, against the plan",
            )
        )
    return meters


_ROLES = {
    "input": "read there for the last time",
    "output": "written there",
    "workspace": "only for this operator",
    "kept": "for a later operator",
}


def _peak(peak: ArenaPeak | None, compiled: CompiledModel) -> _Peak | None:
    """What makes the arena as large as it is."""
    if peak is None or peak.step >= len(compiled.operators):
        return None
    operator = compiled.operators[peak.step]
    rows: list[tuple[str, str, str, str]] = [
        (
            share.role,
            _ROLES[share.role],
            ", ".join(_name(name) for name in share.names[:4]) + (", …" if len(share.names) > 4 else ""),
            f"{share.size_bytes:,}",
        )
        for share in peak.shares
    ]
    if peak.shared_bytes:
        rows.append(
            ("shared", "of the output, over inputs that are done with", "", f"−{peak.shared_bytes:,}")
        )
    rest = compiled.arena_bytes - peak.taken_bytes
    if rest:
        rows.append(("unused", "at this operator: alignment, and what others need", "", f"{rest:,}"))
    return _Peak(peak.step, _name(operator.op), _name(operator.name), f"{peak.taken_bytes:,}", rows)


def _allocation_kinds(allocations: Sequence[Allocation]) -> list[str]:
    present = {allocation.kind for allocation in allocations}
    return [kind for kind in ("input", "activation", "workspace", "output") if kind in present]


def _tensors(role: str, specs: Sequence[TensorSpec]) -> list[tuple[str, str, str, str, str]]:
    """Role, name, shape, type and the meaning of the stored numbers."""
    return [
        (
            role,
            _name(spec.name),
            " × ".join(str(size) for size in spec.shape),
            spec.dtype,
            "as stored" if spec.quantization is None else _meaning(spec.quantization),
        )
        for spec in specs
    ]


def _meaning(quantization: Quantization) -> str:
    zero_point = quantization.zero_point
    sign = "+" if zero_point < 0 else "−"
    return f"{quantization.scale:.8g} · (stored {sign} {abs(zero_point)})"


def _verification(document: DeployDocument) -> list[_Fact]:
    verify = document.verify
    if verify is None:
        return [_Fact("Verified", "no: this deployment did not ask the board")]
    error = "not finite" if verify.max_abs_error is None else f"{verify.max_abs_error:g}"
    facts = [
        _Fact("Passed", "yes" if verify.passed else "no"),
        _Fact("Mode", "every byte equal" if verify.mode == "exact" else f"within {verify.tolerance:g}"),
        _Fact("Rows", f"{verify.samples:,}, the board's answers against the host's"),
        _Fact("Largest difference", f"{error}{'' if not verify.bit_exact else ' (all bytes equal)'}"),
    ]
    if verify.first_difference is not None:
        facts.append(_Fact("First difference", printable(verify.first_difference, TEXT_LIMIT)))
    return facts


def _accuracy(document: DeployDocument, details: ReportDetails) -> list[_Fact]:
    accuracy = document.accuracy
    facts = []
    if accuracy is None:
        facts.append(_Fact("Accuracy", "not measured: the data has no labels"))
    else:
        facts += [
            _Fact("Accuracy", f"{accuracy.value * 100:.2f} % ({accuracy.metric})"),
            _Fact("Rows", f"{accuracy.samples:,} labelled rows"),
            _Fact("Answered by", f"the {accuracy.measured_on}"),
        ]
    if details.data_source is not None:
        facts.append(_Fact("Data", printable(details.data_source, TEXT_LIMIT)))
    return facts


def _provenance(document: DeployDocument, compiled: CompiledModel, target: Target) -> list[_Fact]:
    artifacts = document.artifacts
    return [
        _Fact("Source model", f"{document.model.format}, {document.model.parameters:,} parameters"),
        _Fact("Source SHA-256", _name(document.model.sha256)),
        _Fact("Compiled model's hash", _name(compiled.model_hash)),
        _Fact("Arithmetic", "all integers" if compiled.exact else "with float operators"),
        _Fact("Weights", _bytes(compiled.weights_bytes)),
        _Fact("Arena", _bytes(compiled.arena_bytes)),
        _Fact("Triple", _name(target.compile.mtriple or "that of the machine edgekit ran on")),
        _Fact("Core", _name(target.compile.mcpu or "the triple's default")),
        _Fact("Schedules", ", ".join(_name(schedule) for schedule in target.schedules)),
        _Fact("Image", printable(artifacts.image, TEXT_LIMIT)),
        _Fact("Manifest", printable(artifacts.manifest, TEXT_LIMIT)),
    ]
