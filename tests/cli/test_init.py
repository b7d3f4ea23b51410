"""`edgekit init` writes a file that edgekit itself reads, and never over one that is there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from edgekit.project import load_project

Run = Callable[..., Result]


def test_it_finds_the_model_and_the_data_of_the_folder(run: Run) -> None:
    Path("kws.tflite").write_bytes(b"model")
    Path("rows.npz").write_bytes(b"rows")
    result = run("init")
    assert result.exit_code == 0
    project = load_project(Path("edgekit.toml"))
    assert project.target == "mps2-an386"
    assert project.model_path == Path("kws.tflite")
    assert project.data.path == "rows.npz"


def test_it_refuses_to_overwrite(run: Run) -> None:
    Path("edgekit.toml").write_text("mine")
    result = run("init", "--json")
    assert result.exit_code == 2
    assert "already" in result.stderr
    assert Path("edgekit.toml").read_text() == "mine"
    assert json.loads(result.stdout)["error"]["exit_code"] == 2


def test_every_commented_key_is_one_that_edgekit_reads(run: Run) -> None:
    assert run("init", "a.tflite", "--target", "host").exit_code == 0
    lines = [
        re.sub(r"^# (?=[\[a-z])", "", line)
        for line in Path("edgekit.toml").read_text().splitlines()
        if not line.startswith("# What")
    ]
    Path("edgekit.toml").write_text("\n".join(lines))
    project = load_project(Path("edgekit.toml"))
    assert project.budget.max_ram == "40KiB"
    assert project.model is not None
    assert project.model.shapes == {"input": [1, 49, 10, 1]}
    assert project.boards == {"nucleo-f446re": "serial:/dev/ttyACM0"}


def test_a_hostile_file_name_stays_a_string(run: Run) -> None:
    name = 'a"]\n[data]\npath = "x.tflite'
    assert run("init", name).exit_code == 0
    project = load_project(Path("edgekit.toml"))
    assert project.model is not None
    assert project.model.path == name
    assert project.data.path is None
