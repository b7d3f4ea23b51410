"""Local search at one cost: what one group of channels gives up, the others get.

A greedy search only ever takes away, each time from one group, and judges by what was just lost. It can't see
whether the channels that are left stand in the best proportion. That is asked here, of whole networks of one
predicted cost, each pruned from the start in one step and trained alike: the neighbours of the best one have
more channels in one group, or fewer, and the other groups give way in their proportions. Costs come from the
table of measured operators, and a network is measured before it is believed.

A short training flatters what recovers fast: late layers, wide, behind early ones that hold too little. So it
only chooses who is trained on, as successive halving does (Jamieson and Talwalkar, 2016), and the longer
training decides.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import Final

from edgekit.search.netadapt import NetAdapt
from edgekit.search.problem import Candidate, Limits, Measure, Measured, Outcome, Problem, Trial

__all__ = ["Exchange"]

MARGIN: Final = 0.002
"""Share of the budget left free by predictions: the error of a network that was never measured."""

BISECTIONS: Final = 24
"""Of the factor by which groups give way; finer than a channel of the widest layers."""

FIRST: Final = NetAdapt(reduction=0.15)
"""Larger steps than it takes alone: the exchanges mend what they do to the proportions."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """`first`, and then at most `rounds` of exchanges among networks that cost what it came to.

    In each round every group in turn changes by the share `change`, up and down. The best `finalists` of them
    are trained on, and the best of those that the board finds within the limits is the centre of the
    next round; where none is better, half the change is tried. The first centre is what `first` came to, or
    all groups in even shares.
    """

    first: NetAdapt = FIRST
    rounds: int = 3
    change: float = 0.4
    finalists: int = 3

    def __call__(self, problem: Problem, measure: Measure, limits: Limits) -> Generator[Trial, None, Outcome]:
        start = _start(problem)
        outcome = yield from self.first(problem, measure, limits)
        if not outcome.met or self.rounds == 0 or outcome.best.role == "start":
            return outcome
        found = outcome.best
        assert found.measured is not None
        cost = limits.cost if limits.cost is not None else found.measured.cost
        # In the unit of the predictions, which may be off by a factor.
        room = (1.0 - MARGIN) * cost * problem.predict(found.candidate).cost / found.measured.cost
        within = replace(limits, cost=cost)
        # All are pruned from the start in one step, so that nothing but their channels tells them apart.
        neighbours: list[tuple[str | None, Candidate]] = [
            (None, Candidate(found.candidate.channels, start.key)),
            (None, _in_room(problem, start, room, start.key)),
        ]
        change = self.change
        best: Trial | None = None
        seen: set[tuple[tuple[str, int], ...]] = set()
        for number in range(found.step + 1, found.step + self.rounds + 2):
            tried = []
            for group, candidate in neighbours:
                if candidate.channels not in seen and (
                    best is None or problem.predict(candidate).cost <= room
                ):
                    tried.append(_tried(problem, number, group, candidate))
                    yield tried[-1]
                seen.add(candidate.channels)
            tried.sort(key=lambda trial: trial.loss)
            finalists = []
            for trial in tried[: self.finalists]:
                further = Candidate(trial.candidate.channels, trial.candidate.key)
                finalists.append(replace(_tried(problem, number, trial.group, further), role="finalist"))
                yield finalists[-1]
            better = _first_within(finalists, best, measure, within)
            if better is not None:
                best = better
                yield best
            elif best is None:
                return outcome
            else:
                change /= 2
            neighbours = _neighbours(problem, best.candidate, change, room, start.key)
        assert best is not None
        return Outcome(best, True, f"within the budget, after {self.rounds} rounds of exchanges")


def _tried(problem: Problem, number: int, group: str | None, candidate: Candidate) -> Trial:
    trained, predicted = problem.train(candidate), problem.predict(candidate)
    return Trial(number, candidate, group, trained.accuracy, trained.loss, predicted, None, "proposal")


def _start(problem: Problem) -> Candidate:
    return Candidate(tuple((group.name, group.channels) for group in problem.groups))


def _first_within(
    trials: Iterable[Trial], best: Trial | None, measure: Measure, limits: Limits
) -> Trial | None:
    """The best of the trials that beat `best` and that the board finds within the limits."""
    for trial in sorted(trials, key=lambda one: one.loss):
        if best is not None and trial.loss >= best.loss:
            return None
        measured: Measured = measure(trial.candidate)
        if limits.met_by(measured):
            return replace(trial, measured=measured, role="chosen")
    return None


def _neighbours(
    problem: Problem, centre: Candidate, change: float, room: float, parent: str
) -> list[tuple[str | None, Candidate]]:
    """Two a group, of the same cost: more channels in it, and fewer."""
    found: list[tuple[str | None, Candidate]] = []
    for group in problem.groups:
        now = centre.count(group.name)
        for factor in (1.0 + change, 1.0 - change):
            units = round(now * factor / group.unit)
            units = max(units, now // group.unit + 1) if factor > 1 else min(units, now // group.unit - 1)
            count = min(units * group.unit, group.channels)
            if count >= group.unit and count != now:
                moved = centre.with_channels(group.name, count, parent)
                found.append((group.name, _in_room(problem, moved, room, parent, fixed=group.name)))
    return found


def _in_room(
    problem: Problem, wanted: Candidate, room: float, parent: str, fixed: str | None = None
) -> Candidate:
    """The widest network of predicted cost `room` whose groups, but `fixed`, stand as in `wanted`.

    All by one factor first; then one unit at a time, the group that rounding left the furthest behind before
    the others, as long as there is room. Where even the smallest has no room, that one.
    """

    def scaled(factor: float) -> Candidate:
        channels = []
        for group in problem.groups:
            count = wanted.count(group.name)
            if group.name != fixed:
                count = round(factor * count / group.unit) * group.unit
                count = min(group.channels, max(group.unit, count))
            channels.append((group.name, count))
        return Candidate(tuple(channels), parent)

    others = [group for group in problem.groups if group.name != fixed]
    low, high = 0.0, max((group.channels / wanted.count(group.name) for group in others), default=1.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if problem.predict(scaled(middle)).cost <= room:
            low = middle
        else:
            high = middle
    best = scaled(low)
    grown = True
    while grown:
        grown = False
        for group in sorted(others, key=lambda one: best.count(one.name) / wanted.count(one.name)):
            count = best.count(group.name) + group.unit
            wider = best.with_channels(group.name, min(count, group.channels), parent)
            if count <= group.channels and problem.predict(wider).cost <= room:
                best, grown = wider, True
                break
    return best
