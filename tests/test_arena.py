"""What the report says makes the peak of the arena."""

from __future__ import annotations

import pytest

from edgekit.arena import arena_line, arena_peak
from edgekit.artifacts import Allocation

OPERATORS = [("conv2d", "a"), ("conv2d", "b"), ("add", "c")]


def allocations(second_offset: int) -> list[Allocation]:
    """x → a; a → b with a workspace; a + b → c."""
    return [
        Allocation("x", 1000, 300, 0, 0, "input"),
        Allocation("a", 0, 800, 0, 1, "activation"),
        Allocation("b", second_offset, 400, 1, 2, "activation"),
        Allocation("b", 1200, 28, 1, 1, "workspace"),
        Allocation("c", 0, 300, 2, 2, "output"),
    ]


def test_the_peak_is_named_with_all_that_makes_it() -> None:
    peak = arena_peak(allocations(800))
    assert peak is not None
    assert (peak.step, peak.taken_bytes, peak.shared_bytes) == (1, 1228, 0)
    assert {share.role: (share.size_bytes, share.names) for share in peak.shares} == {
        "input": (800, ("a",)),
        "output": (400, ("b",)),
        "workspace": (28, ("b",)),
    }
    assert (
        arena_line(allocations(800), OPERATORS, 1232)
        == "arena 1,232 B, peak at 1 conv2d b (input 800 + output 400 + workspace 28)"
    )


def test_what_an_output_shares_with_its_input_counts_once() -> None:
    kept = Allocation("k", 1000, 100, 1, 2, "input")
    held = [*allocations(600)[1:], kept]
    peak = arena_peak(held)
    assert peak is not None
    assert (peak.step, peak.taken_bytes, peak.shared_bytes) == (1, 1128, 200)
    assert arena_line(held, OPERATORS, 1232) == (
        "arena 1,232 B, peak at 1 conv2d b (input 800 + output 400 + workspace 28 + kept 100 − 200 shared)"
    )


@pytest.mark.parametrize("operators", [[], OPERATORS])
def test_nothing_planned_is_no_peak(operators: list[tuple[str, str]]) -> None:
    assert arena_peak([]) is None
    assert arena_line([], operators, 0) == "arena 0 B"
