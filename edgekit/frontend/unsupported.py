"""One error for all the operators of a model that have no converter, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.artifacts import Place
from edgekit.errors import UnsupportedError
from edgekit.frontend.shapes import show_name, show_text

__all__ = ["Unsupported", "refuse"]

MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One operator and why it cannot be imported."""

    place: Place
    reason: str

    def __str__(self) -> str:
        op, name = show_text(self.place.op), show_name(self.place.name)
        return f"{op} {name} (operator {self.place.index}): {self.reason}"


def refuse(found: Sequence[Unsupported], *, hint: str | None = None) -> None:
    """Raise UnsupportedError that lists everything found; nothing happens when nothing was found."""
    if not found:
        return
    lines = [f"  {item}" for item in found[:MAX_LISTED]]
    if len(found) > MAX_LISTED:
        lines.append(f"  … and {len(found) - MAX_LISTED} more")
    plural = "1 operator" if len(found) == 1 else f"{len(found)} operators"
    raise UnsupportedError("\n".join([f"The model has {plural} that cannot be imported:", *lines]), hint=hint)
