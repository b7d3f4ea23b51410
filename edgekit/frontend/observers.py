"""Observers: from the values of an activation in calibration to the range that its integers cover.

What an observer keeps is bounded: two numbers, or a histogram of at most 2·`BINS` counts. Infinite values (a
masked attention score) and NaN are left out. `torch_observers` gives the same to torchao.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import CalibrationMethod

__all__ = ["OBSERVERS", "Observer", "affine"]

BINS = 2048
CANDIDATES = 128
"""Thresholds that the searches try, from the largest magnitude down."""

Values = npt.NDArray[np.floating]


def affine(low: float, high: float, levels: int, symmetric: bool) -> tuple[float, int]:
    """(scale, zero point) of signed integers with `levels` values that cover [low, high] and 0."""
    least = -(levels // 2)
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        largest = max(-low, high)
        return (largest / (levels // 2 - 1) or 1.0), 0
    scale = (high - low) / (levels - 1)
    if scale < float(np.finfo(np.float32).tiny):
        return 1.0, 0
    return scale, round(min(max(least - low / scale, least), least + levels - 1))


class Observer(ABC):
    """Sees all values of its tensor, one calibration row after the other; `range` decides."""

    def __init__(self, levels: int = 256, symmetric: bool = False) -> None:
        self.levels = levels
        self.symmetric = symmetric

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """Take in one row's values."""
        flat = np.asarray(values, dtype=np.float32).reshape(-1)
        flat = flat[np.isfinite(flat)]
        if flat.size:
            self.observe(flat)

    @abstractmethod
    def observe(self, values: Values) -> None:
        """Take in finite values, at least one, as a vector."""

    @abstractmethod
    def range(self) -> tuple[float, float]:
        """(low, high) of what was observed; (0, 0) where nothing was."""


class MinMaxObserver(Observer):
    """The least and the largest value."""

    low, high = math.inf, -math.inf

    def observe(self, values: Values) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def range(self) -> tuple[float, float]:
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)


class MovingAverageObserver(Observer):
    """Exponential averages of each row's least and largest value (Jacob et al., 2018, section 3.1)."""

    CONSTANT = 0.01
    ends: tuple[float, float] | None = None

    def observe(self, values: Values) -> None:
        seen = (float(values.min()), float(values.max()))
        if self.ends is None:
            self.ends = seen
        else:
            low, high = (old + self.CONSTANT * (new - old) for old, new in zip(self.ends, seen, strict=True))
            self.ends = (low, high)

    def range(self) -> tuple[float, float]:
        return self.ends or (0.0, 0.0)


