"""Names of things on disk, out of names that come from a model file."""

from __future__ import annotations

import re
from typing import Final

from edgekit.errors import ModelError

__all__ = ["check_compiled_file_names", "library_name", "valid_text"]

_LIBRARY_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_MAX_LIBRARY_NAME: Final = 32
_LOCK: Final = "lock"
"""A Linux board keeps its versions in a folder of the library's name, beside a file of this one."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9]{1,8}){0,2}")


def library_name(model_name: str) -> str:
    """`name` of `lib<name>.a`: lower-case letters, digits and single underscores, at most 32, a letter first.

    Everything else becomes an underscore; a name of which nothing is left is `model`.
    """
    kept = "".join(
        character if character in _LIBRARY_CHARACTERS else "_" for character in model_name[:256].lower()
    )
    name = re.sub(r"_+", "_", kept).strip("_")[:_MAX_LIBRARY_NAME].rstrip("_")
    if not name:
        return "model"
    if name == _LOCK:
        return f"{name}_model"
    return name if name[0].isalpha() else f"m{name}"[:_MAX_LIBRARY_NAME]


def check_compiled_file_names(names: list[str], reserved: frozenset[str]) -> None:
    """Compiled files are plain names that none of the bundle's own files has.

    Raises:
        ModelError: one is not.
    """
    for name in names:
        if not _FILE_NAME.fullmatch(name) or name in reserved:
            raise ModelError(f"the compiled model has a file with a name that is not allowed: {name[:80]!a}")


def valid_text(text: str) -> str:
    """`text` without lone surrogates, which no JSON reader takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
