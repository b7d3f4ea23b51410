"""The arena chart: rectangles tell the plan's truth."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, strategies as st

from edgekit.artifacts import Allocation
from edgekit.report.geometry import memory_chart, ticks

from . import sample


def test_rectangles_do_not_overlap_where_allocations_do_not() -> None:
    compiled = sample.network()
    names = [allocation.name for allocation in compiled.allocations]
    chart = memory_chart(compiled.allocations, names, compiled.arena_bytes)
    for index, one in enumerate(chart.rectangles):
        for other in chart.rectangles[index + 1 :]:
            apart_in_time = one.x + one.width <= other.x + 0.02 or other.x + other.width <= one.x + 0.02
            apart_in_space = one.y + one.height <= other.y + 0.02 or other.y + other.height <= one.y + 0.02
            assert apart_in_time or apart_in_space, (one.title, other.title)


def test_position_and_size_are_proportional() -> None:
    chart = memory_chart(
        [Allocation("a", 0, 100, 0, 1, "input"), Allocation("b", 100, 300, 1, 3, "output")], ["a", "b"], 400
    )
    a, b = chart.rectangles
    assert b.height == 3 * a.height
    assert b.width == 1.5 * a.width
    assert a.y + a.height == chart.bottom
    assert b.y == chart.top
    assert [tick.text for tick in chart.steps] == ["0", "1", "2", "3"]
    assert b.title == "b (output): 300 B at offset 100, live in steps 1 to 3"


def test_a_long_name_is_not_drawn_over_its_neighbours() -> None:
    allocation = Allocation("n" * 500, 0, 100, 0, 0, "input")
    others = [Allocation(str(i), 0, 100, i, i, "activation") for i in range(1, 10)]
    chart = memory_chart([allocation, *others], ["n" * 500, *map(str, range(1, 10))], 100)
    assert chart.rectangles[0].label == "nnnnnnnnnn…"
    assert chart.rectangles[1].label == "1"


@given(
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(1, 4000), st.integers(0, 60), st.integers(0, 60)),
        max_size=20,
    )
)
def test_everything_stays_inside(rows: list[tuple[int, int, int, int]]) -> None:
    allocations = [
        Allocation(f"t{number}", offset, size, min(first, last), max(first, last), "activation")
        for number, (offset, size, first, last) in enumerate(rows)
    ]
    arena = max((a.offset + a.size_bytes for a in allocations), default=1)
    chart = memory_chart(allocations, [a.name for a in allocations], arena)
    for rectangle in chart.rectangles:
        assert chart.left - 0.02 <= rectangle.x
        assert rectangle.x + rectangle.width <= chart.right + 0.02
        assert chart.top - 0.02 <= rectangle.y
        assert rectangle.y + rectangle.height <= chart.bottom + 0.02
    assert len(chart.steps) <= 25


@given(st.integers(1, 1 << 34), st.integers(2, 10))
def test_ticks_are_few_even_and_within_the_limit(limit: int, count: int) -> None:
    marks = ticks(limit, count)
    assert marks[0] == 0
    assert marks[-1] <= limit
    assert len(marks) <= count + 1
    assert len({after - before for before, after in pairwise(marks)}) <= 1
