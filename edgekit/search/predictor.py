"""Predicted costs of whole networks: the sum of their operators', measured or between measured ones."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.search.interpolate import Estimate, Surface
from edgekit.search.problem import Candidate, Prediction
from edgekit.search.shapes import NetworkShapes, OperatorKey

__all__ = ["Predictor"]


class Predictor:
    """Costs from the operators that one search has measured, in the order in which it learned of them.

    What others measured in the meantime is left out, so that a search that is run again predicts the same.
    """

    def __init__(self, shapes: NetworkShapes) -> None:
        self._shapes = shapes
        self._points: dict[str, dict[tuple[int, ...], float]] = {}
        self._surfaces: dict[str, Surface] = {}
        self.overhead = 0.0
        """What a run costs besides its operators: calls, and the driver's loop."""

    def learn(self, points: Iterable[tuple[OperatorKey, float]]) -> None:
        """Take up measured operators."""
        for key, cost in points:
            self._points.setdefault(key.kind, {})[key.channels] = cost
            self._surfaces.pop(key.kind, None)

    def predict(self, candidate: Candidate) -> Prediction:
        """Cost of a candidate, with the interval of its interpolated operators."""
        found = [self.estimate(key) for key in self._shapes.operators(dict(candidate.channels))]
        return Prediction(
            cost=self.overhead + sum(one.cost for one in found),
            low=self.overhead + sum(one.low for one in found),
            high=self.overhead + sum(one.high for one in found),
        )

    def estimate(self, key: OperatorKey) -> Estimate:
        """Cost of one operator.

        Raises:
            ValueError: none of its kind was measured.
        """
        if key.kind not in self._surfaces:
            self._surfaces[key.kind] = Surface(self._points.get(key.kind, {}))
        return self._surfaces[key.kind].estimate(key.channels)
