"""edgekit.toml: strict keys, paths relative to the file, sentences for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.budget import Budget
from edgekit.errors import UsageError
from edgekit.project import find_project, load_project

GOOD = """
schema = 1
target = "mps2-an386"
[model]
path = "models/kws.tflite"
[model.shapes]
input = [1, 49, 10, 1]
[data]
path = "rows.npz"
samples = 64
[boards]
nucleo-f446re = "serial:/dev/ttyACM0"
[budget]
max_instructions = "16M"
max_flash = "110KiB"
max_ram = 40_960
max_latency = "20ms"
[profile]
runs = 3
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "edgekit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_without_the_file_is_no_project(tmp_path: Path) -> None:
    assert find_project(tmp_path) is None


def test_values_are_typed_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, GOOD))
    assert project.model_path == tmp_path / "models" / "kws.tflite"
    assert project.target == "mps2-an386"
    assert project.model is not None
    assert project.model.shapes == {"input": [1, 49, 10, 1]}
    assert project.budget.limits() == Budget(16_000_000, 20_000.0, 112_640, 40_960)
    assert project.boards["nucleo-f446re"] == "serial:/dev/ttyACM0"
    assert project.build.directory == "build"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("schema = 1\ntraget = 'host'\n", r"unknown key `traget`. Did you mean \"target\"\?"),
        ("schema = 1\n[model]\npath = 'a'\nshape = 3\n", r"`model.shape`. Did you mean \"shapes\"\?"),
        ("schema = 2\n", "`schema`"),
        ("target = 'host'\n", "no `schema`"),
        ("schema = 1\n[model]\nname = 'a'\n", "`model.path`"),
        ("schema = 1\n[data]\nsamples = 0\n", "`data.samples`"),
        ("schema = 1\n[data]\nsamples = '12'\n", "`data.samples`"),
        ("schema = 1\n[budget]\nmax_ram = 'lots'\n", "not an amount"),
        ("schema = 1\n[budget]\nmax_latency = '20'\n", "20ms, 350us"),
        ("schema = \n", "not valid TOML"),
        ("schema = 1\n[model.shapes]\nx = [1, -3]\n", "model.shapes.x.1"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as raised:
        load_project(write(tmp_path, text))
    assert "edgekit.toml" in raised.value.message


def test_escape_characters_in_a_key_are_shown_not_sent(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load_project(write(tmp_path, 'schema = 1\n"\\u001b[2J" = 3\n'))
    assert "\x1b" not in raised.value.message
    assert "\\x1b[2J" in raised.value.message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "edgekit.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_project(tmp_path / "edgekit.toml")
