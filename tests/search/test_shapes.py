"""Operators from channels, and costs of whole networks."""

from __future__ import annotations

import pytest

from edgekit.search.predictor import Predictor
from edgekit.search.problem import Candidate
from edgekit.search.shapes import Design, NetworkShapes, OperatorKey


def network(a: int, b: int) -> tuple[OperatorKey, ...]:
    """A convolution from 3 channels to a, a depthwise one, two branches that are joined, a flatten of 6x6."""
    return (
        OperatorKey("conv", (3, a)),
        OperatorKey("depthwise", (a,)),
        OperatorKey("branch", (a, b)),
        OperatorKey("concat", (a + b,)),
        OperatorKey("dense", (36 * (a + b), 10)),
    )


DESIGNS = [
    Design({"a": a, "b": b}, network(a, b)) for a, b in ((16, 32), (8, 32), (16, 16), (8, 8), (12, 20))
]


def test_every_count_follows_from_the_groups() -> None:
    shapes = NetworkShapes(("a", "b"), DESIGNS)
    for a, b in ((4, 4), (16, 12), (64, 4)):
        assert shapes.operators({"a": a, "b": b}) == network(a, b)


def test_what_is_not_linear_is_refused() -> None:
    squared = [Design(one.channels, (OperatorKey("x", (one.channels["a"] ** 2,)),)) for one in DESIGNS]
    with pytest.raises(ValueError, match="no linear function"):
        NetworkShapes(("a", "b"), squared)
    changed = [*DESIGNS, Design({"a": 4, "b": 4}, (OperatorKey("other", (4,)),))]
    with pytest.raises(ValueError, match="changed the network"):
        NetworkShapes(("a", "b"), changed)


def _cost(key: OperatorKey) -> float:
    product = 1.0
    for count in key.channels:
        product *= count
    return 100.0 + 3.0 * sum(key.channels) + 2.0 * product


def test_a_network_costs_the_sum_of_its_operators() -> None:
    predictor = Predictor(NetworkShapes(("a", "b"), DESIGNS))
    predictor.overhead = 50.0
    predictor.learn((key, _cost(key)) for design in DESIGNS for key in design.operators)
    known = predictor.predict(Candidate((("a", 8), ("b", 8))))
    assert known.cost == known.low == known.high == 50.0 + sum(map(_cost, network(8, 8)))
    between = predictor.predict(Candidate((("a", 12), ("b", 12))))
    truth = 50.0 + sum(map(_cost, network(12, 12)))
    assert between.cost == pytest.approx(truth, rel=0.02)
    assert between.low <= between.cost <= between.high
    predictor.learn((key, _cost(key)) for key in network(12, 12))
    assert predictor.predict(Candidate((("a", 12), ("b", 12)))).cost == truth
    with pytest.raises(ValueError, match="measured point"):
        Predictor(NetworkShapes(("a", "b"), DESIGNS)).predict(Candidate((("a", 8), ("b", 8))))
