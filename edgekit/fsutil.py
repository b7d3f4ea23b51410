"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["atomic_write", "sync_directory"]


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


def sync_directory(directory: Path) -> None:
    """Makes the rename itself durable, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
