"""Reading a bundle back: damage and malice end in a sentence and exit 3."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import ModelError
from edgekit.firmware import build_image, load_bundle
from edgekit.fsutil import atomic_write
from edgekit.target import load_target

from .sample import compiled_model


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the host, built once and never changed."""
    folder = tmp_path_factory.mktemp("bundle") / "sound"
    target = load_target("host")
    build_image(compiled_model(target), target, folder, provenance={"tvm": "0.27"})
    return folder


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def test_what_was_built_is_what_is_read(sound: Path) -> None:
    compiled = compiled_model("host")
    read = load_bundle(sound)
    assert read.compiled == compiled
    assert read.target.document() == load_target("host").document()
    assert read.image.path == sound / "runner"
    assert read.manifest.provenance == {"tvm": "0.27"}


def _refused(folder: Path) -> str:
    with pytest.raises(ModelError) as raised:
        load_bundle(folder)
    message = raised.value.message
    assert raised.value.exit_code == 3
    assert all(line.isprintable() for line in message.splitlines())
    assert 10 < len(message) < 1500
    return message


Change = Callable[[dict[str, Any]], object]
LONG = "x" * 70_000

HOSTILE: tuple[tuple[str, Change], ...] = (
    ("another schema", lambda m: m.update(schema="edgekit.bundle/2")),
    ("no schema", lambda m: m.pop("schema")),
    ("unknown key", lambda m: m.update({"\x1b[31m": 1})),
    ("no files", lambda m: m.update(files={})),
    ("files is a list", lambda m: m.update(files=[])),
    ("image elsewhere", lambda m: m.update(image="../../bin/sh")),
    ("image absolute", lambda m: m.update(image="/bin/sh")),
    ("image not listed", lambda m: m.update(image="other")),
    ("image is no ELF", lambda m: m.update(image="README.md")),
    ("image of another kind", lambda m: m.update(image="kernels.o")),
    ("file above", lambda m: m["files"].update({"../x": m["files"]["README.md"]})),
    ("file absolute", lambda m: m["files"].update({"/etc/passwd": m["files"]["README.md"]})),
    ("file with dots inside", lambda m: m["files"].update({"a/../../x": m["files"]["README.md"]})),
    ("file with a backslash", lambda m: m["files"].update({"a\\b": m["files"]["README.md"]})),
    ("file with a zero byte", lambda m: m["files"].update({"a\x00b": m["files"]["README.md"]})),
    ("file hidden", lambda m: m["files"].update({".ssh/id": m["files"]["README.md"]})),
    ("file missing", lambda m: m["files"].update({"none.txt": m["files"]["README.md"]})),
    ("manifest in itself", lambda m: m["files"].update({"manifest.json": m["files"]["README.md"]})),
    ("size too small", lambda m: m["files"]["README.md"].update(size_bytes=3)),
    ("size too large", lambda m: m["files"]["README.md"].update(size_bytes=10**6)),
    ("size negative", lambda m: m["files"]["README.md"].update(size_bytes=-1)),
    ("size huge", lambda m: m["files"]["README.md"].update(size_bytes=10**30)),
    ("size a float", lambda m: m["files"]["README.md"].update(size_bytes=1.0)),
    ("size a text", lambda m: m["files"]["README.md"].update(size_bytes="600")),
    ("sizes add up to too much", lambda m: [f.update(size_bytes=1 << 30) for f in m["files"].values()]),
    ("hash wrong", lambda m: m["files"]["runner"].update(sha256=64 * "0")),
    ("hash short", lambda m: m["files"]["runner"].update(sha256="00")),
    ("hash in capitals", lambda m: m["files"]["runner"].update(sha256=64 * "A")),
    ("memory made smaller", lambda m: m["memory"].update(flash_bytes=1)),
    ("memory unlimited", lambda m: m["memory"].update(ram_limit=2**32)),
    ("stack invented", lambda m: m["memory"].update(stack_bytes=8)),
    ("target gone", lambda m: m.pop("target")),
    ("target empty", lambda m: m.update(target={})),
    ("target with a flag", lambda m: m["target"]["toolchain"].update(flags=["-fplugin=x.so"])),
    ("target with a prefix", lambda m: m["target"]["toolchain"].update(prefix="/tmp/evil/")),
    ("target deep", lambda m: m["target"].update(memory=json.loads("[" * 90 + "]" * 90))),
    ("target for another machine", lambda m: m.update(target=load_target("mps2-an386").document())),
    ("model hash", lambda m: m["model"].update(model_hash="../x")),
    ("name too long", lambda m: m["model"].update(name=LONG)),
    ("no inputs", lambda m: m["model"].update(inputs=[])),
    ("shape negative", lambda m: m["model"]["inputs"][0].update(shape=[-4, -4])),
    ("shape larger than the arena", lambda m: m["model"]["inputs"][0].update(shape=[2**31 - 1] * 16)),
    ("dtype unknown", lambda m: m["model"]["inputs"][0].update(dtype="object")),
    ("scale zero", lambda m: m["model"]["inputs"][0]["quantization"].update(scale=0.0)),
    ("scale huge", lambda m: m["model"]["inputs"][0]["quantization"].update(scale=1e999)),
    ("operator outside the arena", lambda m: m["model"]["operators"][0].update(output_offset=40)),
    ("operators misnumbered", lambda m: m["model"]["operators"][0].update(id=1)),
    ("allocation outside the arena", lambda m: m["model"]["allocations"][0].update(size_bytes=49)),
    ("allocation kind", lambda m: m["model"]["allocations"][0].update(kind="heap")),
    ("arena smaller", lambda m: m["model"].update(arena_bytes=8)),
    ("compiled file elsewhere", lambda m: m["compiled_files"].append("../x")),
    ("compiled file not listed", lambda m: m["compiled_files"].append("other.c")),
    ("provenance a number", lambda m: m.update(provenance={"a": 1})),
    ("tools too many", lambda m: m.update(tools={str(i): "1" for i in range(99)})),
)


