"""Exchanges at one cost, on a problem where a greedy search stops short of the best answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest

from edgekit.search.exchange import Exchange
from edgekit.search.netadapt import NetAdapt
from edgekit.search.problem import Candidate, Group, Limits, Measured, Trained
from tests.search.toy import Toy, run

GROUPS = tuple(Group(name, 64, 4) for name in ("wide", "middle", "deep"))


@dataclass
class Proportions(Toy):
    """What a group is worth falls with every channel that it has: the best network spreads its cost.

    With equal costs a channel, sum of worth · log(channels) is the largest where channels are as the worths.
    """

    def train(self, candidate: Candidate) -> Trained:
        self.trained.append(candidate)
        gained = sum(self.worth[name] * math.log(count) for name, count in candidate.channels)
        return Trained(0.5 + gained / 100, 10.0 - gained)

    def measure(self, candidate: Candidate) -> Measured:
        found = super().measure(candidate)
        return Measured(found.cost, 1000 + 10 * dict(candidate.channels)["deep"], 100)


def proportions(**changed: object) -> Proportions:
    costs = {group.name: 10.0 for group in GROUPS}
    return Proportions(GROUPS, costs, {"wide": 1.0, "middle": 2.0, "deep": 4.0}, **changed)  # type: ignore[arg-type]


def best_loss(problem: Proportions, cost: float) -> float:
    counts = range(4, 65, 4)
    return min(
        10.0 - sum(problem.worth[name] * math.log(n) for name, n in zip(problem.worth, kept, strict=True))
        for kept in ((a, b, c) for a in counts for b in counts for c in counts)
        if 100 + 10 * sum(kept) <= cost
    )


@pytest.mark.parametrize("cost", [710.0, 1010.0, 1410.0])
def test_exchanges_come_near_the_best_network_of_the_cost(cost: float) -> None:
    problem = proportions()
    # One step that takes from one group only: far from the best proportions.
    greedy = NetAdapt(reduction=0.3)
    _, alone = run(proportions(), greedy, Limits(cost=cost))
    trials, outcome = run(problem, Exchange(greedy, rounds=6), Limits(cost=cost))
    assert outcome.met
    assert outcome.best.measured is not None
    assert outcome.best.measured.cost <= cost
    best = best_loss(problem, cost)
    assert outcome.best.loss - best < 0.15
    assert outcome.best.loss < alone.best.loss - 0.1
    assert outcome.best in trials


def test_each_centre_is_better_than_the_last_and_pruned_from_the_start() -> None:
    problem = proportions()
    trials, outcome = run(problem, Exchange(rounds=5), Limits(cost=900.0))
    begin = next(place for place, one in enumerate(trials) if place > 0 and one.group is None)
    exchanged = trials[begin:]
    proposals = {one.candidate.key: one for one in exchanged if one.role == "proposal"}
    assert all(one.candidate.parent == trials[0].candidate.key for one in proposals.values())
    for one in exchanged:
        if one.role != "proposal":
            assert one.candidate.parent is not None
            assert proposals[one.candidate.parent].candidate.channels == one.candidate.channels
    centres = [one for one in exchanged if one.role == "chosen" and one.group is not None]
    assert centres
    assert all(a.loss > b.loss for a, b in pairwise(centres))
    assert outcome.best == [one for one in trials if one.role == "chosen"][-1]
    # Measured: the start, each chosen one, and nothing else.
    assert len(problem.measured) == 1 + sum(one.role == "chosen" for one in trials)


@dataclass
class Flattering(Proportions):
    """A short training likes a wide start, whatever the longer one then says."""

    def train(self, candidate: Candidate) -> Trained:
        found = super().train(candidate)
        longer = any(
            one.key == candidate.parent and one.channels == candidate.channels for one in self.trained
        )
        return found if longer else Trained(found.accuracy, found.loss - 0.05 * candidate.count("wide"))


def test_the_longer_training_decides() -> None:
    worth = {"wide": 1.0, "middle": 2.0, "deep": 4.0}
    problem = Flattering(GROUPS, dict.fromkeys(worth, 10.0), worth)
    _, outcome = run(problem, Exchange(rounds=6, finalists=6), Limits(cost=910.0))
    assert outcome.best.loss - best_loss(problem, 910.0) < 0.15


def test_what_the_board_finds_too_large_is_not_taken() -> None:
    """The table knows nothing of flash: networks with a deep end are measured, and passed over."""
    limits = Limits(cost=900.0, flash_bytes=1000 + 10 * 28)
    trials, outcome = run(proportions(), Exchange(NetAdapt(reduction=0.05), rounds=5), limits)
    assert outcome.met
    assert dict(outcome.best.candidate.channels)["deep"] <= 28
    assert any(dict(one.candidate.channels)["deep"] > 28 for one in trials if one.role == "proposal")


@pytest.mark.parametrize("error", [-0.3, 0.3])
def test_a_table_that_is_off_by_a_factor_uses_the_budget_all_the_same(error: float) -> None:
    _, outcome = run(proportions(table_error=error), Exchange(rounds=4), Limits(cost=900.0))
    assert outcome.best.measured is not None
    assert 840.0 <= outcome.best.measured.cost <= 900.0


def test_without_rounds_and_where_nothing_fits_it_is_the_greedy_search() -> None:
    for limits in (Limits(cost=900.0), Limits(cost=50.0), Limits(cost=1e9)):
        rounds = 0 if limits.cost == 900.0 else 4
        search = Exchange(rounds=rounds)
        assert run(proportions(), search, limits) == run(proportions(), search.first, limits)


def test_the_same_search_twice_asks_the_same() -> None:
    first, second = proportions(), proportions()
    assert run(first, Exchange(), Limits(cost=900.0)) == run(second, Exchange(), Limits(cost=900.0))
    assert first.trained == second.trained
