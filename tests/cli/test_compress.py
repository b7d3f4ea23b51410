"""`edgekit compress` as a user types it, and the folder deployed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run, document
from tests.compress.networks import blobs

FACTORY = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    layers = nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    return nn.Sequential(*layers), (torch.zeros(1, 4),)
"""

RECIPE = """
schema = 1
[training]
epochs = 4
batch_size = 32
learning_rate = 2e-2
[[step]]
kind = "fine_tune"
[[step]]
kind = "channels"
keep = 0.5
[[step]]
kind = "quantize"
method = "qat"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a factory, a recipe and data."""
    (tmp_path / "three_clouds.py").write_text(FACTORY)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    train, validation, test = blobs(300, 0), blobs(100, 1), blobs(100, 2)
    np.savez(
        tmp_path / "rows.npz",
        x_train=train.x,
        y_train=train.y,
        x_val=validation.x,
        y_val=validation.y,
        x_test=test.x,
        y_test=test.y,
    )
    importlib.invalidate_caches()
    sys.modules.pop("three_clouds", None)
    return tmp_path


def _compress(run: Run, *more: str, model: str = "three_clouds:network") -> dict[str, object]:
    result = run("compress", model, "--recipe", "recipe.toml", "--data", "rows.npz", "--json", "-q", *more)
    assert result.exit_code == 0, result.stderr
    return document(result)


def test_a_recipe_makes_a_folder_that_deploys(run: Run, project: Path) -> None:
    found = _compress(run, "-o", "small")
    assert (found["schema"], found["model"]) == ("edgekit.compress/1", "three_clouds_network")
    steps = found["steps"]
    assert isinstance(steps, list)
    assert [step["kind"] for step in steps] == ["fine_tune", "channels", "quantize"]
    assert steps[1]["parameters_after"] < 0.6 * steps[1]["parameters_before"]
    assert steps[2]["accuracy_after"] > 0.9
    folder = project / "small"
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.jsonl",
        "model.onnx",
        "recipe.toml",
        "report.json",
        "weights.safetensors",
    ]
    result = run("deploy", "small", "--target", "host", "--data", "rows.npz", "--json", "-q")
    assert result.exit_code == 0, result.stderr
    deployed = document(result)
    assert deployed["model"]["name"] == "small"
    assert deployed["verify"]["bit_exact"]
    # int8 from QAT: no calibration was asked for, and the test rows say what the validation rows said
    assert deployed["accuracy"]["samples"] == 100
    assert deployed["accuracy"]["value"] > 0.9


def test_what_is_wrong_is_told_before_training(run: Run, project: Path) -> None:
    (project / "recipe.toml").write_text("schema=1\n[[step]]\nkind='channels'\nkeep_by_group={'9'=0.5}")
    result = run("compress", "three_clouds:network", "-r", "recipe.toml", "--data", "rows.npz", "-o", "small")
    assert result.exit_code == 2
    assert "'9'" in result.stderr or "9 is not" in result.stderr
    assert not (project / "small" / "model.onnx").exists()
    (project / "model.onnx").write_bytes(b"")
    result = run("compress", "model.onnx", "-r", "recipe.toml", "--data", "rows.npz")
    assert result.exit_code == 3
    assert "nothing to train" in result.stderr
    assert run("compress", "three_clouds:network", "--data", "rows.npz").exit_code == 2


def test_the_work_of_another_recipe_is_not_taken_up(run: Run, project: Path) -> None:
    work = project / "small" / ".work"
    work.mkdir(parents=True)
    (work / "identity.json").write_text('{"schema": "edgekit.work/1", "sha256": "0"}')
    result = run("compress", "three_clouds:network", "-r", "recipe.toml", "--data", "rows.npz", "-o", "small")
    assert result.exit_code == 2
    assert "another recipe" in result.stderr
