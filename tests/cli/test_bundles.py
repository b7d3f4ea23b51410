"""compile, flash, run, profile and report on this machine: what each prints, and the document of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Run = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bundle(run: Run, data_dir: Path) -> str:
    result = run(
        "compile", str(data_dir / "kws_ref_model.tflite"), "--target", "host", "-o", "out", "--json", "-q"
    )
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["schema"] == "edgekit.compile/1"
    assert values["model"]["macs"] == 2_656_768
    assert values["artifacts"]["directory"] == "out"
    assert not {"verify", "accuracy", "profile"} & set(values)
    return "out"


def test_flash_asks_the_board_which_image_it_runs(run: Run, bundle: str) -> None:
    result = run("flash", bundle, "--json", "-q")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["schema"] == "edgekit.flash/1"


def test_run_writes_stored_values_or_reals(run: Run, bundle: str, data_dir: Path) -> None:
    with np.load(data_dir / "kws01_600.npz", allow_pickle=False) as file:
        rows, labels = file["x"][:6], file["y"][:6]
    np.save("x.npy", rows)
    result = run("run", bundle, "--input", "x.npy", "--output", "y.npy", "--json", "-q")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["outputs"][0]["shape"] == [6, 1, 12]
    stored = np.load("y.npy")
    assert stored.dtype == np.int8
    assert (np.argmax(stored[:, 0], axis=1) == labels).mean() > 0.5
    result = run("run", bundle, "--input", "x.npy", "--output", "real.npy", "--dequantize", "-q")
    assert result.exit_code == 0
    reals = np.load("real.npy")
    assert reals.dtype == np.float32
    assert np.allclose(reals.sum(axis=2), 1.0, atol=0.05)


def test_run_refuses_what_does_not_fit(run: Run, bundle: str) -> None:
    np.save("x.npy", np.zeros((2, 7), np.int8))
    assert run("run", bundle, "--input", "x.npy", "--output", "y.npy").exit_code == 3
    np.save("x.npy", np.zeros((2, 49, 10, 1), np.uint8))
    assert run("run", bundle, "--input", "x.npy", "--output", "y.npy").exit_code == 3
    result = run("run", bundle, "--input", "x.npy", "--output", "y.npy", "--output", "z.npy")
    assert result.exit_code == 2
    assert "1 output(s)" in result.stderr
    np.save("x.npy", np.zeros((2, 49, 10, 1), np.int8))
    assert run("run", bundle, "--input", "x.npy", "--output", "no/such/folder/y.npy").exit_code == 2


def test_profile_of_a_bundle_and_of_a_model(run: Run, bundle: str, data_dir: Path) -> None:
    result = run("profile", bundle, "--json", "-q")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["schema"] == "edgekit.profile/1"
    assert values["profile"]["unit"] == "us"
    assert values["profile"]["p10"] <= values["profile"]["p50"] <= values["profile"]["p90"]
    result = run("profile", bundle, "--target", "mps2-an386")
    assert result.exit_code == 2
    assert "the bundle is for host" in result.stderr
    result = run("profile", str(data_dir / "kws_ref_model.tflite"), "--target", "host", "--runs", "3", "-q")
    assert result.exit_code == 0
    assert "µs a run" in result.stdout


def test_report_is_of_the_image_beside_it_only(run: Run, data_dir: Path) -> None:
    model = str(data_dir / "kws_ref_model.tflite")
    result = run("report")
    assert result.exit_code == 2
    assert "edgekit deploy" in result.stderr
    assert run("deploy", model, "--target", "host", "--samples", "2", "-q").exit_code == 0
    folder = Path("build/kws_ref_model-host")
    written = (folder / "deploy.json").read_bytes()
    (folder / "report.html").unlink()
    values = json.loads(run("report", "--json", "-q").stdout)
    assert values == json.loads(written)
    assert (folder / "report.html").stat().st_size > 1000
    changed = json.loads(written)
    changed["memory"]["flash_bytes"] += 1
    (folder / "deploy.json").write_text(json.dumps(changed))
    result = run("report", str(folder))
    assert result.exit_code == 3
    assert "another image" in result.stderr
    (folder / "deploy.json").write_text("{}")
    assert run("report", str(folder)).exit_code == 3


def test_analyze_lists_what_runs_how(run: Run, data_dir: Path) -> None:
    result = run("analyze", str(data_dir / "kws_ref_model.tflite"), "--target", "mps2-an386", "--json", "-q")
    assert result.exit_code == 0
    values = json.loads(result.stdout)
    assert values["schema"] == "edgekit.analyze/1"
    assert values["macs"] == 2_656_768
    kinds = [operator["op"] for operator in values["operators"]]
    assert kinds.count("depthwise_conv2d") == 4
    assert all(operator["form"] == "integer" for operator in values["operators"])
    assert not Path("build").exists()
    table = run("analyze", str(data_dir / "kws_ref_model.tflite"), "-q").stdout
    assert "2,656,768 MACs" in table
    assert "1×25×5×64" in table
    assert values["forms"] == {"integer": 12, "float": 0, "refused": 0}
    assert values["memory"]["ram_limit"] == 4 << 20
    assert "89.1%" in table  # the share of conv2d
    assert max(map(len, table.splitlines())) <= 110


@pytest.mark.parametrize("width", [40, 64, 80, 200])
def test_the_table_of_operators_is_as_wide_as_the_terminal(data_dir: Path, width: int) -> None:
    from rich.console import Console

    from edgekit.cli.analysis_table import analysis_table
    from edgekit.pipeline import analyze

    found = analyze(data_dir / "kws_ref_model.tflite", target="nucleo-f446re")
    console = Console(width=width, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(analysis_table(found, width))
    lines = capture.get().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("2,656,768" in line for line in lines)  # the total is never cut
    # Each operator has its line; the sentence on the arena's peak, wrapped, may begin with a number too.
    numbered = [line.split()[0] for line in lines if line.split() and line.split()[0].isdigit()]
    assert {int(one) for one in numbered} >= set(range(12))


def test_analyze_says_what_does_not_fit(run: Run, data_dir: Path) -> None:
    board = (ROOT / "targets" / "nucleo-f446re.toml").read_text().replace('"128KiB"', '"8KiB"')
    Path("small.toml").write_text(board.replace('name = "nucleo-f446re"', 'name = "small"'))
    model = str(data_dir / "kws_ref_model.tflite")
    result = run("analyze", model, "--target", "./small.toml", "--json", "-q")
    assert result.exit_code == 5, result.output
    memory = json.loads(result.stdout)["memory"]
    assert memory["arena_bytes"] > memory["ram_limit"] == 8 << 10
    assert "does not fit" in result.stderr


def test_analyze_compares_layers_with_the_float_model(run: Run, data_dir: Path) -> None:
    example = ROOT / "examples" / "fashion_mnist"
    arguments = (
        "analyze", str(example / "model.onnx"), "--calibration", str(example / "calibration.npz"),
        "--data", str(example / "sample.npz"), "--rows", "4",
    )  # fmt: skip
    result = run(*arguments, "--report", "layers.html", "--json", "-q")
    assert result.exit_code == 0, result.output
    comparison = json.loads(result.stdout)["comparison"]
    assert comparison["rows"] == 4
    assert comparison["reference"] == "source"
    assert [layer["operator"] for layer in comparison["layers"]] == list(range(13))
    assert all(15 < layer["sqnr_db"] < 60 for layer in comparison["layers"])
    assert (
        comparison["worst"][0] == min(comparison["layers"], key=lambda layer: layer["alone_db"])["operator"]
    )
    page = Path("layers.html").read_text()
    assert page.count("<circle") == 26
    table = run(*arguments).stdout
    assert "SQNR" in table
    assert "fine-tune with quantisation" in table
    assert max(map(len, table.splitlines())) <= 110


def test_analyze_without_data_compares_nothing(run: Run, data_dir: Path) -> None:
    result = run("analyze", str(data_dir / "kws_ref_model.tflite"), "--json", "-q")
    assert json.loads(result.stdout)["comparison"] is None
