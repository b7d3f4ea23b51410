"""Greedy pruning guided by measured cost, after NetAdapt.

    step: for each group, the largest channel count that saves the step's share of the cost
          ──▶ short fine-tune of each proposal ──▶ the one that keeps most accuracy ──▶ measured on the board

Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications", 2018, algorithm 1.
Unlike there, what a step saved is then measured end to end on the board, and the next step starts from that
figure; an error of the table can't grow.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from edgekit.search.problem import Candidate, Group, Limits, Measure, Measured, Outcome, Problem, Trial

__all__ = ["NetAdapt"]

HALVINGS = 4
"""How often a step asks for half as much when no group can save it, before it takes all that there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetAdapt:
    """The strategy with its settings.

    Each step must save `reduction` of the start's cost, a share that is multiplied by `decay` after every
    step. A step in which no group can save that much asks for half of it, and so on.
    """

    reduction: float = 0.08
    decay: float = 0.97
    max_steps: int = 60

    def __call__(self, problem: Problem, measure: Measure, limits: Limits) -> Generator[Trial, None, Outcome]:
        start = Candidate(tuple((group.name, group.channels) for group in problem.groups))
        found = measure(start)
        trained = problem.train(start)
        best = Trial(0, start, None, trained.accuracy, trained.loss, problem.predict(start), found, "start")
        yield best
        share = self.reduction
        for step in range(1, self.max_steps + 1):
            assert best.measured is not None
            if limits.met_by(best.measured):
                return Outcome(best, True, f"within the budget after {step - 1} steps")
            wanted = share * found.cost
            proposals = _proposals(problem, best, best.measured, wanted, limits)
            if not proposals:
                return Outcome(
                    best, False, "no group can lose another channel", _smallest(problem.groups, best)
                )
            trials = []
            for group, candidate in proposals:
                trained = problem.train(candidate)
                predicted = problem.predict(candidate)
                trials.append(
                    Trial(step, candidate, group, trained.accuracy, trained.loss, predicted, None, "proposal")
                )
                yield trials[-1]
            # Among equal accuracies the cheaper one; then the first, so that a search repeats itself.
            chosen = max(trials, key=lambda trial: (trial.accuracy, -trial.predicted.cost))
            best = replace(chosen, measured=measure(chosen.candidate), role="chosen")
            yield best
            share *= self.decay
        assert best.measured is not None
        return Outcome(best, limits.met_by(best.measured), f"stopped after {self.max_steps} steps")


def _proposals(
    problem: Problem, best: Trial, measured: Measured, wanted: float, limits: Limits
) -> list[tuple[str, Candidate]]:
    """One candidate a group: the most channels that save `wanted`, or reach the budget if that is nearer.

    A saving is a share of the predicted cost, so that it does not matter by which factor predictions are off,
    or in which unit they are. Where no group can save so much, half of it is asked for, and so on: proposals
    that save alike are compared. Among unequal ones a group that saves nothing would win by losing nothing.
    """
    now = problem.predict(best.candidate).cost
    if limits.cost is not None:
        wanted = min(wanted, max(measured.cost - limits.cost, 0.0) or wanted)
    for _ in range(HALVINGS + 1):
        target = now * (1.0 - wanted / measured.cost)
        enough = [
            (group.name, saved)
            for group in problem.groups
            if (counts := _counts(best, group))
            and (saved := _first_that_saves(problem, best, group, counts, target)) is not None
        ]
        if enough:
            return enough
        wanted /= 2
    return [
        (group.name, best.candidate.with_channels(group.name, group.unit, best.candidate.key))
        for group in problem.groups
        if _counts(best, group)
    ]


def _counts(best: Trial, group: Group) -> range:
    """Counts that the group could still be pruned to, the largest first."""
    return range(best.candidate.count(group.name) - group.unit, 0, -group.unit)


def _first_that_saves(
    problem: Problem, best: Trial, group: Group, counts: range, target: float
) -> Candidate | None:
    """The largest count whose predicted cost is at most `target`, by bisection: cost falls with channels."""

    def candidate(position: int) -> Candidate:
        return best.candidate.with_channels(group.name, counts[position], best.candidate.key)

    low, high = 0, len(counts) - 1
    if problem.predict(candidate(high)).cost > target:
        return None
    while low < high:
        middle = (low + high) // 2
        if problem.predict(candidate(middle)).cost <= target:
            high = middle
        else:
            low = middle + 1
    return candidate(low)


def _smallest(groups: tuple[Group, ...], best: Trial) -> str | None:
    """The group that kept the largest share and still can't lose a channel: its unit is what binds."""
    shares = [(best.candidate.count(group.name) / group.channels, group.name) for group in groups]
    return max(shares)[1] if shares else None
