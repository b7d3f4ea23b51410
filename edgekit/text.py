"""Text from outside (tensor names, model names, paths, a board's words) made safe to show to a person."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "file_name", "function_name", "names_function", "printable"]

_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")
_SAFE_IN_FILE_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def printable(text: str, limit: int = 200) -> str:
    """`text` in one line, with everything escaped that could steer a terminal or turn the reading order.

    Control, format (bidirectional overrides, zero-width), surrogate, private-use and line-separating
    characters become their `\\x1b`-like escapes; what is longer than `limit` characters ends in an ellipsis.
    """
    cut = text if len(text) <= limit else text[: limit - 1]
    shown = "".join(_shown(character) for character in cut)
    return shown if cut is text else shown + "…"


def file_name(text: str, fallback: str = "model") -> str:
    """`text` as one harmless component of a path: letters, digits, `.`, `_` and `-`, never hidden, never
    empty.
    """
    kept = "".join(character if character in _SAFE_IN_FILE_NAMES else "_" for character in text[:100])
    return kept.lstrip(".-") or fallback


def names_function(text: str) -> bool:
    """Whether a text has the form `package.module:function`."""
    return _FUNCTION.fullmatch(text) is not None


def function_name(text: str) -> str:
    """The name of what `package.module:function` makes: both last parts, as a module may have several."""
    module, _, function = text.partition(":")
    return f"{module.rpartition('.')[2]}_{function}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` for the nearest of `known`, or an empty text when none is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "C" or category in ("Zl", "Zp"):
        return character.encode("unicode_escape").decode("ascii")
    return character
