"""A bundle on disk: written whole or not at all, read back with every file checked.

manifest.json  README.md  edgekit_model.h  lib<name>.a      what an application developer needs
firmware.elf | runner                                       the image with the agent
kernels.o weights.bin weights.S model.c edgekit_program.h   what the image was made of
generated/                                                  linker.ld edgekit_port.h programs.c
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edgekit.artifacts import CompiledModel, Image
from edgekit.errors import ModelError, TargetError, UsageError
from edgekit.firmware.elf import parse_elf
from edgekit.firmware.manifest import Manifest
from edgekit.firmware.sizes import memory_use
from edgekit.firmware.symbols import check_abi
from edgekit.fsutil import read_plain_file, sync_directory
from edgekit.target import Target, parse_target
from edgekit.text import printable

__all__ = [
    "MANIFEST",
    "Bundle",
    "load_bundle",
    "manifest_bytes",
    "replaced_directory",
    "sha256",
    "write_file",
]

MANIFEST: Final = "manifest.json"
_MAX_MANIFEST_BYTES: Final = 16 * 1024 * 1024
_MAX_BUNDLE_BYTES: Final = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was found sound: the image, the model in it, and the target it is for."""

    directory: Path
    image: Image
    compiled: CompiledModel
    target: Target
    manifest: Manifest


def load_bundle(directory: Path) -> Bundle:
    """Reads a bundle and checks all of it: forms, bounds, paths, sizes, hashes, and the image's own sizes.

    Raises:
        ModelError: something is missing, damaged or not what the manifest says.
    """
    where = printable(str(directory))
    with _opened_directory(directory, where) as folder:
        manifest = _manifest(_read_member(folder, MANIFEST, _MAX_MANIFEST_BYTES, where), where)
        if sum(record.size_bytes for record in manifest.files.values()) > _MAX_BUNDLE_BYTES:
            raise ModelError(f"{where}: the bundle says that it is larger than {_MAX_BUNDLE_BYTES} bytes")
        kept: dict[str, bytes] = {}
        for path, record in sorted(manifest.files.items()):
            data = _read_member(folder, path, record.size_bytes, where)
            if len(data) != record.size_bytes or sha256(data) != record.sha256:
                raise ModelError(f"{where}: {path} is not what the manifest says", hint="build it again")
            if path == manifest.image or path in manifest.compiled_files:
                kept[path] = data
    try:
        target = parse_target(manifest.target, f"{where}/{MANIFEST}: target")
        elf = parse_elf(kept[manifest.image], f"{where}/{manifest.image}")
        check_abi(elf, target, f"{where}/{manifest.image}")
    except TargetError as error:
        raise ModelError(error.message) from None
    memory = manifest.memory.use()
    model = manifest.model
    if memory != memory_use(elf, target, arena_bytes=memory.arena_bytes, weights_bytes=memory.weights_bytes):
        raise ModelError(f"{where}: {manifest.image} has other sizes than the manifest says")
    compiled = model.compiled(target.name, {path: kept[path] for path in manifest.compiled_files})
    image = Image(
        target=target.name,
        directory=directory,
        path=directory / manifest.image,
        model_hash=model.model_hash,
        memory=memory,
        manifest=directory / MANIFEST,
        app=manifest.library.removeprefix("lib").removesuffix(".a"),
    )
    return Bundle(directory, image, compiled, target, manifest)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_file(path: Path, data: bytes, *, executable: bool = False) -> None:
    """A new file, on the disk before anything is renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o755 if executable else 0o644)


@contextlib.contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """A scratch folder beside `directory`; its `bundle` folder takes that place when the block ends well.

    An older bundle there is replaced; files that are not its own (a report, an application built by the
    README) are carried over. When the block raises, nothing has changed and nothing is left.

    Raises:
        UsageError: `directory` holds something else, or cannot be written.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - a link in the path stays one
    replaceable = _replaceable_files(directory)
    scratch = directory.with_name(f".{directory.name[:80]}.{secrets.token_hex(8)}.tmp")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        (scratch / "bundle").mkdir(parents=True)
        yield scratch
        new, old = scratch / "bundle", scratch / "old"
        if directory.exists():
            _carry_over(directory, new, replaceable)
        sync_directory(new)
        try:
            if directory.exists():
                directory.rename(old)
            new.rename(directory)
        except BaseException:
            if old.exists() and not directory.exists():
                old.rename(directory)
            raise
        sync_directory(directory.parent)
    except OSError as error:  # a full disk, a read-only folder, another edgekit that was faster
        raise UsageError(f"{printable(str(directory))} cannot be written: {error.strerror}") from error
    finally:
        _remove(scratch)


def _remove(scratch: Path) -> None:
    """Takes the scratch folder away, also when the user is impatient in the middle of it."""
    try:
        shutil.rmtree(scratch, ignore_errors=True)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _replaceable_files(directory: Path) -> frozenset[str]:
    """The top-level names in `directory` that an older bundle put there."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise UsageError(f"{printable(str(directory))} is not a folder")
    if not directory.exists() or not any(directory.iterdir()):
        return frozenset()
    where = printable(str(directory))
    try:
        with _opened_directory(directory, where) as folder:
            manifest = _manifest(_read_member(folder, MANIFEST, _MAX_MANIFEST_BYTES, where), where)
    except ModelError:
        raise UsageError(
            f"{where} holds files that are no bundle of edgekit; they are left alone",
            hint="name a new folder with -o DIR",
        ) from None
    return frozenset({MANIFEST, *(path.split("/")[0] for path in manifest.files)})


def _carry_over(directory: Path, new: Path, replaceable: frozenset[str]) -> None:
    """Copies what is not the old bundle's own, so that nothing is lost if the exchange fails."""
    for entry in sorted(directory.iterdir()):
        if entry.name in replaceable or (new / entry.name).exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True)
        elif entry.is_file() or entry.is_symlink():
            shutil.copy2(entry, new / entry.name, follow_symlinks=False)


@contextlib.contextmanager
def _opened_directory(directory: Path, where: str) -> Iterator[int]:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise ModelError(f"{where} is not a bundle: there is no such folder") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_member(folder: int, path: str, limit: int, where: str) -> bytes:
    """The bytes of one file, reached step by step without following a link, at most `limit` of them."""
    *parents, name = path.split("/")
    opened: list[int] = []
    try:
        for parent in parents:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            folder = os.open(parent, flags, dir_fd=folder)
            opened.append(folder)
        data = read_plain_file(name, limit, folder=folder)
    except OSError as error:
        raise ModelError(f"{where}: {path} cannot be read: {error.strerror}", hint="build it again") from None
    finally:
        for descriptor in opened:
            os.close(descriptor)
    if len(data) > limit:
        raise ModelError(f"{where}: {path} has more than {limit} bytes", hint="build it again")
    return data


def _manifest(data: bytes, where: str) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ModelError(
            f"{where}/{MANIFEST}: {printable(key or 'the document')}: {printable(message)}",
            hint="build it again",
        ) from None


def manifest_bytes(manifest: Manifest) -> bytes:
    """The document as stored: sorted keys, so that the same content gives the same bytes."""
    document = manifest.model_dump(mode="json", by_alias=True)
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
