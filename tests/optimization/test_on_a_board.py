"""The loop on an emulated Cortex-M4: what is predicted, what is measured, what is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.artifacts import TorchProgram
from edgekit.budget import Budget
from edgekit.compress.training import Labelled, Training, train
from edgekit.optimization import Settings, optimize
from edgekit.search.netadapt import NetAdapt
from tests.campaign import campaign_count


def _rows(count: int, seed: int) -> Labelled:
    """Bars of 8x8 pixels, in rows or in columns, bright or dark: four classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    x = rng.normal(0.5, 0.2, (count, 1, 8, 8))
    for image, label in zip(x, y, strict=True):
        bar = (slice(None), rng.integers(0, 8)) if label % 2 else (rng.integers(0, 8), slice(None))
        image[0][bar] += 1.0 if label < 2 else -1.0
    return Labelled(x.astype(np.float32), y.astype(np.int64))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads on cores that other tests use wait for each other more than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.emulator
@pytest.mark.usefixtures("one_thread")
def test_a_network_is_pruned_to_what_the_board_measures(
    emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows, validation, test = _rows(1200, 0), _rows(200, 1), _rows(200, 2)
    network = _network()
    train(network, Training(epochs=4, batch_size=64, learning_rate=1e-2), rows, None)
    np.savez(
        tmp_path / "rows.npz",
        x_train=rows.x,
        y_train=rows.y,
        x_val=validation.x,
        y_val=validation.y,
        x_test=test.x,
        y_test=test.y,
    )
    found = optimize(
        TorchProgram(network.eval(), (torch.zeros(1, 1, 8, 8),), "bars"),
        target=emulator,
        data=tmp_path / "rows.npz",
        budget=Budget(max_instructions=14_000),
        settings=Settings(
            strategy=NetAdapt(reduction=0.25),
            short_rows=600,
            final_epochs=2,
            qat_epochs=campaign_count(1, 0),
            batch_size=64,
        ),
        directory=tmp_path / "out",
    )
    assert found.unit == "instructions"
    assert found.baseline.measured.cost > 14_000 >= found.winner.cost
    assert found.problems == ()
    assert found.deployment.verification is not None
    assert found.deployment.verification.bit_exact
    errors = found.prediction_errors
    assert errors is not None
    assert errors.median <= 0.05
    assert errors.worst <= 0.15
    assert found.test is not None
    assert found.test.against_float.points < 10.0
    # with a training of the rounding both forms are written, and the validation rows choose
    written = sorted(path.name for path in (tmp_path / "out" / "search").glob("int8-*"))
    assert written == ["int8-after-training", "int8-in-training"][: 1 + campaign_count(1, 0)]
