"""Observers: from the values of an activation in calibration to the range that its integers cover.

Every observer sees all values of its tensor, one calibration row after the other, and answers with one range
[low, high]; torchao turns that into a scale and a zero point. Infinite values (a masked attention score) and
NaN are left out.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torchao.quantization.pt2e.observer import (
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    UniformQuantizationObserverBase,
)

from edgekit.artifacts import CalibrationMethod

__all__ = [
    "ACTIVATION_OBSERVERS",
    "EntropyObserver",
    "Histogram",
    "MeanSquaredErrorObserver",
    "MinMaxObserver",
    "MovingAverageObserver",
    "PerChannelWeightObserver",
    "PercentileObserver",
    "RangeObserver",
    "TrainedPerChannelWeightObserver",
]

BINS = 2048
CANDIDATES = 128
"""Thresholds that the searches try, from the largest magnitude down."""


class RangeObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Base of the activation observers: `observe` collects, `range` decides."""

    @abstractmethod
    def observe(self, values: torch.Tensor) -> None:
        """Take in finite float32 values, at least one, as a vector."""

    @abstractmethod
    def range(self) -> tuple[float, float]:
        """(low, high) of what was observed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = x.detach().reshape(-1)
        values = values[torch.isfinite(values)]
        if values.numel():
            self.observe(values)
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, zero point); 1 and 0 where nothing was observed."""
        return self.qparams_of(*self.range())

    def qparams_of(self, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
        found: tuple[torch.Tensor, torch.Tensor] = self._calculate_qparams(
            torch.tensor(low), torch.tensor(high)
        )
        return found


class MinMaxObserver(RangeObserver):
    """The least and the largest value."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.low, self.high = math.inf, -math.inf

    def observe(self, values: torch.Tensor) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def range(self) -> tuple[float, float]:
        return (self.low, self.high) if self.low <= self.high else (0.0, 0.0)


class MovingAverageObserver(RangeObserver):
    """Exponential averages of each row's least and largest value (Jacob et al., 2018, section 3.1)."""

    CONSTANT = 0.01

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.ends: tuple[float, float] | None = None

    def observe(self, values: torch.Tensor) -> None:
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
        self.counts = torch.zeros(0, dtype=torch.int64)

    def add(self, values: torch.Tensor) -> None:
        values = values.double()
        low, high = float(values.min()), float(values.max())
        largest = max(abs(low), abs(high), high - low)
        if largest == 0.0:
            largest = self.width or 1.0
        needed = 2.0 ** math.ceil(math.log2(largest / BINS))
        if self.width == 0.0:
            self.width = needed
        while self.width < needed or self._span(low, high) > 2 * BINS:
            self._merge()
        indices = torch.floor(values / self.width).long()
        self._reach(int(indices.min()), int(indices.max()))
        self.counts += torch.bincount(indices - self.first, minlength=len(self.counts))

    def _span(self, low: float, high: float) -> int:
        first, last = math.floor(low / self.width), math.floor(high / self.width)
        if len(self.counts):
            first, last = min(first, self.first), max(last, self.first + len(self.counts) - 1)
        return last - first + 1

    def _merge(self) -> None:
        self.width *= 2.0
        if not len(self.counts):
            return
        indices = torch.div(torch.arange(len(self.counts)) + self.first, 2, rounding_mode="floor")
        self.first = int(indices[0])
        merged = torch.zeros(int(indices[-1]) - self.first + 1, dtype=torch.int64)
        self.counts = merged.index_add_(0, indices - self.first, self.counts)

    def _reach(self, first: int, last: int) -> None:
        if not len(self.counts):
            self.first = first
            self.counts = torch.zeros(last - first + 1, dtype=torch.int64)
            return
        before = max(self.first - first, 0)
        after = max(last - (self.first + len(self.counts) - 1), 0)
        self.first -= before
        self.counts = torch.nn.functional.pad(self.counts, (before, after))

    def centers(self) -> torch.Tensor:
        """The middle of each bin, float64."""
        return (torch.arange(len(self.counts), dtype=torch.float64) + self.first + 0.5) * self.width


class HistogramObserver(RangeObserver):
    """Base of the observers that look at the distribution. The ends never leave the values that were seen."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.histogram = Histogram()
        self.low, self.high = math.inf, -math.inf

    def observe(self, values: torch.Tensor) -> None:
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
        upwards = torch.cumsum(counts, 0)
        first = int(torch.searchsorted(upwards, torch.tensor(outside), right=True))
        last = int(torch.searchsorted(upwards, torch.tensor(total - outside)))
        return (self.histogram.first + first) * width, (self.histogram.first + last + 1) * width


class EntropyObserver(HistogramObserver):
    """The range whose integers tell most of the distribution: least Kullback-Leibler divergence of the
    quantised distribution from the clipped one (Migacz, 8-bit inference with TensorRT, 2017).
    """

    def search(self) -> tuple[float, float]:
        centers, counts = self.histogram.centers(), self.histogram.counts.double()
        return min(self.candidates(), key=lambda ends: self._divergence(centers, counts, *ends))

    def _divergence(self, centers: torch.Tensor, counts: torch.Tensor, low: float, high: float) -> float:
        inside = (centers >= low) & (centers <= high)
        kept, kept_centers = counts[inside], centers[inside]
        if len(kept) < 2 or not kept.any():
            return math.inf
        clipped = kept.clone()
        clipped[0] += counts[centers < low].sum()
        clipped[-1] += counts[centers > high].sum()
        levels = self.quant_max - self.quant_min + 1
        level = ((kept_centers - low) / (high - low) * levels).long().clamp(0, levels - 1)
        filled = kept > 0
        members = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, filled.double())
        sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, kept)
        spread = torch.where(filled, (sums / members.clamp(min=1.0))[level], 0.0)
        p, q = clipped / clipped.sum(), spread / spread.sum()
        where = p > 0
        # A bin that only holds what was clipped has no mass in q: smoothed, not infinite.
        return float((p[where] * torch.log(p[where] / q[where].clamp(min=1e-12))).sum())


class MeanSquaredErrorObserver(HistogramObserver):
    """The range with the least mean squared error of quantised values, clipping included."""

    def search(self) -> tuple[float, float]:
        centers, counts = self.histogram.centers(), self.histogram.counts.double()
        return min(self.candidates(), key=lambda ends: self._error(centers, counts, *ends))

    def _error(self, centers: torch.Tensor, counts: torch.Tensor, low: float, high: float) -> float:
        scale, zero_point = (value.double() for value in self.qparams_of(low, high))
        stored = torch.clamp(torch.round(centers / scale) + zero_point, self.quant_min, self.quant_max)
        return float((counts * ((stored - zero_point) * scale - centers) ** 2).sum())


ACTIVATION_OBSERVERS: Mapping[CalibrationMethod, type[RangeObserver]] = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "entropy": EntropyObserver,
    "mse": MeanSquaredErrorObserver,
}

WEIGHT_SCALE_RATIO = 2.0**-10
"""Least scale of a channel, as a share of its layer's largest: a channel of zeros would have a scale so small
that its bias, counted in input scale × weight scale, did not fit 32 bits.
"""


def _with_floor(qparams: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    scale, zero_point = qparams
    return torch.maximum(scale, scale.max() * WEIGHT_SCALE_RATIO), zero_point


class PerChannelWeightObserver(PerChannelMinMaxObserver):  # type: ignore[misc]
    """Largest magnitude of each output channel."""

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _with_floor(super().calculate_qparams())


class TrainedPerChannelWeightObserver(MovingAveragePerChannelMinMaxObserver):  # type: ignore[misc]
    """The same of the weights as they are now, step by step; what training used is what conversion uses."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(averaging_constant=1.0, **settings)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _with_floor(super().calculate_qparams())
