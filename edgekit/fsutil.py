"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from edgekit.errors import UsageError

__all__ = ["atomic_write", "cache_folder", "read_plain_file", "sync_directory"]


def atomic_write(path: Path, data: bytes) -> None:
    """Writes `data` to `path` so that a reader, or a power cut, finds the old file or the new one.

    The file gets the mode that the process's umask gives any new file. The folder must exist.

    Raises:
        OSError: the folder is missing, read-only or full; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.tmp")
    try:
        # "x": never through a link that somebody else put there.
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def cache_folder() -> Path:
    """Where edgekit keeps what it can make again: `EDGEKIT_HOME`, else `edgekit` in the user's cache.

    Raises:
        UsageError: this user has no home folder.
    """
    own, cache = os.environ.get("EDGEKIT_HOME"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own).absolute()
    # The XDG base directory specification: a relative path there is to be ignored.
    if cache and Path(cache).is_absolute():
        return Path(cache) / "edgekit"
    try:
        return Path("~/.cache").expanduser() / "edgekit"
    except RuntimeError:
        raise UsageError("this user has no home folder", hint="export EDGEKIT_HOME=FOLDER") from None


def read_plain_file(path: str, limit: int, *, folder: int | None = None, follow: bool = False) -> bytes:
    """Up to `limit` + 1 bytes of a plain file, so that one byte too many can be told.

    Nothing in the file's place holds the reader up: a named pipe, a folder or a device is an error.

    Args:
        path: Relative to the opened directory `folder` when that is given.
        follow: Whether the last part of `path` may be a symbolic link.

    Raises:
        OSError: it cannot be opened, or is no plain file.
        ValueError: the path has a zero byte in it.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Makes the rename itself durable, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
