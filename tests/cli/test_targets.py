"""`edgekit targets`: lists, shows and checks, and leaves a wrong file of one's own out with a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def test_the_list_names_all_and_says_which_are_emulated(run: Run) -> None:
    result = run("targets", "list")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert {"host", "mps2-an386", "nucleo-f446re"} <= set(lines)
    assert "emulated" in lines["mps2-an386"]
    assert "emulated" not in lines["nucleo-f446re"]


def test_the_list_as_a_document(run: Run) -> None:
    values = json.loads(run("targets", "list", "--json").stdout)
    assert values["schema"] == "edgekit.targets/1"
    by_name = {target["name"]: target for target in values["targets"]}
    assert by_name["mps2-an386"]["unit"] == "instructions"
    assert by_name["nucleo-f446re"]["unit"] == "cycles"


def test_show_and_its_document(run: Run) -> None:
    result = run("targets", "show", "mps2-an386")
    assert result.exit_code == 0
    assert "instructions, from fpgaio at 25,000,000 Hz" in result.stdout
    values = json.loads(run("targets", "show", "mps2-an386", "--json").stdout)
    assert values["target"]["name"] == "mps2-an386"


def test_check_of_a_file(run: Run, tmp_path: Path) -> None:
    good = Path(json.loads(run("targets", "show", "mps2-an386", "--json").stdout)["path"]).read_text()
    own = tmp_path / "own.toml"
    own.write_text(good.replace("mps2-an386", "mine", 1))
    assert run("targets", "check", "./own.toml").exit_code == 0
    own.write_text(good.replace("schedules", "schedule", 1))
    result = run("targets", "check", "./own.toml")
    assert result.exit_code == 2
    assert "schedules" in result.stderr


def test_a_wrong_file_of_ones_own_hides_no_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "boards"
    folder.mkdir()
    (folder / "broken.toml").write_text("schema = [\n")
    monkeypatch.setenv("EDGEKIT_TARGETS", str(folder))
    result = run("targets", "list")
    assert result.exit_code == 0
    assert "mps2-an386" in result.stdout
    assert "broken.toml" in result.stderr
    assert len(json.loads(run("targets", "list", "--json").stdout)["wrong"]) == 1