class Histogram:
    """Counts in bins of a common width, a power of two, whose edges are multiples of it.

    When values need more than twice `BINS` bins, the width doubles and bins merge in pairs: no count is ever
    divided between bins, whatever the order in which values come.
    """

    def __init__(self) -> None:
        self.width = 0.0
        self.first = 0
        """Bin 0 of `counts` covers [first·width, (first + 1)·width)."""
        self.counts = np.zeros(0, dtype=np.int64)

    def add(self, values: Values) -> None:
        low, high = float(values.min()), float(values.max())
        largest = max(abs(low), abs(high), high - low) or self.width or 1.0
        needed = 2.0 ** math.ceil(math.log2(largest / BINS))
        self.width = self.width or needed
        while self.width < needed or self._span(low, high) > 2 * BINS:
            self._merge()
        indices = np.floor(values.astype(np.float64) / self.width).astype(np.int64)
        self._reach(int(indices.min()), int(indices.max()))
        self.counts += np.bincount(indices - self.first, minlength=self.counts.size)

    def _span(self, low: float, high: float) -> int:
        first, last = math.floor(low / self.width), math.floor(high / self.width)
        if self.counts.size:
            first, last = min(first, self.first), max(last, self.first + self.counts.size - 1)
        return last - first + 1

    def _merge(self) -> None:
        self.width *= 2.0
        if self.counts.size:
            indices = (np.arange(self.counts.size) + self.first) // 2
            self.first = int(indices[0])
            self.counts = np.bincount(indices - self.first, weights=self.counts).astype(np.int64)

    def _reach(self, first: int, last: int) -> None:
        if not self.counts.size:
            self.first, self.counts = first, np.zeros(last - first + 1, dtype=np.int64)
            return
        before = max(self.first - first, 0)
        after = max(last - (self.first + self.counts.size - 1), 0)
        self.first -= before
        self.counts = np.pad(self.counts, (before, after))

    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of each bin."""
        positions = np.arange(self.counts.size, dtype=np.float64) + (self.first + 0.5)
        return np.multiply(positions, self.width, dtype=np.float64)


class HistogramObserver(Observer):
    """Base of the observers that look at the distribution. The ends never leave the values that were seen."""

    def __init__(self, levels: int = 256, symmetric: bool = False) -> None:
        super().__init__(levels, symmetric)
        self.histogram = Histogram()
        self.low, self.high = math.inf, -math.inf

    def observe(self, values: Values) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self.histogram.add(values)

    def range(self) -> tuple[float, float]:
        if self.low >= self.high:
            return (self.low, self.high) if self.low == self.high else (0.0, 0.0)
        low, high = self.search()
        return max(low, self.low), min(high, self.high)

    @abstractmethod
    def search(self) -> tuple[float, float]:
        """(low, high) from the histogram, which has at least two different values."""

    def candidates(self) -> Iterator[tuple[float, float]]:
        """Ranges clipped at ever smaller magnitudes: [max(low, −T), min(high, T)]."""
        largest = max(abs(self.low), abs(self.high))
        for step in range(CANDIDATES, CANDIDATES // 16, -1):
            threshold = largest * step / CANDIDATES
            yield max(self.low, -threshold), min(self.high, threshold)


class PercentileObserver(HistogramObserver):
    """The range that leaves out one value in 10,000 at either end, to within a bin."""

    TAIL = 1e-4

    def search(self) -> tuple[float, float]:
        counts, width = self.histogram.counts, self.histogram.width
        total = int(counts.sum())
        outside = math.floor(total * self.TAIL)
        upwards = np.cumsum(counts)
        first = int(np.searchsorted(upwards, outside, side="right"))
        last = int(np.searchsorted(upwards, total - outside, side="left"))
        return (self.histogram.first + first) * width, (self.histogram.first + last + 1) * width


class EntropyObserver(HistogramObserver):
    """The range whose integers tell most of the distribution: least Kullback-Leibler divergence of the
    quantised distribution from the clipped one (Migacz, 8-bit inference with TensorRT, 2017).

    Two corrections. Zero is stored exactly by every range, so the bin that holds it counts as its neighbour
    does (as in NVIDIA's pytorch-quantization): half of what a ReLU gives lies there, and would ask for ever
    smaller ranges. And a level of m filled bins diverges by (m − 1) / 2n from n values by chance alone
    (Miller, Note on the bias of information estimates, 1955), which would do so where rows are few. Of too
    few values to tell a distribution by, all are kept.
    """

    LEAST_PER_LEVEL = 64

    def search(self) -> tuple[float, float]:
        if self.histogram.counts.sum() < self.LEAST_PER_LEVEL * self.levels:
            return self.low, self.high
        centers, counts = self.histogram.centers(), self.histogram.counts.astype(np.float64)
        zero = -self.histogram.first
        if 0 <= zero < counts.size:
            counts[zero] = counts[zero + 1] if zero + 1 < counts.size else counts[zero - 1]
        return min(self.candidates(), key=lambda ends: self._divergence(centers, counts, *ends))

    def _divergence(self, centers: Values, counts: Values, low: float, high: float) -> float:
        inside = (centers >= low) & (centers <= high)
        if int(inside.sum()) < 2 or low >= high:
            return math.inf
        kept, kept_centers = counts[inside], centers[inside]
        clipped = kept.copy()
        clipped[0] += counts[centers < low].sum()
        clipped[-1] += counts[centers > high].sum()
        level = np.clip((kept_centers - low) / (high - low) * self.levels, 0, self.levels - 1).astype(
            np.int64
        )
        filled = clipped > 0
        members = np.bincount(level, weights=filled, minlength=self.levels)
        sums = np.bincount(level, weights=kept, minlength=self.levels)
        spread = np.where(filled, (sums / np.maximum(members, 1.0))[level], 0.0)
        total = float(clipped.sum())
        if not spread.any():
            return math.inf
        p, q = clipped / total, spread / spread.sum()
        where = p > 0
        # A level that only holds what was clipped has no mass in q: smoothed, not infinite.
        divergence = float((p[where] * np.log(p[where] / np.maximum(q[where], 1e-12))).sum())
        return divergence - float(np.maximum(members - 1, 0).sum()) / (2 * total)


class MeanSquaredErrorObserver(HistogramObserver):
    """The range with the least mean squared error of quantised values, clipping included."""

    def search(self) -> tuple[float, float]:
        centers, counts = self.histogram.centers(), self.histogram.counts.astype(np.float64)
        return min(self.candidates(), key=lambda ends: self._error(centers, counts, *ends))

    def _error(self, centers: Values, counts: Values, low: float, high: float) -> float:
        scale, zero_point = affine(low, high, self.levels, self.symmetric)
        least = -(self.levels // 2)
        stored = np.clip(np.rint(centers / scale) + zero_point, least, least + self.levels - 1)
        return float((counts * ((stored - zero_point) * scale - centers) ** 2).sum())


OBSERVERS: Mapping[CalibrationMethod, type[Observer]] = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
    "mse": MeanSquaredErrorObserver,
}
