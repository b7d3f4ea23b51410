"""Finding targets: the order of folders, what is said about shadowing, and hostile files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.errors import TargetError
from edgekit.resources import targets_directory
from edgekit.target import list_targets, load_target, survey_targets
from edgekit.target.load import MAX_FILE_BYTES

HOST = (targets_directory() / "host.toml").read_text()


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and home, so that no file of the developer's takes part."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGEKIT_TARGETS", raising=False)
    return tmp_path


def _put(folder: Path, name: str, text: str = HOST) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text.replace('name = "host"', f'name = "{name}"'))
    return path


def test_the_shipped_targets_are_found() -> None:
    targets = list_targets()
    assert [target.name for target in targets] == [
        "host",
        "linux-aarch64",
        "linux-armv7",
        "linux-armv7-emulated",
        "mps2-an386",
        "mps2-an500",
        "mps2-an505",
        "nucleo-f446re",
        "rpi-zero2w",
        "rpi3",
        "rpi4",
        "rpi4-emulated",
        "rpi5",
        "rpi5-emulated",
    ]
    assert all(target.shadows is None for target in targets)
    assert load_target("host").source_path == targets_directory() / "host.toml"


def test_folders_are_searched_in_order(own_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _put(own_world / "home/.config/edgekit/targets", "mine")
    assert load_target("mine").source_path == config
    local = _put(own_world / "work/targets", "mine")
    found = load_target("mine").source_path
    assert found is not None
    assert found.samefile(local)
    named = _put(own_world / "named", "mine")
    monkeypatch.setenv("EDGEKIT_TARGETS", str(own_world / "named"))
    assert load_target("mine").source_path == named
    assert [target.name for target in list_targets()].count("mine") == 1


def test_a_target_that_shadows_a_shipped_one_says_so(own_world: Path) -> None:
    own = _put(own_world / "work/targets", "host")
    target = load_target("host")
    assert target.shadows == targets_directory() / "host.toml"
    assert target.source_path is not None
    assert target.source_path.samefile(own)


def test_the_shipped_folder_does_not_shadow_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(targets_directory().parent)
    assert load_target("host").shadows is None


def test_a_path_goes_before_names(own_world: Path) -> None:
    path = _put(own_world / "work", "board")
    assert load_target("board.toml").name == "board"
    assert load_target("./board.toml").name == "board"
    assert load_target(str(path)).source_path == path


def test_a_name_that_is_a_file_in_this_folder_is_told(own_world: Path) -> None:
    Path("mps2-an38.toml").write_text("schema = 1")
    with pytest.raises(TargetError, match="a file in this folder") as raised:
        load_target("mps2-an38")
    assert raised.value.hint is not None
    assert "--target mps2-an38.toml" in raised.value.hint


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(TargetError, match=r"no target called 'mps2-an368'; did you mean mps2-an386"):
        load_target("mps2-an368")


@pytest.mark.parametrize("name", ["", "..", "\x1b[31m", "a" * 9000, "host\n", "HOST", "ho\x00st"])
def test_odd_names_find_nothing(name: str) -> None:
    with pytest.raises(TargetError) as raised:
        load_target(name)
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 300


@pytest.mark.parametrize("path", ["./none.toml", "/nowhere/none.toml", "a\x00.toml", "x/" * 5000, "./"])
def test_paths_that_cannot_be_read(path: str) -> None:
    with pytest.raises(TargetError) as raised:
        load_target(path)
    assert raised.value.message.isprintable()


def test_a_file_has_the_name_that_it_states(own_world: Path) -> None:
    _put(own_world / "work/targets", "host").rename(own_world / "work/targets/other.toml")
    with pytest.raises(TargetError, match="host is not the file's own name"):
        load_target("other")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "schema is missing"),
        (b"\xff\xfe", "not UTF-8"),
        (b"schema = ", "not valid TOML"),
        (b"schema = 1\nschema = 1\n", "not valid TOML"),
        (b"x = " + b"[" * 7_000, "bad.toml: "),
        (b"x = " + b"[" * 7_000 + b"]" * 7_000, "nested too deeply"),
        (b"a" + b".a" * 7_000 + b" = 1", "bad.toml: "),
        (b"x = " + b"9" * 7_000, "bad.toml: "),
        (b"schema = nan", "schema: nan"),
        (b"schema = 1979-05-27T07:32:00Z", "schema: "),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than"),
        (b"\x00" * 100, "not valid TOML"),
        (b"[[schema]]\n" * 1000, "schema: "),
        (b'"\\u001b[31m" = 1', "unknown key \\x1b[31m"),
        ("\ufeffschema = 1".encode(), "not valid TOML"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_hostile_files_become_a_sentence(own_world: Path, content: bytes, said: str) -> None:
    path = own_world / "work" / "bad.toml"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(TargetError) as raised:
        load_target("./bad.toml")
    assert time.monotonic() - started < 2
    assert said in raised.value.message
    assert all(line.isprintable() for line in raised.value.message.splitlines())
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["host", "mps2-an386", "nucleo-f446re"])
def test_a_damaged_file_is_refused_or_still_sound(own_world: Path, name: str) -> None:
    original = (targets_directory() / f"{name}.toml").read_bytes()
    generator = random.Random(3)
    damaged = [original[:length] for length in range(0, len(original), 23)]
    for _ in range(150):
        flipped = bytearray(original)
        flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        damaged.append(bytes(flipped))
    path = own_world / "work" / "damaged.toml"
    said: list[str] = []
    for data in damaged:
        path.write_bytes(data)
        try:
            load_target("./damaged.toml")
        except TargetError as error:
            said.append(error.message)
    assert len(said) > len(damaged) // 2
    assert all(message.startswith("damaged.toml: ") for message in said)


def test_a_pipe_or_folder_in_a_files_place_does_not_hold_it_up(own_world: Path) -> None:
    os.mkfifo(own_world / "work" / "pipe.toml")
    (own_world / "work" / "folder.toml").mkdir()
    for name in ("./pipe.toml", "./folder.toml", "/dev/zero.toml", "/dev/zero"):
        with pytest.raises(TargetError):
            load_target(name)


def test_one_broken_file_does_not_hide_the_others(own_world: Path) -> None:
    folder = own_world / "work/targets"
    folder.mkdir()
    (folder / "broken.toml").write_text("schema = 2")
    surveyed = {file.path.stem: file for file in survey_targets()}
    assert surveyed["host"].target is not None
    assert surveyed["broken"].target is None
    assert "broken.toml" in str(surveyed["broken"].problem)
    with pytest.raises(TargetError, match="broken"):
        list_targets()
    assert load_target("host").name == "host"


def test_listing_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; from edgekit.target import list_targets;"
        "start = time.perf_counter(); list_targets();"
        "took = time.perf_counter() - start;"
        "print(took, [m for m in ('numpy', 'torch', 'tvm', 'jinja2') if m in sys.modules])"
    )
    times = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(targets_directory().parent)},
        )
        took, heavy = done.stdout.split(" ", 1)
        times.append(float(took))
        assert heavy.strip() == "[]"
    assert min(times) < 0.05
