"""Unstructured pruning: how many weights go, which, when, and what is said of it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compress.sparsity import (
    MagnitudePruning,
    cubic_sparsity,
    magnitude_masks,
    sparsity_at,
    sparsity_report,
)
from edgekit.compress.training import Training, TrainingRun, train
from edgekit.errors import UsageError
from tests.compress.networks import blobs, classifier


def test_the_smallest_magnitudes_of_the_whole_module_go() -> None:
    module = classifier()
    with torch.no_grad():
        module[0].weight.mul_(10.0)
    magnitudes = np.concatenate([layer.weight.detach().abs().numpy().ravel() for layer in module[::2]])
    masks = magnitude_masks(module, 0.6, "global")
    masks.apply(module)
    kept = np.concatenate([layer.weight.detach().numpy().ravel() for layer in module[::2]]) != 0
    assert (~kept).sum() == int(0.6 * magnitudes.size)
    assert magnitudes[kept].min() >= magnitudes[~kept].max()
    # its own threshold for each layer would have taken 60 % of the large ones too
    assert float((module[0].weight == 0).float().mean()) < 0.2


def test_by_layer_each_loses_its_share() -> None:
    module = classifier()
    magnitude_masks(module, 0.6, "layer").apply(module)
    for layer in module[::2]:
        assert int((layer.weight == 0).sum()) == int(0.6 * layer.weight.numel())


def test_what_was_dropped_stays_dropped() -> None:
    module = classifier()
    first = magnitude_masks(module, 0.3, "global")
    first.apply(module)
    with torch.no_grad():
        for layer in module[::2]:
            layer.weight.add_(100.0 * (layer.weight == 0))
    second = magnitude_masks(module, 0.5, "global", first)
    for name, mask in first.by_name.items():
        assert bool((second.by_name[name] <= mask).all())


def test_the_cubic_schedule() -> None:
    """Zhu and Gupta, equation 1, with t0 = 0: s_f + (s_i - s_f)(1 - t/n)^3."""
    assert cubic_sparsity(0, 10, 0.8) == 0.0
    assert cubic_sparsity(5, 10, 0.8) == pytest.approx(0.8 - 0.8 * 0.125)
    assert cubic_sparsity(10, 10, 0.8) == cubic_sparsity(15, 10, 0.8) == 0.8
    assert cubic_sparsity(2, 4, 0.9, 0.5) == pytest.approx(0.9 - 0.4 / 8)
    gradual = MagnitudePruning(sparsity=0.8, schedule="gradual")
    path = [sparsity_at(gradual, step, 40) for step in range(40)]
    assert path == sorted(path)
    assert path[0] == 0.0
    assert path[29] < path[30] == path[-1] == 0.8
    iterative = MagnitudePruning(sparsity=0.8, schedule="iterative", steps=4)
    assert sorted({round(sparsity_at(iterative, step, 40), 6) for step in range(40)}) == [0.2, 0.4, 0.6, 0.8]


def test_masks_hold_while_it_trains() -> None:
    module = classifier()
    masks = magnitude_masks(module, 0.5, "global")
    masks.apply(module)
    before = [layer.weight.detach().clone() for layer in module[::2]]
    train(module, Training(epochs=2), blobs(64, 0), None, run=TrainingRun(after_step=masks.apply))
    for layer, old in zip(module[::2], before, strict=True):
        assert torch.equal(layer.weight == 0, old == 0)
        assert not torch.equal(layer.weight, old)


def test_the_report_counts_zeros_and_compressed_bytes() -> None:
    module = nn.Sequential(nn.Linear(64, 64))
    dense = sparsity_report(module)
    assert dense.sparsity == 0.0
    magnitude_masks(module, 0.9, "global").apply(module)
    sparse = sparsity_report(module)
    assert sparse.sparsity == pytest.approx(0.9, abs=1 / 4096)
    assert sparse.dense_bytes == 4096
    weights = module[0].weight.detach().numpy()
    packed = np.round(weights / np.abs(weights).max() * 127).astype(np.int8).tobytes()
    assert sparse.compressed_bytes == len(zlib.compress(packed, 9)) < 0.5 * dense.compressed_bytes
    assert "no faster" in sparse.effect


def test_nothing_to_prune_is_told() -> None:
    with pytest.raises(UsageError, match="no convolution"):
        magnitude_masks(nn.ReLU(), 0.5, "global")
