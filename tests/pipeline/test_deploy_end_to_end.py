"""The whole command on real models: this machine and an emulated Cortex-M4, LiteRT's reference kernels as
the judge.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.pipeline import compile_bundle, run_bundle
from edgekit.report.document import read_document
from edgekit.target import load_target
from tests.reference.litert import ReferenceModel


def edgekit(
    folder: Path, *arguments: str, timeout: float = 240, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *arguments],
        cwd=folder,
        env={**_environment(), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def reference_answers(model: Path, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, *output shape) of LiteRT's reference kernels."""
    oracle = ReferenceModel(model.read_bytes())
    return np.stack([oracle.run([row])[0] for row in rows])


@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet_quant"])
def test_the_host_program_equals_the_reference_kernels(data_dir: Path, tmp_path: Path, name: str) -> None:
    model = data_dir / f"{name}.tflite"
    compile_bundle(model, target="host", directory=tmp_path / "bundle")
    if name == "kws_ref_model":
        with np.load(data_dir / "kws01_600.npz", allow_pickle=False) as file:
            rows = file["x"]
    else:
        rows = np.random.default_rng(0).integers(-128, 128, (64, 32, 32, 3)).astype(np.int8)
    (answers,) = run_bundle(tmp_path / "bundle", [rows])
    expected = reference_answers(model, rows)
    assert answers.shape == expected.shape
    assert np.array_equal(answers, expected)


@pytest.mark.emulator
def test_keyword_spotting_on_the_emulated_cortex_m4(data_dir: Path, tmp_path: Path, emulator: str) -> None:
    model, data = data_dir / "kws_ref_model.tflite", data_dir / "kws01_600.npz"
    result = edgekit(
        tmp_path, "deploy", str(model), "--target", emulator, "--data", str(data), "--json", "--quiet"
    )
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["verify"]["mode"] == "exact"
    assert values["verify"]["bit_exact"] is True
    assert values["verify"]["samples"] == 600
    assert values["accuracy"]["samples"] == 600
    assert values["accuracy"]["value"] == pytest.approx(0.8983, abs=5e-5)
    assert values["accuracy"]["measured_on"] == "device"
    profile = values["profile"]
    assert profile["unit"] == "instructions"
    assert profile["p90"] - profile["p10"] <= 0.001 * profile["p50"]
    assert sum(operator["p50"] for operator in profile["operators"]) == pytest.approx(
        profile["p50"], rel=0.02
    )
    assert profile["p50"] <= 16_000_000
    assert values["memory"]["ram_bytes"] <= 40_960
    assert values["memory"]["flash_bytes"] <= 112_640
    folder = tmp_path / values["artifacts"]["directory"]
    assert json.loads((folder / "deploy.json").read_text()) == values
    page = (folder / "report.html").read_text()
    assert f"{profile['p50']:,}" in page
    assert "://" not in page
    again = edgekit(tmp_path, "profile", str(folder), "--json", "--quiet")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["profile"]["p50"] == pytest.approx(profile["p50"], rel=0.001)


@pytest.mark.emulator
def test_image_classification_on_the_emulated_cortex_m4(
    data_dir: Path, tmp_path: Path, emulator: str
) -> None:
    model = data_dir / "pretrainedResnet_quant.tflite"
    result = edgekit(
        tmp_path, "deploy", str(model), "--target", emulator, "--samples", "16", "--json", "--quiet"
    )
    assert result.returncode == 0, result.stderr
    verify = json.loads(result.stdout)["verify"]
    assert (verify["bit_exact"], verify["samples"]) == (True, 16)


@pytest.mark.emulator
def test_a_folder_with_an_edgekit_toml_needs_the_target_only(
    data_dir: Path, tmp_path: Path, emulator: str
) -> None:
    (tmp_path / "kws.tflite").write_bytes((data_dir / "kws_ref_model.tflite").read_bytes())
    (tmp_path / "rows.npz").write_bytes((data_dir / "kws01_600.npz").read_bytes())
    assert edgekit(tmp_path, "init").returncode == 0
    result = edgekit(tmp_path, "deploy", "--target", emulator, "--samples", "8", "--runs", "1")
    assert result.returncode == 0, result.stderr
    assert "8 of 8 rows equal the host reference bit for bit" in result.stdout
    assert "verify" in result.stderr
    document = read_document(tmp_path / "build" / "kws-mps2-an386" / "deploy.json")
    report = edgekit(tmp_path, "report")
    assert report.returncode == 0
    assert report.stdout == result.stdout
    assert document.accuracy is not None
    assert document.accuracy.samples == 8


