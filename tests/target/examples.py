"""Sound documents of a board, an emulated board and a Linux target, to be broken one field at a time."""

from __future__ import annotations

import copy
from typing import Any

from edgekit.target import load_target

__all__ = ["changed", "document"]


def document(name: str) -> dict[str, Any]:
    """The document of a shipped target, free to change."""
    return copy.deepcopy(load_target(name).document())


def changed(name: str, path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The document of `name` with one value put at `path`; `...` takes the key away."""
    made = document(name)
    inner: Any = made
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made
