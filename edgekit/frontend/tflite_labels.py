"""Class labels packed with a TFLite file: a zip archive appended to it (TensorFlow Lite Metadata)."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

__all__ = ["read_labels"]

_END = struct.Struct("<4s4H2LH")
_MAX_ENTRIES = 64
_MAX_DIRECTORY_BYTES = 64 * 1024
_MAX_LABEL_FILE_BYTES = 1024 * 1024
_MAX_LABEL_CHARACTERS = 200


def _has_small_archive(content: bytes) -> bool:
    """Whether a zip archive of few files ends the file; looked at before zipfile reads its directory."""
    position = content.rfind(b"PK\5\6", max(0, len(content) - _END.size - 0xFFFF))
    if position < 0 or position + _END.size > len(content):
        return False
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(content, position)
    is_zip64 = content[max(0, position - 20) : max(0, position - 16)] == b"PK\6\7"
    return not is_zip64 and 0 < entries <= _MAX_ENTRIES and directory_bytes <= _MAX_DIRECTORY_BYTES


def read_labels(content: bytes, classes: int) -> tuple[str, ...] | None:
    """The labels of a model of `classes` classes, None where there are none or they do not fit.

    Labels are decoration: an archive that is damaged or looks like a bomb gives none and no error.
    """
    if not _has_small_archive(content):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                is_label_file = "label" in info.filename.lower() and info.filename.lower().endswith(".txt")
                if not is_label_file or info.file_size > _MAX_LABEL_FILE_BYTES:
                    continue
                with archive.open(info) as file:
                    text = file.read(_MAX_LABEL_FILE_BYTES + 1)
                if len(text) > _MAX_LABEL_FILE_BYTES:
                    continue
                lines = text.decode("utf-8", errors="replace").splitlines()
                while lines and not lines[-1].strip():
                    lines.pop()
                if len(lines) == classes:
                    return tuple(line.strip()[:_MAX_LABEL_CHARACTERS] for line in lines)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, struct.error, zlib.error):
        # What zipfile and zlib raise on archives that are damaged, encrypted or of another method.
        return None
    return None