@pytest.mark.parametrize("change", [change for _, change in HOSTILE], ids=[name for name, _ in HOSTILE])
def test_hostile_manifests_are_refused(change: Change, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    before = copy.deepcopy(manifest)
    change(manifest)
    assert manifest != before
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    _refused(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'"edgekit.bundle/1"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"schema": NaN}',
        b'{"schema": "edgekit.bundle/1"}',
        b"PK\x03\x04",
        b"\x80\x04\x95",
        b'{"schema":"\\ud800"}',
        b"9" * 100_000,
    ],
    ids=lambda content: ascii(content[:20]),
)
def test_what_is_no_manifest_is_refused(content: bytes, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(content)
    _refused(bundle)


def test_a_huge_manifest_is_not_read(bundle: Path) -> None:
    with (bundle / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "more than" in _refused(bundle)


def test_a_manifest_may_be_written_another_way(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert load_bundle(bundle).compiled.name == "sample"


@pytest.mark.parametrize("name", ["manifest.json", "runner", "README.md", "generated/edgekit_port.h"])
@pytest.mark.parametrize("kind", ["missing", "link", "broken link", "folder", "pipe", "empty", "longer"])
def test_files_that_are_not_what_they_were(name: str, kind: str, bundle: Path, tmp_path: Path) -> None:
    path = bundle / name
    kept = tmp_path / "kept"
    path.rename(kept)
    if kind == "link":
        path.symlink_to(kept)  # the same bytes, but reached through a link out of the bundle
    elif kind == "broken link":
        path.symlink_to("/nonexistent")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "longer":
        path.write_bytes(kept.read_bytes() + b"x")
    _refused(bundle)


def test_a_folder_that_is_a_link_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "generated").rename(tmp_path / "moved")
    (bundle / "generated").symlink_to(tmp_path / "moved")
    _refused(bundle)


@pytest.mark.parametrize("path", ["nowhere", "file", "bad\x00name"])
def test_no_bundle_at_all(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _refused(tmp_path / path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_every_flipped_bit_is_found(bundle: Path) -> None:
    generator = random.Random(7)
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "manifest.json")
    for path in files:
        original = path.read_bytes()
        for _ in range(3):
            data = bytearray(original)
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            path.write_bytes(bytes(data))
            assert path.name in _refused(bundle)
        path.write_bytes(original)
    load_bundle(bundle)


def test_damage_to_the_manifest_is_refused_or_harmless(bundle: Path) -> None:
    original = (bundle / "manifest.json").read_bytes()
    generator = random.Random(8)
    refused = 0
    for _ in range(300):
        data = bytearray(original)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        (bundle / "manifest.json").write_bytes(bytes(data))
        try:
            load_bundle(bundle)
        except ModelError:
            refused += 1
    assert refused > 200


def test_an_image_that_was_exchanged_together_with_its_hash(bundle: Path) -> None:
    # Whoever can change the manifest can change its hashes; what the ELF says must still agree with the rest.
    image = bytearray((bundle / "runner").read_bytes())
    image[18] = 40  # e_machine: Arm
    (bundle / "runner").write_bytes(bytes(image[:-100]))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["runner"] = {
        "size_bytes": len(image) - 100,
        "sha256": hashlib.sha256(bytes(image[:-100])).hexdigest(),
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "runner" in _refused(bundle)


def test_atomic_write_replaces_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_atomic_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    atomic_write(path, b"one")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        atomic_write(path, b"two")
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_atomic_write_takes_the_place_of_a_link_and_not_of_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_text() == "kept"
    assert not (tmp_path / "link").is_symlink()
