"""The page of a search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.report.search import SearchedGroup, SearchedTrial, SearchPage, plot, render_search

PAGE = SearchPage(
    model="net",
    target="mps2-an386",
    unit="instructions",
    emulated=True,
    cost_limit=1.2e6,
    float_accuracy=0.93,
    int8_cost=2.0e6,
    int8_accuracy=0.925,
    winner_cost=1.1e6,
    winner_accuracy=0.921,
    trials=(
        SearchedTrial(0, "start", "as it is", "", 2.0e6, 2.0e6, 0.93),
        SearchedTrial(1, "proposal", "block1", "32 to 24", 1.5e6, None, 0.9),
        SearchedTrial(1, "chosen", "block1", "32 to 24", 1.5e6, 1.49e6, 0.9),
    ),
    groups=(SearchedGroup("block1", 32, 24), SearchedGroup("block2", 48, 48)),
    facts=(("Flash", "1,000 B"),),
    problems=(),
)


def test_points_stand_where_their_numbers_are() -> None:
    found = plot(
        [(0.0, 0.0, "start", "a"), (100.0, 1.0, "chosen", "b"), (50.0, 0.5, "winner", "c")],
        [(0.0, 0.0), (100.0, 1.0)],
        y_percent=True,
        limit=50.0,
        level=0.5,
    )
    low, high, middle = found.marks
    assert (low.x, low.y) == (found.left, found.bottom)
    assert (high.x, high.y) == (found.right, found.top)
    assert (middle.x, middle.y) == (found.vertical, found.horizontal)
    assert found.line == f"{low.x},{low.y} {high.x},{high.y}"
    assert found.y_ticks[0] == (found.bottom, "0 %")
    assert found.y_ticks[-1] == (found.top, "100 %")


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1e6, 1.0001e6], [0.1, 0.9], [-3.0, 40.0]])
def test_ticks_hold_all_values_between_them(values: list[float]) -> None:
    found = plot([(value, value, "chosen", "") for value in values], [], y_percent=False)
    assert 2 <= len(found.x_ticks) <= 9
    assert all(found.left <= mark.x <= found.right for mark in found.marks)
    assert all(found.top <= mark.y <= found.bottom for mark in found.marks)


def test_the_page_shows_all_of_it_and_runs_nothing() -> None:
    text = render_search(PAGE)
    assert text == render_search(PAGE)
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    for piece in ("net on mps2-an386", "1,490,000", "32 to 24", "which are no time", 'class="rule"'):
        assert piece in text
    assert text.count("<svg") == 2
    assert text.count('<circle class="winner"') == 1
    assert text.count('<circle class="int8"') == 1
    assert "width: 75.0%" in text


def test_names_and_problems_are_text() -> None:
    hostile = "<img src=x onerror=alert(1)>\x1b[2J"
    page = replace(
        PAGE,
        model=hostile,
        groups=(SearchedGroup(hostile, 8, 4),),
        problems=(hostile,),
        trials=(replace(PAGE.trials[1], group=hostile),),
    )
    text = render_search(page)
    assert "<img" not in text
    assert "\x1b" not in text
    assert text.count('class="problem"') == 1
