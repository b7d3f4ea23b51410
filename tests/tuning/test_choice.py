"""The choice among measured variants, where memory suffices and where it doesn't."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from edgekit.tuning.choice import choose
from edgekit.tuning.costs import VariantCost, ranked

FIRST = (VariantCost("a", 100.0), VariantCost("b", 70.0), VariantCost("c", 400.0))
SECOND = (VariantCost("d", 10.0), VariantCost("e", 12.0))


def test_the_cheapest_are_taken_where_they_fit() -> None:
    asked = []

    def excess(names: tuple[str, ...]) -> int:
        asked.append(names)
        return 0

    assert choose([FIRST, SECOND], ["a", "d"], excess) == ("b", "d")
    assert asked == [("b", "d")]


def test_model_cycles_decide_only_where_each_variant_has_them() -> None:
    flattered = VariantCost("many words", 50.0, 120)
    assert ranked([flattered, VariantCost("words", 60.0, 90)])[0].variant == "words"
    assert ranked([flattered, VariantCost("words", 60.0)])[0].variant == "many words"


def test_costs_that_are_equal_leave_the_default() -> None:
    same = (VariantCost("default", 5.0, 9), VariantCost("other", 4.0, 9))
    assert choose([same], ["default"], lambda names: 0) == ("default",)


def _needs(ram: Mapping[str, int], limit: int) -> dict[tuple[str, ...], int]:
    pairs = itertools.product([cost.variant for cost in FIRST], [cost.variant for cost in SECOND])
    return {names: sum(ram[name] for name in names) - limit for names in pairs}


def test_what_does_not_fit_leaves_the_default_and_the_rest_is_still_chosen() -> None:
    ram = {"a": 50, "b": 90, "c": 10, "d": 20, "e": 20}
    needs = _needs(ram, 70)
    assert choose([FIRST, SECOND], ["a", "e"], needs.__getitem__) == ("a", "d")


def test_where_not_even_the_defaults_fit_the_cheapest_way_out_is_taken() -> None:
    ram = {"a": 50, "b": 90, "c": 10, "d": 60, "e": 20}
    needs = _needs(ram, 75)
    # b, d need 150. c instead of b saves 75 bytes that matter for 330; e for d 40 bytes for 2, then a for b.
    assert choose([FIRST, SECOND], ["a", "d"], needs.__getitem__) == ("a", "e")


def test_nothing_fits() -> None:
    assert choose([FIRST, SECOND], ["a", "d"], lambda names: 1) is None


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 100)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 300),
)
def test_a_choice_always_fits_and_is_no_dearer_than_defaults_that_fit(
    variants: list[list[tuple[int, int]]], limit: int
) -> None:
    costs = [
        [VariantCost(f"{index} {place}", float(cost)) for place, (cost, _) in enumerate(each)]
        for index, each in enumerate(variants)
    ]
    ram = {
        f"{index} {place}": need
        for index, each in enumerate(variants)
        for place, (_, need) in enumerate(each)
    }
    cost_of = {cost.variant: cost.cost for each in costs for cost in each}
    defaults = [each[0].variant for each in costs]

    def excess(names: tuple[str, ...]) -> int:
        return sum(ram[name] for name in names) - limit

    found = choose(costs, defaults, excess)
    if excess(tuple(defaults)) <= 0:
        assert found is not None
        assert sum(cost_of[name] for name in found) <= sum(cost_of[name] for name in defaults)
    if found is not None:
        assert excess(found) <= 0
    else:
        # Memory is a sum here, so that one step after the other finds a way where there is one.
        assert sum(min(need for _, need in each) for each in variants) > limit


@pytest.mark.parametrize("defaults", [("b", "d"), ("c", "e")])
def test_no_choice_is_asked_for_that_changes_nothing(defaults: tuple[str, str]) -> None:
    assert choose([FIRST, SECOND], defaults, lambda names: 0) == ("b", "d")
