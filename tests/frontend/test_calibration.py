"""Ranges of activations: each method against its own definition in numpy, and through both quantisers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.artifacts import CalibrationMethod, ImportOptions, Precision
from edgekit.frontend import load_model
from edgekit.frontend.observers import BINS, OBSERVERS, Histogram, affine
from tests.frontend.host import run_on_host
from tests.frontend.onnx_models import OnnxBuilder

RNG = np.random.default_rng(3)
ROWS = [RNG.standard_normal(400).astype(np.float32) * (1 + i % 3) for i in range(50)]
OUTLIER = np.float32(90)


def _range(method: CalibrationMethod, rows: list[NDArray[np.float32]]) -> tuple[float, float]:
    observer = OBSERVERS[method]()
    for row in rows:
        observer.add(row)
    return observer.range()


def _error(values: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of int8 with that range, over the values themselves."""
    scale = (max(high, 0.0) - min(low, 0.0)) / 255
    zero = round(-128 - min(low, 0.0) / scale)
    stored = np.clip(np.rint(values / scale) + zero, -128, 127)
    return float((((stored - zero) * scale - values) ** 2).mean())


def test_every_method_has_an_observer() -> None:
    assert set(OBSERVERS) == set(get_args(CalibrationMethod))


def test_min_max() -> None:
    values = np.concatenate(ROWS)
    assert _range("minmax", ROWS) == (values.min(), values.max())


def test_moving_average() -> None:
    low, high = float(ROWS[0].min()), float(ROWS[0].max())
    for row in ROWS[1:]:
        low, high = 0.99 * low + 0.01 * float(row.min()), 0.99 * high + 0.01 * float(row.max())
    assert _range("moving_average", ROWS) == pytest.approx((low, high))


def test_percentile() -> None:
    values = np.concatenate(ROWS)
    low, high = _range("percentile", ROWS)
    bin_width = 2 * float(np.abs(values).max()) / BINS
    assert low == pytest.approx(np.percentile(values, 0.01), abs=2 * bin_width)
    assert high == pytest.approx(np.percentile(values, 99.99), abs=2 * bin_width)


def test_mean_squared_error_gives_up_the_outlier() -> None:
    values = np.concatenate([*ROWS, [OUTLIER]])
    low, high = _range("mse", [values])
    found = _error(values, low, high)
    assert high < OUTLIER
    for threshold in np.linspace(5, OUTLIER, 40):
        tried = _error(values, max(low, -threshold), min(float(values.max()), threshold))
        assert found <= tried * 1.02


def test_entropy_gives_up_the_outlier() -> None:
    values = np.concatenate([*ROWS, [OUTLIER]])
    _, high = _range("entropy", [values])
    assert np.abs(np.concatenate(ROWS)).max() * 0.5 < high < OUTLIER / 2


def test_infinite_values_are_left_out() -> None:
    row = np.array([1.0, -2.0, np.inf, -np.inf, np.nan], np.float32)
    assert _range("minmax", [row]) == (-2.0, 1.0)


def test_a_histogram_counts_every_value_in_bounded_memory() -> None:
    histogram = Histogram()
    values = np.concatenate([row * 10.0**power for power, row in zip(range(-3, 4), ROWS, strict=False)])
    for part in np.array_split(values, 20):
        histogram.add(part)
    assert len(histogram.counts) <= 2 * BINS + 1
    edges = (histogram.first + np.arange(len(histogram.counts) + 1)) * histogram.width
    np.testing.assert_array_equal(histogram.counts, np.histogram(values, edges)[0])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_scale_and_zero_point_cover_the_range_and_zero(low: float, high: float, symmetric: bool) -> None:
    scale, zero_point = affine(low, high, 256, symmetric)
    assert -128 <= zero_point <= 127
    assert (-128 - zero_point) * scale <= min(low, 0.0) + scale
    assert (127 - zero_point) * scale >= max(high, 0.0) - scale
    assert not symmetric or zero_point == 0


def test_methods_and_precisions_reach_a_float_onnx_model(tmp_path: Path) -> None:
    b = OnnxBuilder(np.random.default_rng(0))
    x = b.conv(b.input("x", (1, 3, 8, 8)), 3, 8, pads=[1, 1, 1, 1])
    b.output(b.conv(b.node("Relu", [x]), 8, 4, pads=[1, 1, 1, 1]), (1, 4, 8, 8))
    path = tmp_path / "float.onnx"
    path.write_bytes(b.build().SerializeToString())
    rows = RNG.standard_normal((120, 3, 8, 8)).astype(np.float32)
    rows[0, 0, 0, 0] = 40.0
    wanted = run_on_host(load_model(path, ImportOptions(precision="float32")), [rows[1:2]])[0]
    errors: dict[tuple[Precision, CalibrationMethod], float] = {}
    for precision, method in (
        *(("int8", method) for method in get_args(CalibrationMethod)),
        ("int16x8", "minmax"),
    ):
        options = ImportOptions(precision=precision, calibration_method=method)
        found = run_on_host(load_model(path, options, calibration=[rows]), [rows[1:2]])[0]
        errors[precision, method] = float(np.abs(found - wanted).max())
    assert errors["int8", "minmax"] < 0.2 * float(np.abs(wanted).max())
    for better in (("int8", "percentile"), ("int8", "entropy"), ("int16x8", "minmax")):
        assert errors[better] < errors["int8", "minmax"]
