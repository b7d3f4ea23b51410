"""Damaged and hostile model, data, target and bundle files: a sentence, exit 2 or 3, and nothing left
behind.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def _archive(path: Path, entries: dict[str, bytes], repeat: int = 1) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            with archive.open(name, "w", force_zip64=True) as member:
                for _ in range(repeat):
                    member.write(content)


def _header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_data_files_that_blow_up_are_refused(run: Run, tmp_path: Path, data_dir: Path) -> None:
    """Little files of huge arrays, and headers that lie; nothing is unpacked, and nothing is unpickled."""
    _archive(tmp_path / "bomb.npz", {"x.npy": bytes(1 << 20)}, repeat=300)
    _archive(tmp_path / "lie.npz", {"x.npy": _header("(1099511627776,)")})
    _archive(tmp_path / "overflow.npz", {"x.npy": _header("(4294967296, 4294967296, 4294967296)")})
    _archive(tmp_path / "negative.npz", {"x.npy": _header("(-1, 490)") + bytes(490)})
    _archive(tmp_path / "code.npz", {"x.npy": _header("(__import__('os').getpid(),)") + bytes(64)})
    _archive(tmp_path / "deep.npz", {"x.npy": _header("(" * 3000 + ")" * 3000)})
    _archive(
        tmp_path / "object.npz", {"x.npy": _header("(1,)", "'|O'") + pickle.dumps(_MakesAFile(tmp_path))}
    )
    _archive(tmp_path / "up.npz", {"../../x.npy": _header("(1,)") + bytes(4)})
    limit = resource.getrlimit(resource.RLIMIT_AS)
    for path in sorted(tmp_path.glob("*.npz")):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, limit[1]))
        try:
            model = str(data_dir / "kws_ref_model.tflite")
            refused(run("deploy", model, "--target", "host", "--data", path.name, "--quiet"), (3,))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10, path.name
    assert not (tmp_path / "build").exists()
    assert not (tmp_path / "it-ran").exists()


def _zip_of_pickles(path: Path, payload: object) -> None:
    _archive(
        path,
        {
            f"m/{name}": pickle.dumps(payload)
            for name in ("data.pkl", "constants.pkl", "data/sample_inputs/model.pt", "data/weights/model.pt")
        }
        | {"m/version": b"3\n", "m/archive_format": b"pt2", "m/models/model.json": b"{}"},
    )


@pytest.mark.parametrize("suffix", ["pt", "pth", "pt2", "pkl", "ckpt"])
@pytest.mark.parametrize("form", ["pickle", "archive"])
def test_nothing_in_a_pickle_runs_unless_it_is_trusted(
    run: Run, tmp_path: Path, suffix: str, form: str
) -> None:
    path = tmp_path / f"model.{suffix}"
    if form == "pickle":
        path.write_bytes(pickle.dumps(_MakesAFile(tmp_path)))
    else:
        _zip_of_pickles(path, _MakesAFile(tmp_path))
    for command in ("deploy", "compile", "analyze"):
        result = run(command, path.name, "--target", "host", "--quiet")
        refused(result, (3,))
    assert not (tmp_path / "it-ran").exists()
    assert not (tmp_path / "build").exists()


SAFETENSORS = {
    "empty": b"",
    "short": b"\x08\0\0",
    "header-beyond-the-end": struct.pack("<Q", 1 << 20) + b"{}",
    "header-of-2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "no-json": struct.pack("<Q", 4) + b"oops",
    "a-list": struct.pack("<Q", 2) + b"[]",
    "deep": struct.pack("<Q", 20_000) + b"[" * 10_000 + b"]" * 10_000,
    "pickle": pickle.dumps({"w": [1.0]}),
}
for _name, _tensor in {
    "offsets-beyond-the-end": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]},
    "offsets-backwards": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
    "huge-shape": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]},
    "negative-shape": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
    "unknown-type": {"dtype": "OBJECT", "shape": [4], "data_offsets": [0, 16]},
}.items():
    _header_bytes = json.dumps({"0.weight": _tensor}).encode()
    SAFETENSORS[_name] = struct.pack("<Q", len(_header_bytes)) + _header_bytes + bytes(16)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("name", SAFETENSORS)
def test_weights_whose_header_lies_are_refused(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(2, 2)).eval()\n"
    )
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS[name])
    arguments = ("net:make", "--weights", "w.safetensors", "--shape", "x=1,2", "--precision", "float32")
    result = run("analyze", *arguments, "--quiet")
    refused(result, (3,))


class _MakesAFile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mknod, (str(self.folder / "it-ran"),))


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