@pytest.mark.emulator
def test_a_budget_that_is_missed_exits_8_with_the_document(
    data_dir: Path, tmp_path: Path, emulator: str
) -> None:
    result = edgekit(
        tmp_path,
        "deploy",
        str(data_dir / "kws_ref_model.tflite"),
        "--target",
        emulator,
        "--samples",
        "1",
        "--runs",
        "1",
        "--max-instructions",
        "100k",
        "--json",
    )
    assert result.returncode == 8
    assert json.loads(result.stdout)["verify"]["passed"] is True
    assert "instructions" in result.stderr


@pytest.mark.emulator
def test_a_board_that_is_too_small_exits_5_before_it_is_flashed(
    data_dir: Path, tmp_path: Path, emulator: str
) -> None:
    shipped = load_target(emulator).source_path
    assert shipped is not None
    own = shipped.read_text().replace('"4MiB"', '"12KiB"').replace(f'name = "{emulator}"', 'name = "tiny"')
    (tmp_path / "tiny.toml").write_text(own)
    result = edgekit(tmp_path, "deploy", str(data_dir / "kws_ref_model.tflite"), "--target", "./tiny.toml")
    assert result.returncode == 5
    for words in ("flash needs", "ram needs", "peak at", "largest operators"):
        assert words in result.stderr
    assert not list(tmp_path.glob("build/*"))


@pytest.mark.emulator
def test_a_missing_emulator_exits_9_with_the_command_that_installs_it(
    data_dir: Path, tmp_path: Path, emulator: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in Path("/usr/bin").glob("arm-none-eabi-*"):
        (folder / tool.name).symlink_to(tool)
    for name in ("gcc", "ar", "as", "ld"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    result = edgekit(
        tmp_path,
        "deploy",
        str(data_dir / "kws_ref_model.tflite"),
        "--target",
        emulator,
        environment={"PATH": str(folder)},
    )
    assert result.returncode == 9
    assert "hint: sudo apt-get install" in result.stderr
    assert "qemu-system-arm" in result.stderr


def test_a_float_tflite_asks_for_rows_and_runs_in_float_without(data_dir: Path, tmp_path: Path) -> None:
    model = str(data_dir / "pretrainedResnet.tflite")
    refused = edgekit(tmp_path, "deploy", model, "--target", "host", "--json")
    assert refused.returncode == 2
    assert "--calibration" in json.loads(refused.stdout)["error"]["hint"]
    assert not (tmp_path / "build").exists()
    result = edgekit(
        tmp_path, "deploy", model, "--target", "host", "--precision", "float32", "--samples", "2", "--json"
    )
    assert result.returncode == 0, result.stderr
    verified = json.loads(result.stdout)["verify"]
    assert (verified["mode"], verified["passed"]) == ("tolerance", True)


@pytest.mark.emulator
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_deployment_leaves_no_process(
    data_dir: Path, tmp_path: Path, emulator: str, stop: signal.Signals
) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgekit",
            "deploy",
            str(data_dir / "kws_ref_model.tflite"),
            "--target",
            emulator,
            "--data",
            str(data_dir / "kws01_600.npz"),
        ],
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    image = str(tmp_path / "build" / "kws_ref_model-mps2-an386" / "firmware.elf")
    try:
        deadline = time.monotonic() + 120
        while not _processes_with(image):
            assert process.poll() is None, "it ended before it was interrupted"
            assert time.monotonic() < deadline, "the emulator never started"
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(stop)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait(timeout=30)
    assert process.returncode == 130
    assert stderr.rstrip().endswith("interrupted")
    assert "Traceback" not in stderr
    assert _processes_with(str(tmp_path)) == []


def _processes_with(word: str) -> list[str]:
    """Command lines of running processes that name `word`, but for the deployment itself."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().split(b"\0")
        except OSError:  # it ended in this moment
            continue
        if any(word.encode() in argument for argument in arguments) and b"edgekit" not in arguments:
            found.append(str(arguments))
    return found
