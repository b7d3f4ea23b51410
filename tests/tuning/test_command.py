"""`edgekit tune` and `--tune` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import edgekit.pipeline
from edgekit.cli.app import app
from edgekit.tuning import TunedOperator, Tuning, VariantCost
from tests.tuning.models import small_network

Run = Callable[..., Result]

FOUND = Tuning(
    target="mps2-an386",
    unit="instructions",
    core="cortex-m4",
    own_core="cortex-m7",
    operators=(
        TunedOperator(
            "first[bold]",
            "conv2d",
            "x.slow",
            "x.fast",
            (VariantCost("x.slow", 900.0, 2000), VariantCost("x.fast", 1000.0, 1500)),
        ),
        TunedOperator(
            "second",
            "conv2d",
            "x.slow",
            "x.fast",
            (VariantCost("x.slow", 900.0, 2000), VariantCost("x.fast", 1000.0, 1500)),
        ),
        TunedOperator("last", "softmax", "x.softmax", "x.softmax", ()),
    ),
    choices=((4, "x.fast"),),
    measured=2,
    images=1,
    file=Path("costs.json"),
    limited=False,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    (tmp_path / "small.tflite").write_bytes(small_network())

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="edgekit")

    return invoke


def _scripted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def tune(model: Path, **arguments: Any) -> Tuning:
        asked.append(arguments)
        return FOUND

    monkeypatch.setattr(edgekit.pipeline, "tune", tune)
    return asked


def test_the_table_shows_counts_the_model_and_the_choice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _scripted(monkeypatch)
    result = run("tune", "small.tflite", "--target", "mps2-an386", "--prefer", "size")
    assert result.exit_code == 0
    assert asked[0]["compile_options"].prefer == "size"
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["0,", "1", "conv2d", "x.slow", "900", "2,000", "default"] in lines
    assert ["x.fast", "1,000", "1,500", "chosen", "25.0%"] in lines
    assert ["#", "operator", "variant", "instructions", "model", "cycles", "saving"] in lines
    assert "softmax" not in result.stdout
    assert "model of cycles" in result.stdout
    assert "cortex-m4 (none is documented of the cortex-m7): 4,000 before, 3,000 after" in " ".join(
        result.stdout.split()
    )


def test_the_document(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _scripted(monkeypatch)
    result = run("tune", "small.tflite", "--target", "mps2-an386", "--json")
    found = json.loads(result.stdout)
    assert found["schema"] == "edgekit.tune/1"
    assert (found["model_core"], found["measured"], found["limited"]) == ("cortex-m4", 2, False)
    assert found["operators"][0]["chosen"] == "x.fast"
    assert found["operators"][0]["variants"][1] == {"name": "x.fast", "cost": 1000.0, "model_cycles": 1500}
    assert found["operators"][2]["variants"] == []


def test_a_target_with_one_schedule_has_nothing_to_choose(run: Run) -> None:
    result = run("tune", "small.tflite", "--target", "host")
    assert result.exit_code == 0
    assert "nothing to choose" in result.stdout


def test_c_has_nothing_to_tune(run: Run) -> None:
    result = run("compile", "small.tflite", "--emit", "c", "--tune")
    assert result.exit_code == 2
    assert "portable schedule" in result.output
