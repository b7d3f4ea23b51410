"""Which variant of each operator: the cheapest, and where memory is short the next best.

Pure: it works on costs and a function that says what a choice needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.tuning.costs import VariantCost, ranked

__all__ = ["choose"]

Excess = Callable[[tuple[str, ...]], int]


def choose(
    costs: Sequence[Sequence[VariantCost]], defaults: Sequence[str], excess: Excess
) -> tuple[str, ...] | None:
    """The variants to use, operator by operator; None where no choice that is tried fits.

    The cheapest of each, if they fit together. Else those of the defaults that can be replaced by cheaper
    ones, what saves most first. Where not even the defaults fit, the cheapest are given up one by one, each
    time what costs least for each byte that it brings the program nearer to the board's memory.

    Args:
        costs: of each operator's variants.
        defaults: what is taken without tuning.
        excess: bytes that a choice needs beyond what there is, at most 0 where it fits. It builds the
            program, so it is asked seldom, and never twice the same.
    """
    cheapest = tuple(ranked(each)[0].variant for each in costs)
    now = excess(cheapest)
    if now <= 0:
        return cheapest
    if tuple(defaults) != cheapest and excess(tuple(defaults)) <= 0:
        return _improved(costs, defaults, cheapest, excess)
    return _reduced(costs, now, excess)


def _improved(
    costs: Sequence[Sequence[VariantCost]],
    defaults: Sequence[str],
    too_large: tuple[str, ...],
    excess: Excess,
) -> tuple[str, ...]:
    """The defaults with every cheaper variant that still fits."""
    chosen = list(defaults)
    steps = []
    for operator, each in enumerate(costs):
        before = next((one.weight(each) for one in each if one.variant == defaults[operator]), float("inf"))
        steps += [(before - one.weight(each), operator, one.variant) for one in each]
    done: set[int] = set()
    for gain, operator, variant in sorted(steps, key=lambda one: -one[0]):
        trial = (*chosen[:operator], variant, *chosen[operator + 1 :])
        if gain > 0 and operator not in done and trial != too_large and excess(trial) <= 0:
            chosen[operator] = variant
            done.add(operator)
    return tuple(chosen)


def _reduced(costs: Sequence[Sequence[VariantCost]], now: int, excess: Excess) -> tuple[str, ...] | None:
    """The cheapest variants with dearer ones that need less memory, until all fits."""
    lists = [ranked(each) for each in costs]
    places = [0] * len(lists)

    def names(places: Sequence[int]) -> tuple[str, ...]:
        return tuple(each[place].variant for each, place in zip(lists, places, strict=True))

    while now > 0:
        steps = []
        for operator, variants in enumerate(lists):
            for place in range(places[operator] + 1, len(variants)):
                found = excess(names([*places[:operator], place, *places[operator + 1 :]]))
                saved = now - max(found, 0)
                if saved > 0:
                    more = variants[place].weight(variants) - variants[places[operator]].weight(variants)
                    steps.append((more / saved, operator, place, found))
        if not steps:
            return None
        _, operator, place, now = min(steps)
        places[operator] = place
    return names(places)
