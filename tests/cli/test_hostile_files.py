"""Damaged and hostile model, data, target and bundle files: a sentence, exit 2 or 3, and nothing left
behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Run = Callable[..., Result]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(result: Result, codes: tuple[int, ...]) -> None:
    assert result.exit_code in codes, result.output
    assert "Traceback" not in result.output
    assert "bug" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert "\x1b" not in result.output


def damaged_models(good: bytes) -> list[bytes]:
    """Truncated at twelve places, one bit flipped at many until the file can't be right, and plain
    rubbish.
    """
    size = len(good)
    cut = [good[: size * part // 13] for part in range(12)]
    random = np.random.default_rng(7)
    noise = [random.bytes(count) for count in (1, 16, 4096)]
    zeros = [bytes(64), good[:4] + bytes(size - 4), bytes(4) + good[4:]]
    overwritten = []
    for start in range(0, size, size // 8):
        changed = bytearray(good)
        changed[start : start + 64] = random.bytes(64)
        overwritten.append(bytes(changed))
    return cut + noise + zeros + overwritten[:1]


def test_damaged_models_are_refused(run: Run, tmp_path: Path, data_dir: Path) -> None:
    good = (data_dir / "kws_ref_model.tflite").read_bytes()
    for number, content in enumerate(damaged_models(good)):
        for suffix in ("tflite", "onnx") if number % 4 == 0 else ("tflite",):
            model = tmp_path / f"model{number}.{suffix}"
            model.write_bytes(content)
            before = everything(tmp_path)
            refused(run("deploy", model.name, "--target", "host", "--quiet"), (3,))
            assert everything(tmp_path) == before
            model.unlink()


def test_flipped_bits_never_crash(run: Run, tmp_path: Path, data_dir: Path) -> None:
    """A flipped weight is still a model; a flipped structure is refused. Neither is a bug or a crash."""
    good = (data_dir / "kws_ref_model.tflite").read_bytes()
    random = np.random.default_rng(11)
    for number in range(20):
        changed = bytearray(good)
        # the tables stand at the end of the file, the weights before them
        place = (
            int(random.integers(len(good) * 3 // 4, len(good)))
            if number % 2
            else int(random.integers(0, 4096))
        )
        changed[place] ^= 1 << int(random.integers(0, 8))
        model = tmp_path / f"flipped{number}.tflite"
        model.write_bytes(bytes(changed))
        result = run("analyze", model.name, "--json", "--quiet")
        assert result.exit_code in (0, 2, 3, 4), result.output
        assert json.loads(result.stdout)["schema"] in ("edgekit.analyze/1", "edgekit.error/1")


@pytest.mark.parametrize("name", ["model.txt", "model", "folder.tflite", "link.tflite"])
def test_what_is_no_model_file_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif name.startswith("link"):
        (tmp_path / name).symlink_to("/dev/zero")
    else:
        (tmp_path / name).write_text("hello")
    refused(run("deploy", name, "--target", "host", "--quiet"), (2, 3))
    assert not (tmp_path / "build").exists()


def test_damaged_data_is_refused_before_anything_is_built(run: Run, tmp_path: Path, data_dir: Path) -> None:
    model = str(data_dir / "kws_ref_model.tflite")
    np.savez(tmp_path / "shape.npz", x=np.zeros((3, 7), np.int8))
    np.savez(tmp_path / "nan.npz", x=np.full((3, 49, 10, 1), np.nan, np.float32))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "rubbish.npz").write_bytes(b"PK\x03\x04rubbish")
    for name in ("nan", "objects", "rubbish", "absent"):
        refused(run("deploy", model, "--target", "host", "--data", f"{name}.npz", "--quiet"), (3,))
        assert not (tmp_path / "build").exists()
    refused(run("deploy", model, "--target", "host", "--data", "shape.npz", "--quiet"), (3,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema = 1",
        "schema = 1\nname = '../../etc'",
        "schema = 1\nname = 'x'\nplatform = 'linux'\n[toolchain]\nflags = ['-wrapper', 'sh']",
        "\x00\x01",
        "a = " + "[" * 5000,
        "schema = 1\nname = '\\u001b[2J'",
    ],
)
def test_hostile_target_files_are_refused(run: Run, tmp_path: Path, data_dir: Path, text: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    model = str(data_dir / "kws_ref_model.tflite")
    refused(run("deploy", model, "--target", "./t.toml", "--quiet"), (2,))
    refused(run("targets", "check", "./t.toml"), (2,))
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("command", ["flash", "profile", "run"])
def test_a_folder_that_is_no_bundle_is_refused(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "bundle").mkdir()
    np.save(tmp_path / "x.npy", np.zeros(4, np.int8))
    more = ("--input", "x.npy", "--output", "y.npy") if command == "run" else ()
    refused(run(command, "bundle", *more), (3,))
    (tmp_path / "bundle" / "manifest.json").write_text('{"schema": "edgekit.bundle/1"}')
    refused(run(command, "bundle", *more), (3,))
    refused(run(command, "absent", *more), (2, 3))


def test_a_bundle_that_was_changed_is_refused(run: Run, tmp_path: Path, data_dir: Path) -> None:
    model = str(data_dir / "kws_ref_model.tflite")
    assert run("compile", model, "--target", "host", "-o", "bundle", "--quiet").exit_code == 0
    runner = tmp_path / "bundle" / "runner"
    changed = bytearray(runner.read_bytes())
    changed[len(changed) // 2] ^= 1
    runner.write_bytes(bytes(changed))
    np.save(tmp_path / "x.npy", np.zeros((1, 49, 10, 1), np.int8))
    result = run("run", "bundle", "--input", "x.npy", "--output", "y.npy")
    refused(result, (3,))
    assert "runner" in result.stderr
    assert not (tmp_path / "y.npy").exists()
