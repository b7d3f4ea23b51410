"""Each observer's range against an independent computation in numpy on all the values at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torchao", reason="torch and torchao are not installed (pip install 'edgekit[torch]')")
import torch

from edgekit.frontend.torch_quiet import quiet

with quiet():
    from edgekit.frontend import torch_observers as observers

from hypothesis import given, strategies as st

from edgekit.frontend.observers import BINS, Histogram, HistogramObserver

SETTINGS = {
    "dtype": torch.int8,
    "quant_min": -128,
    "quant_max": 127,
    "qscheme": torch.per_tensor_affine,
}
Rows = list[np.ndarray]


def _rows(kind: str) -> Rows:
    """24 rows of 4,000 values: long tails, one-sided as behind a ReLU, or two humps."""
    generator = np.random.default_rng(3)
    rows = []
    for _ in range(24):
        values = generator.standard_t(3, 4000)
        if kind == "relu":
            values = np.maximum(values, 0)
        elif kind == "humps":
            values = generator.normal(size=4000) * 0.1 + generator.choice([-2.0, 5.0], 4000)
        rows.append(values.astype(np.float32))
    return rows


KINDS = ("tails", "relu", "humps")


def _observed(kind: type[observers.RangeObserver], rows: Rows) -> observers.RangeObserver:
    observer = kind(**SETTINGS)
    for row in rows:
        assert observer(torch.from_numpy(row)) is not None
    return observer


def _histogram(observer: observers.RangeObserver) -> Histogram:
    assert isinstance(observer.ranges, HistogramObserver)
    return observer.ranges.histogram


def _quantized(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Affine int8 with 0 in the range, as TFLite's specification has it; reals come back."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    zero_point = np.clip(-128 - np.round(np.float32(low) / scale), -128, 127)
    return (np.clip(np.round(values / scale) + zero_point, -128, 127) - zero_point) * scale


@pytest.mark.parametrize("kind", KINDS)
def test_min_max(kind: str) -> None:
    rows = _rows(kind)
    observer = _observed(observers.MinMaxObserver, rows)
    everything = np.concatenate(rows)
    assert observer.range() == (everything.min(), everything.max())
    scale, zero_point = observer.calculate_qparams()
    low, high = min(everything.min(), 0), max(everything.max(), 0)
    np.testing.assert_allclose(scale.item(), (high - low) / 255, rtol=1e-6)
    assert abs(-128 - low / scale.item() - zero_point.item()) <= 0.5001


def test_moving_average() -> None:
    rows = _rows("tails")
    low, high = rows[0].min(), rows[0].max()
    for row in rows[1:]:
        low, high = 0.99 * low + 0.01 * row.min(), 0.99 * high + 0.01 * row.max()
    np.testing.assert_allclose(
        _observed(observers.MovingAverageObserver, rows).range(), (low, high), rtol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_percentile(kind: str) -> None:
    rows = _rows(kind)
    observer = _observed(observers.PercentileObserver, rows)
    everything = np.concatenate(rows)
    low, high = observer.range()
    outside = everything.size // 10_000
    width = _histogram(observer).width
    ordered = np.sort(everything)
    assert ordered[outside] - width <= low <= ordered[outside]
    assert ordered[-outside - 1] <= high <= ordered[-outside - 1] + width
    assert width <= max(np.abs(everything).max(), np.ptp(everything)) / 1024


@pytest.mark.parametrize("kind", KINDS)
def test_mean_squared_error_is_the_least_of_all_thresholds(kind: str) -> None:
    rows = _rows(kind)
    everything = np.concatenate(rows).astype(np.float64)
    largest = np.abs(everything).max()

    def error(threshold: float) -> float:
        low, high = max(everything.min(), -threshold), min(everything.max(), threshold)
        return float(((_quantized(everything, low, high) - everything) ** 2).mean())

    best = min(error(largest * step / 128) for step in range(128, 8, -1))
    low, high = _observed(observers.MeanSquaredErrorObserver, rows).range()
    found = float(((_quantized(everything, low, high) - everything) ** 2).mean())
    # Bins stand for their middles.
    assert found <= best * 1.02
    assert found <= error(largest)


def _divergence(everything: np.ndarray, edges: np.ndarray, low: float, high: float) -> float:
    """Kullback-Leibler divergence, bin by bin in loops, less what chance adds (Miller, 1955)."""
    counts, _ = np.histogram(everything, edges)
    zero = int(np.searchsorted(edges, 0.0, side="right")) - 1
    counts[zero] = counts[zero + 1]
    centers = (edges[:-1] + edges[1:]) / 2
    kept = [i for i, center in enumerate(centers) if low <= center <= high]
    if len(kept) < 2 or not counts[kept].any():
        return np.inf
    clipped = {i: float(counts[i]) for i in kept}
    clipped[kept[0]] += sum(counts[i] for i, center in enumerate(centers) if center < low)
    clipped[kept[-1]] += sum(counts[i] for i, center in enumerate(centers) if center > high)
    levels: dict[int, list[int]] = {}
    for i in kept:
        levels.setdefault(min(int((centers[i] - low) / (high - low) * 256), 255), []).append(i)
    expanded = dict.fromkeys(kept, 0.0)
    chance = 0
    for members in levels.values():
        filled = [i for i in members if clipped[i] > 0]
        chance += max(len(filled) - 1, 0)
        for i in filled:
            expanded[i] = sum(counts[j] for j in members) / len(filled)
    total_p, total_q = sum(clipped.values()), sum(expanded.values())
    divergence = sum(
        p / total_p * np.log(p / total_p / max(expanded[i] / total_q, 1e-12))
        for i, p in clipped.items()
        if p > 0
    )
    return float(divergence - chance / (2 * total_p))


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_the_least_of_all_thresholds(kind: str) -> None:
    rows = _rows(kind)
    observer = _observed(observers.EntropyObserver, rows)
    everything = np.concatenate(rows).astype(np.float64)
    histogram = _histogram(observer)
    edges = (np.arange(len(histogram.counts) + 1) + histogram.first) * histogram.width
    largest = np.abs(everything).max()
    candidates = [
        (max(everything.min(), -largest * step / 128), min(everything.max(), largest * step / 128))
        for step in range(128, 8, -7)
    ]
    low, high = observer.range()
    found = _divergence(everything, edges, low, high)
    assert found <= min(_divergence(everything, edges, *ends) for ends in candidates) + 1e-9


@pytest.mark.parametrize("count", [1_000, 20_000, 200_000])
@pytest.mark.parametrize("rectified", [False, True])
def test_entropy_keeps_ranges_without_outliers(count: int, rectified: bool) -> None:
    """Neither the zeros of a ReLU nor few values make it clip what integers could tell."""
    values = np.random.default_rng(1).standard_normal(count).astype(np.float32)
    values = np.maximum(values, 0) if rectified else values
    errors = []
    for kind in (observers.EntropyObserver, observers.MinMaxObserver):
        low, high = _observed(kind, [values]).range()
        errors.append(float(((_quantized(values, low, high) - values) ** 2).mean()))
    assert errors[0] < 2 * errors[1]


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
        min_size=1,
        max_size=6,
    )
)
def test_the_histogram_counts_every_value_in_its_bin(rows: list[list[float]]) -> None:
    histogram = Histogram()
    for row in rows:
        histogram.add(np.asarray(row, np.float32))
    everything = np.concatenate([np.asarray(row, np.float32) for row in rows]).astype(np.float64)
    indices = np.floor(everything / histogram.width).astype(int)
    expected = np.bincount(indices - histogram.first, minlength=len(histogram.counts))
    assert np.array_equal(histogram.counts, expected)
    assert len(histogram.counts) <= 2 * BINS


def test_infinities_and_constants_are_no_trouble() -> None:
    for kind, value in itertools.product(observers.ACTIVATION_OBSERVERS.values(), (0.0, 2.5)):
        observer = kind(**SETTINGS)
        observer(torch.tensor([float("-inf"), float("nan")]))
        assert observer.range() == (0.0, 0.0)
        observer(torch.full((10,), value))
        observer(torch.tensor([float("inf"), value]))
        assert observer.range() == (value, value)
        scale, _ = observer.calculate_qparams()
        assert scale.item() > 0


def test_weights_have_a_scale_a_channel_and_none_too_small() -> None:
    weights = torch.randn(4, 3, 3, 3)
    weights[2] = 0
    settings = SETTINGS | {"quant_min": -127, "qscheme": torch.per_channel_symmetric, "ch_axis": 0}
    for kind in (observers.PerChannelWeightObserver, observers.TrainedPerChannelWeightObserver):
        observer = kind(**settings)
        observer(torch.randn(4, 3, 3, 3) * 10 if "Trained" in kind.__name__ else weights)
        observer(weights)
        scale, zero_point = observer.calculate_qparams()
        expected = weights.abs().amax((1, 2, 3)) / 127
        expected[2] = expected.max() / 1024
        torch.testing.assert_close(scale, expected)
        assert not zero_point.any()
