"""What makes the peak of the arena: the operator at which most bytes are taken, and by what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.artifacts import Allocation
from edgekit.text import printable

__all__ = ["ArenaPeak", "Share", "arena_line", "arena_peak"]

Role = Literal["input", "output", "workspace", "kept"]
_ROLES: tuple[Role, ...] = ("input", "output", "workspace", "kept")


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes that a step takes in one role.

    `input` is what is read there for the last time, `kept` what a later step reads.
    """

    role: Role
    size_bytes: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArenaPeak:
    """The step with the most bytes taken at once."""

    step: int
    taken_bytes: int
    shares: tuple[Share, ...]
    shared_bytes: int
    """Of the output, what lies over inputs that are no longer needed: in both their shares."""


def arena_peak(allocations: Sequence[Allocation]) -> ArenaPeak | None:
    """The first step at which most bytes are taken; None where nothing is."""
    steps = 1 + max((each.last for each in allocations), default=-1)
    taken = [_taken(_live(allocations, step)) for step in range(steps)]
    if not taken:
        return None
    step = taken.index(max(taken))
    live = _live(allocations, step)
    shares = tuple(
        Share(role, sum(each.size_bytes for each in members), tuple(each.name for each in members))
        for role in _ROLES
        if (members := [each for each in live if _role(each, step) == role])
    )
    return ArenaPeak(step, taken[step], shares, sum(share.size_bytes for share in shares) - taken[step])


def arena_line(
    allocations: Sequence[Allocation], operators: Sequence[tuple[str, str]], arena_bytes: int
) -> str:
    """One line for a terminal.

    Args:
        operators: kind and name of each, in the order in which they run.
    """
    peak = arena_peak(allocations)
    if peak is None or peak.step >= len(operators):
        return f"arena {arena_bytes:,} B"
    kind, name = operators[peak.step]
    sum_ = " + ".join(f"{share.role} {share.size_bytes:,}" for share in peak.shares)
    if peak.shared_bytes:
        sum_ += f" − {peak.shared_bytes:,} shared"
    where = f"{peak.step} {kind} {printable(name, 40)}".rstrip()
    return f"arena {arena_bytes:,} B, peak at {where} ({sum_})"


def _live(allocations: Iterable[Allocation], step: int) -> list[Allocation]:
    return [each for each in allocations if each.first <= step <= each.last]


def _taken(live: Sequence[Allocation]) -> int:
    """Bytes that at least one of them covers."""
    taken = end = 0
    for each in sorted(live, key=lambda each: each.offset):
        start = max(each.offset, end)
        end = max(end, each.offset + each.size_bytes)
        taken += max(0, end - start)
    return taken


def _role(allocation: Allocation, step: int) -> Role:
    if allocation.kind == "workspace":
        return "workspace"
    if allocation.first == step and allocation.kind != "input":
        return "output"
    return "input" if allocation.last == step else "kept"
