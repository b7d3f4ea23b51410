"""Which variant of each operator: the cheapest, and where memory is short the next best.

Pure: it works on costs and a function that says what a choice needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.tuning.costs import VariantCost, ranked

__all__ = ["choose"]


def choose(
    costs: Sequence[Sequence[VariantCost]], excess: Callable[[tuple[str, ...]], int]
) -> tuple[str, ...] | None:
    """The variants to use, operator by operator; None where no choice that is tried fits.

    The cheapest of each, if they fit. Else one operator is given the variant that costs least for each byte
    which it brings the program nearer to the board's memory, again and again until it fits.

    Args:
        costs: of each operator's variants.
        excess: bytes that a choice needs beyond what the board has, at most 0 where it fits; it builds the
            program, so it is asked seldom.
    """
    lists = [ranked(each) for each in costs]
    chosen = [0] * len(lists)

    def names(places: Sequence[int]) -> tuple[str, ...]:
        return tuple(each[place].variant for each, place in zip(lists, places, strict=True))

    now = excess(names(chosen))
    while now > 0:
        steps = []
        for operator, variants in enumerate(lists):
            for place in range(chosen[operator] + 1, len(variants)):
                trial = [*chosen[:operator], place, *chosen[operator + 1 :]]
                found = excess(names(trial))
                saved = now - max(found, 0)
                if saved > 0:
                    more = variants[place].weight(variants) - variants[chosen[operator]].weight(variants)
                    steps.append((more / saved, operator, place, found))
        if not steps:
            return None
        _, operator, place, now = min(steps)
        chosen[operator] = place
    return names(chosen)
