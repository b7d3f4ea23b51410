"""Costs between measured points: an operator's cost as a function of its channels.

For fixed geometry a convolution's cost is close to bilinear in its input and output channels, in steps where
a kernel's blocks are full. Between measured points a bilinear function is fitted to the near ones; its
interval is what leaving one measured point out and predicting it from the others was wrong by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Estimate", "Surface"]

Point = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A cost and its interval; `measured` where it is a measured point."""

    cost: float
    low: float
    high: float
    measured: bool


class Surface:
    """Measured costs of one kind of operator by its channels: (inputs, outputs), or (channels,)."""

    def __init__(self, points: Mapping[Point, float]) -> None:
        if not points:
            raise ValueError("a surface needs a measured point")
        self._points = dict(points)
        self._error = self._relative_error()

    def estimate(self, point: Point) -> Estimate:
        """The cost at a point: as measured, or between the measured ones; outside of them by the plane's
        trend.
        """
        known = self._points.get(point)
        if known is not None:
            return Estimate(known, known, known, True)
        cost = _interpolate(self._points, point)
        return Estimate(cost, cost * (1 - self._error), cost * (1 + self._error), False)

    def _relative_error(self) -> float:
        """The largest relative error of predicting a measured point from the others; 0.5 for fewer than 4."""
        if len(self._points) < 4:
            return 0.5
        errors = []
        for point, cost in self._points.items():
            others = {other: value for other, value in self._points.items() if other != point}
            if all(
                min(o[axis] for o in others) <= point[axis] <= max(o[axis] for o in others)
                for axis in range(len(point))
            ):
                errors.append(abs(_interpolate(others, point) - cost) / max(cost, 1.0))
        return max(errors, default=0.5)


def _interpolate(points: Mapping[Point, float], point: Point) -> float:
    """Least squares of 1, x, y, xy over the nearest points, weighted by their nearness (moving least squares,
    Lancaster and Salkauskas, 1981).
    """
    places = np.array(list(points), dtype=np.float64)
    values = np.array(list(points.values()), dtype=np.float64)
    scale = np.maximum(places.max(axis=0), 1.0)
    distances = np.abs(places / scale - np.array(point, dtype=np.float64) / scale).sum(axis=1)
    weights = np.sqrt(1.0 / (distances + 1e-3) ** 3)
    rows = _basis(places / scale)
    solution = np.linalg.lstsq(rows * weights[:, None], values * weights, rcond=None)[0]
    estimate = float((_basis(np.array([point], dtype=np.float64) / scale) @ solution)[0])
    return max(estimate, 0.0)


def _basis(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    columns = [np.ones(len(places)), *places.T]
    if places.shape[1] > 1:
        columns.append(places.prod(axis=1))
    return np.stack(columns, axis=1)
