"""Rows and labels that a torch module can't learn from are refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.artifacts import TorchProgram
from edgekit.budget import Budget
from edgekit.compression import compress
from edgekit.data import DataSet, Part
from edgekit.errors import ModelError
from edgekit.optimization import optimize
from edgekit.training_data import check_classes, rows_as_input
from tests.compress.networks import blobs, classifier
from tests.optimization.boards import CountingBoard

EXAMPLE = (torch.zeros(1, 4),)


def _data(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], y: object = None) -> DataSet:
    labels = None if y is None else np.asarray(y, np.int64)
    return DataSet("rows.npz", "", {"all": Part((x,), labels)}, None, None)


def test_rows_without_their_dimensions_of_one_take_the_shape_of_the_input() -> None:
    x = np.random.default_rng(0).random((5, 8, 6), np.float32)
    shaped = rows_as_input(_data(x, [0, 1, 0, 1, 1]), torch.zeros(1, 1, 8, 6)).parts["all"]
    assert shaped.inputs[0].shape == (5, 1, 8, 6)
    assert np.array_equal(shaped.inputs[0][:, 0], x)
    assert shaped.y is not None


def test_rows_of_another_shape_are_refused_with_both_shapes() -> None:
    with pytest.raises(ModelError, match=r"a row of x is \(8, 6, 3\).*input is \(3, 8, 6\)") as refused:
        rows_as_input(_data(np.zeros((5, 8, 6, 3), np.float32)), torch.zeros(1, 3, 8, 6))
    assert "transpose" in str(refused.value.hint)


def test_a_label_beyond_the_classes_is_refused() -> None:
    x = np.zeros((3, 4), np.float32)
    check_classes(classifier(), EXAMPLE, _data(x, [0, 1, 2]))
    with pytest.raises(ModelError, match=r"y has class 3.* 3 classes"):
        check_classes(classifier(), EXAMPLE, _data(x, [0, 1, 3]))


class _Sequence(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), 2, -1)


@pytest.mark.parametrize("module", [nn.Linear(4, 1), _Sequence()])
def test_answers_that_are_no_classes_are_refused(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="one value for each of two or more classes"):
        check_classes(module, EXAMPLE, _data(np.zeros((3, 4), np.float32)))


RECIPE = "schema = 1\n[[step]]\nkind = 'channels'\nmultiple_of = 1\nimportance = 'l1'\n"


def test_a_regression_is_pruned_but_never_trained_or_searched(tmp_path: Path) -> None:
    """Agreement over a single answer is always whole, so that a search would prune all of it for nothing."""
    torch.manual_seed(0)
    regression = TorchProgram(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)), EXAMPLE, "level")
    np.savez(tmp_path / "rows.npz", x=blobs(40, 0).x)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    found = compress(regression, recipe=recipe, data=tmp_path / "rows.npz", directory=tmp_path / "small")
    assert "removed 4 of 8" in found.steps[0].effect
    recipe.write_text(RECIPE + "[[step]]\nkind = 'fine_tune'\nloss = 'distillation'\n")
    with pytest.raises(ModelError, match="classes"):
        compress(regression, recipe=recipe, data=tmp_path / "rows.npz", directory=tmp_path / "other")
    with pytest.raises(ModelError, match="classes"):
        optimize(
            regression,
            target="host",
            data=tmp_path / "rows.npz",
            budget=Budget(max_latency_us=1.0),
            directory=tmp_path / "out",
            stages=CountingBoard().stages(),
        )
    assert not (tmp_path / "out").exists()
