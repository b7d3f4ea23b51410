"""Predicted costs of whole networks: the sum of their operators', measured or between measured ones."""

from __future__ import annotations

from collections.abc import Iterable

from edgekit.search.interpolate import Estimate, Surface
from edgekit.search.problem import Candidate, Prediction
from edgekit.search.shapes import NetworkShapes
from edgekit.search.store import LatencyTable, OperatorKey

__all__ = ["Predictor"]


class Predictor:
    """Costs from a table of measured operators.

    What a run costs besides its operators (calls, the driver's loop) is in `overhead`.
    """

    def __init__(self, shapes: NetworkShapes, table: LatencyTable, overhead: float = 0.0) -> None:
        self._shapes = shapes
        self._table = table
        self._overhead = overhead
        self._surfaces: dict[str, Surface] = {}

    def refresh(self, kinds: Iterable[str]) -> None:
        """Forget what was derived from the table for these kinds: it has new points."""
        for kind in set(kinds):
            self._surfaces.pop(kind, None)

    def predict(self, candidate: Candidate) -> Prediction:
        """Cost of a candidate, with the interval of its interpolated operators."""
        found = [self.estimate(key) for key in self._shapes.operators(dict(candidate.channels))]
        return Prediction(
            cost=self._overhead + sum(one.cost for one in found),
            low=self._overhead + sum(one.low for one in found),
            high=self._overhead + sum(one.high for one in found),
        )

    def estimate(self, key: OperatorKey) -> Estimate:
        """Cost of one operator."""
        if key.kind not in self._surfaces:
            self._surfaces[key.kind] = Surface(self._table.points(key.kind))
        return self._surfaces[key.kind].estimate(key.channels)
