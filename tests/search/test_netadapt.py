"""The greedy strategy, on a problem whose best answer is known."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edgekit.search.netadapt import NetAdapt
from edgekit.search.problem import Candidate, Group, Limits, Outcome, Trial
from tests.search import toy
from tests.search.toy import Toy


def run(problem: Toy, limits: Limits, **settings: float) -> tuple[list[Trial], Outcome]:
    return toy.run(problem, NetAdapt(**settings), limits)  # type: ignore[arg-type]


def test_it_takes_from_where_it_costs_no_accuracy() -> None:
    problem = Toy()
    trials, outcome = run(problem, Limits(cost=500.0))
    assert outcome.met
    assert outcome.best.measured is not None
    assert 400.0 < outcome.best.measured.cost <= 500.0
    kept = dict(outcome.best.candidate.channels)
    assert kept["dear"] == 32
    assert kept["cheap"] < 16
    chosen = [trial for trial in trials if trial.role == "chosen"]
    assert [trial.step for trial in chosen] == list(range(1, len(chosen) + 1))
    # one measurement for the start and each chosen step, none for proposals
    assert len(problem.measured) == len(chosen) + 1


def test_when_the_cheap_group_is_empty_the_dear_one_pays() -> None:
    trials, outcome = run(Toy(), Limits(cost=300.0))
    assert outcome.met
    kept = dict(outcome.best.candidate.channels)
    assert kept["cheap"] <= 8
    assert kept["dear"] < 32
    costs = [trial.measured.cost for trial in trials if trial.measured is not None]
    assert costs == sorted(costs, reverse=True)


def test_a_group_that_saves_next_to_nothing_does_not_win_by_losing_nothing() -> None:
    """No group can save half of the cost at once; each is asked for what one of them can."""
    trials, outcome = run(Toy(), Limits(cost=500.0), reduction=0.5)
    assert outcome.met
    first = [trial.group for trial in trials if trial.step == 1 and trial.role == "proposal"]
    assert first == ["cheap", "dear"]
    assert dict(outcome.best.candidate.channels)["dear"] == 32
    small = Toy(
        groups=(Group("cheap", 32, 4), Group("dear", 32, 4), Group("tiny", 32, 4)),
        cost_of={"cheap": 10.0, "dear": 10.0, "tiny": 0.01},
        worth={"cheap": 0.0001, "dear": 0.01, "tiny": 0.0},
    )
    trials, _ = run(small, Limits(cost=300.0), reduction=0.5)
    assert next(trial.group for trial in trials if trial.role == "chosen") == "cheap"
    assert all(trial.group != "tiny" for trial in trials)


def test_each_step_saves_its_share() -> None:
    trials, _ = run(Toy(), Limits(cost=300.0), reduction=0.1, decay=1.0)
    costs = [trial.measured.cost for trial in trials if trial.measured is not None]
    # 10 % of 744, in units of 4 channels of 10: at least 80 a step until the budget is nearer
    assert all(before - after >= 74.4 for before, after in pairwise(costs[:-1]))


def test_a_table_that_is_off_by_a_factor_does_not_miss_the_budget() -> None:
    for error in (-0.3, 0.3):
        _, outcome = run(Toy(table_error=error), Limits(cost=500.0))
        assert outcome.met
        assert outcome.best.measured is not None
        assert outcome.best.measured.cost <= 500.0


def test_an_impossible_budget_ends_with_the_best_found_and_what_binds() -> None:
    _, outcome = run(Toy(), Limits(cost=50.0))
    assert not outcome.met
    assert outcome.binding is not None
    assert outcome.best.measured is not None
    assert outcome.best.measured.cost == pytest.approx(100 + 40 + 40 + 4)
    assert "no group" in outcome.reason


def test_other_limits_end_a_search_too() -> None:
    trials, outcome = run(Toy(), Limits(flash_bytes=2000))
    assert outcome.met
    assert len(trials) == 1
    _, refused = run(Toy(), Limits(flash_bytes=10))
    assert not refused.met


def test_the_same_search_twice_asks_the_same() -> None:
    first, second = Toy(), Toy()
    assert run(first, Limits(cost=400.0)) == run(second, Limits(cost=400.0))
    assert first.trained == second.trained


def test_candidates_are_told_apart_by_their_history() -> None:
    start = Candidate((("a", 8), ("b", 8)))
    one = start.with_channels("a", 4, start.key)
    other = Candidate((("a", 4), ("b", 8)), "another")
    assert one.key != other.key
    assert one.key == start.with_channels("a", 4, start.key).key
