"""Read a model file once, within limits, so that nothing after it touches the file system again."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit.errors import ModelError

__all__ = ["MAX_MODEL_BYTES", "Source", "describe_path", "read_head", "read_regular_file", "read_source"]

MAX_MODEL_BYTES = 256 * 1024 * 1024
"""Larger than any model for the boards edgekit serves, small enough to hold twice in memory."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a model file and their SHA-256 (hex)."""

    path: Path
    content: bytes
    sha256: str


def describe_path(path: Path) -> str:
    """The path as a message shows it: control characters escaped, at most 200 characters."""
    text = str(path).encode("unicode_escape").decode("ascii")
    return text if len(text) <= 200 else f"{text[:100]}…{text[-99:]}"


def read_regular_file(path: Path, limit_bytes: int, *, follow_symlinks: bool = True) -> bytes:
    """Read a regular file of at most `limit_bytes`.

    Raises:
        ModelError: no such file, not a regular file, or too large.
    """
    shown = describe_path(path)
    with _opened(path, follow_symlinks) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit_bytes:
            raise ModelError(f"{shown} is {size:,} bytes; at most {limit_bytes:,} are accepted.")
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise ModelError(f"{shown} grew beyond {limit_bytes:,} bytes while it was read.")
    return content


def read_head(path: Path, count: int) -> bytes:
    """The first `count` bytes of a regular file of any size.

    Raises:
        ModelError: no such file, or not a regular file.
    """
    with _opened(path, follow_symlinks=True) as file:
        return file.read(count)


def _opened(path: Path, follow_symlinks: bool) -> BinaryIO:
    """A regular file, open for reading.

    Opens without blocking and asks the open descriptor what it is, so that a FIFO, a device or a file that
    is swapped after a check cannot hang the read or make it unbounded.

    Raises:
        ModelError: no such file, or not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if not follow_symlinks:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    shown = describe_path(path)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise ModelError(f"There is no file {shown}.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot open {shown}: {getattr(error, 'strerror', None) or error}.") from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise ModelError(f"{shown} is a folder, not a model file.")
    raise ModelError(f"{shown} is not a regular file (a device, a pipe or a socket).")


def read_source(path: Path) -> Source:
    """Read a whole model file.

    Raises:
        ModelError: not a regular file, empty, or larger than `MAX_MODEL_BYTES`.
    """
    content = read_regular_file(path, MAX_MODEL_BYTES)
    if not content:
        raise ModelError(f"{describe_path(path)} is empty.")
    return Source(path=path, content=content, sha256=hashlib.sha256(content).hexdigest())
