"""The example made from a finished file: the rebuilt network is the file's, and its rows stay apart."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgekit.data import read_data, row_digests
from edgekit.project import load_project
from tests.campaign import campaign_count
from tests.reference.litert import ReferenceModel

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "keyword_spotting"

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "safetensors")),
    reason="torch and safetensors are not installed (pip install 'edgekit[torch]')",
)


def _module(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLE / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def _run(command: list[str], folder: Path, timeout_s: float) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def data(data_dir: Path) -> Iterator[Path]:
    """The folder of the benchmark's files, where the example's scripts look for them."""
    for name in ("kws_ref_model.tflite", "kws01_600.npz"):
        if not (data_dir / name).is_file():
            pytest.skip(f"no {name} in {data_dir}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_KWS_DATA", str(data_dir))
        yield data_dir


@pytest.fixture(scope="module")
def weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file that `import_weights.py` writes, and what it prints."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    return path, _run([str(EXAMPLE / "import_weights.py"), "--output", str(path)], EXAMPLE, 300)


def test_the_rebuilt_network_answers_as_the_file_does(data: Path, weights: tuple[Path, str]) -> None:
    """Against LiteRT's reference kernels: probabilities as near as int8 lets them be."""
    import torch
    from safetensors.torch import load_file

    network = _module("ds_cnn").build().eval()
    network.load_state_dict(load_file(weights[0]))
    whole = np.load(data / "kws01_600.npz", allow_pickle=False)
    count = campaign_count(600, 100)
    model = ReferenceModel((data / "kws_ref_model.tflite").read_bytes())
    stored = np.concatenate([model.run([row])[0] for row in whole["x"][:count]])
    expected = (stored.astype(np.float32) + 128) / 256
    rows = _module("speech_commands").read_rows(data)
    with torch.no_grad():
        found = torch.softmax(network(torch.from_numpy(rows.x[:count])), -1).numpy()
    assert np.array_equal(rows.y, whole["y"])
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.97
    assert np.mean(np.abs(found - expected)) < 0.005


def test_the_import_says_how_far_the_two_agree(weights: tuple[Path, str]) -> None:
    printed = weights[1]
    accuracies = [
        float(value) for value in re.findall(r"^(?:torch float|TFLite int8) +([0-9.]+) ", printed, re.M)
    ]
    assert len(accuracies) == 2
    assert all(0.88 < accuracy < 0.92 for accuracy in accuracies)
    same = re.search(r"the same answer to ([0-9.]+) of the rows", printed)
    assert same is not None
    assert float(same[1]) >= 0.98


def test_rows_that_train_select_and_report_are_apart_and_of_all_classes(data: Path) -> None:
    parts = read_data("speech_commands:rows", folder=EXAMPLE).parts
    assert {name: part.count for name, part in parts.items()} == {"train": 400, "val": 100, "test": 100}
    digests = {name: row_digests(part.inputs) for name, part in parts.items()}
    whole = np.load(data / "kws01_600.npz", allow_pickle=False)
    everything = row_digests([(whole["x"].astype(np.float32) - 83) * whole["input_scale"]])
    assert len(everything) == 600
    assert digests["train"] | digests["val"] | digests["test"] == everything
    assert sum(len(one) for one in digests.values()) == 600
    classes = np.bincount(whole["y"], minlength=12)
    for name, share in (("train", 4 / 6), ("val", 1 / 6), ("test", 1 / 6)):
        y = parts[name].y
        assert y is not None
        assert np.abs(np.bincount(y, minlength=12) - classes * share).max() <= 3


def test_the_split_follows_from_the_seed() -> None:
    split = _module("speech_commands").split
    y = np.random.default_rng(0).integers(0, 12, 1000)
    one, again, other = split(y), split(y), split(y, seed=1)
    for part in ("fit", "select", "report"):
        assert np.array_equal(getattr(one, part), getattr(again, part))
    assert not np.array_equal(one.report, other.report)
    assert sorted(np.concatenate([one.fit, one.select, one.report])) == list(range(1000))


def test_the_augmentation_moves_each_row_and_follows_from_its_generator(data: Path) -> None:
    import torch

    speech = _module("speech_commands")
    x = torch.from_numpy(speech.read_rows(data).x[:32])
    before = x.clone()
    one, again = (speech.augment(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(x, before)
    assert one.shape == x.shape
    assert one.dtype == x.dtype

    def nearness(shift: int) -> torch.Tensor:
        """How like the second coefficient of each row is to the unchanged one's, moved by `shift` frames."""
        frames = slice(8 + shift, 41 + shift)
        return -(one[:, 0, frames, 1] - x[:, 0, 8:41, 1]).abs().mean(1)

    found = torch.stack([nearness(shift) for shift in range(-8, 9)]).argmax(0) - 8
    assert int(found.abs().max()) <= speech.MAX_SHIFT
    assert len(found.unique()) > 4


def test_the_benchmarks_files_are_packed_as_they_are(tmp_path: Path) -> None:
    speech = _module("speech_commands")
    rng = np.random.default_rng(0)
    stored = rng.integers(-128, 128, (3, 49, 10, 1), dtype=np.int8)
    names = ("tst_000000_Stop_7.bin", "tst_000001_Silence_10.bin", "tst_000002_Down_0.bin")
    for name, row in zip(names, stored, strict=True):
        (tmp_path / name).write_bytes(row.tobytes())
    (tmp_path / "y_labels.csv").write_text("tst_000000_Stop_7.bin,12,7\n")
    assert speech.pack(tmp_path, tmp_path / "data" / "kws01_600.npz") == 3
    rows = speech.read_rows(tmp_path / "data")
    assert list(rows.y) == [7, 10, 0]
    assert [rows.labels[label] for label in rows.y] == ["stop", "silence", "down"]
    np.testing.assert_allclose(rows.x[:, 0], (stored[..., 0].astype(np.float32) - 83) * 0.58470291, rtol=1e-6)
    (tmp_path / names[0]).write_bytes(bytes(489))
    with pytest.raises(ValueError, match=r"Stop_7\.bin is not 490 bytes"):
        speech.pack(tmp_path, tmp_path / "data" / "kws01_600.npz")


def test_the_settings_are_a_budget_short_of_a_search() -> None:
    project = load_project(EXAMPLE / "edgekit.toml")
    assert project.model is not None
    assert str(project.model_path) == "ds_cnn:build"
    assert project.data.path == "speech_commands:rows"
    assert project.optimize.augment == "speech_commands:augment"


@pytest.mark.campaign
@pytest.mark.emulator
def test_the_board_counts_less_than_a_share_of_its_own_int8_build(
    weights: tuple[Path, str], emulator: str, tmp_path: Path
) -> None:
    folder = tmp_path / "keyword_spotting"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build", "data", "__pycache__"))
    shutil.copy(weights[0], folder / "model.safetensors")
    command = ["-m", "edgekit", "optimize", "--target", emulator, "--max-instructions", "1800k", "--json"]
    found = json.loads(_run(command, folder, 7200))
    assert found["met"]
    assert found["winner"]["bit_exact"]
    assert found["baseline"]["cost"] >= 1.4 * found["winner"]["cost"]
    assert found["test"]["rows"] == 100
    drop = found["test"]["float"]
    assert drop["drop_low"] <= drop["drop"] <= drop["drop_high"]
    # Three standard deviations of a hundred paired rows, of which one in ten is answered otherwise.
    assert drop["drop"] < 10.0
