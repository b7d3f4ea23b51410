"""The shipped example: its files belong together, its training runs, and int8 keeps the accuracy."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgekit.data import read_data, row_digests
from edgekit.project import load_project
from tests.campaign import campaign_count

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fashion_mnist"
SHIPPED = (
    "model.onnx",
    "model.safetensors",
    "calibration.npz",
    "sample.npz",
    "training.json",
    "edgekit.toml",
)

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "safetensors")),
    reason="torch and safetensors are not installed (pip install 'edgekit[torch]')",
)
needs_images = pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz").is_file(),
    reason="the Debian package dataset-fashion-mnist is not installed",
)


def _script(name: str, *arguments: str, timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_files_are_shipped_and_small() -> None:
    sizes = {name: (EXAMPLE / name).stat().st_size for name in SHIPPED}
    assert sizes["model.onnx"] + sizes["model.safetensors"] < 300_000
    assert sizes["sample.npz"] < 250_000
    assert sizes["calibration.npz"] < 250_000


def test_sample_is_what_the_readme_says() -> None:
    sample = np.load(EXAMPLE / "sample.npz", allow_pickle=False)
    assert sample["x"].shape == (256, 1, 28, 28)
    assert sample["x"].dtype == np.float32
    pixels = sample["x"] * np.float32(255)
    assert np.array_equal(np.round(pixels).astype(np.uint8) / np.float32(255), sample["x"])
    assert set(np.bincount(sample["y"], minlength=10)) == {25, 26}
    assert len(sample["labels"]) == 10


@needs_torch
@needs_images
def test_the_loader_gives_the_rows_that_trained_and_those_that_were_held_out() -> None:
    data = read_data("dataset:rows", folder=EXAMPLE)
    counts = {name: part.count for name, part in data.parts.items()}
    assert counts == {"train": 55_000, "val": 5_000, "test": 10_000}
    calibration = np.load(EXAMPLE / "calibration.npz", allow_pickle=False)["x"]
    trained = row_digests(data.parts["train"].inputs)
    calibrated = row_digests([calibration])
    assert calibrated <= trained
    assert not calibrated & row_digests(data.parts["val"].inputs)


def test_the_settings_are_a_budget_short_of_a_search() -> None:
    project = load_project(EXAMPLE / "edgekit.toml")
    assert project.model is not None
    assert str(project.model_path) == "model:build"
    assert project.resolve(project.model.weights or "").is_file()
    assert project.optimize.data == "dataset:rows"
    assert project.optimize.augment == "train:augment"
    assert project.optimize.max_drop == 1.5


def _logits(
    images: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    session = onnxruntime.InferenceSession(str(EXAMPLE / "model.onnx"), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def test_float_model_is_as_good_as_it_says_on_the_sample() -> None:
    sample = np.load(EXAMPLE / "sample.npz", allow_pickle=False)
    accuracy = float(np.mean(_logits(sample["x"]).argmax(1) == sample["y"]))
    stated = json.loads((EXAMPLE / "training.json").read_text())["test_accuracy"]
    # Three standard deviations of a sample of 256.
    assert abs(accuracy - stated) < 3 * (stated * (1 - stated) / 256) ** 0.5


@needs_torch
def test_onnx_and_weights_are_the_same_network() -> None:
    import torch
    from safetensors.torch import load_file

    specification = importlib.util.spec_from_file_location("example_model", EXAMPLE / "model.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    network = module.build()
    network.load_state_dict(load_file(EXAMPLE / "model.safetensors"))
    images = np.load(EXAMPLE / "sample.npz", allow_pickle=False)["x"][:32]
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(_logits(images), expected, rtol=1e-4, atol=1e-4)


@needs_torch
@needs_images
def test_training_learns_and_exports(tmp_path: Path) -> None:
    printed = _script("train.py", "--rows", "6000", "--epochs", "2", "--output", str(tmp_path), timeout_s=300)
    found = re.search(r"test accuracy ([0-9.]+)", printed)
    assert found is not None
    assert float(found.group(1)) > 0.5
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(spec.name, spec.shape) for spec in session.get_inputs()] == [("image", [1, 1, 28, 28])]
    assert [(spec.name, spec.shape) for spec in session.get_outputs()] == [("logits", [1, 10])]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(set(SHIPPED) - {"edgekit.toml"})


@needs_images
@pytest.mark.emulator
def test_int8_keeps_the_accuracy_and_the_board_agrees(emulator: str, tmp_path: Path) -> None:
    rows = campaign_count(256, 32)
    printed = _script(
        "evaluate.py", "--board", emulator, "--samples", str(rows), "--build", str(tmp_path), timeout_s=500
    )
    accuracies = {
        kind: float(value) for kind, value in re.findall(r"^(float32|int8) +([0-9.]+) ", printed, re.M)
    }
    stated = json.loads((EXAMPLE / "training.json").read_text())["test_accuracy"]
    assert accuracies["float32"] == pytest.approx(stated, abs=0.0005)
    assert accuracies["int8"] >= accuracies["float32"] - 0.01
    assert f"the answers to {rows} images equal the host's to the bit" in printed
