"""Fix the dynamic dimensions of a model's inputs with what the caller said (`--shape NAME=1,49,10,1`)."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping

from edgekit.errors import ModelError, UsageError
from edgekit.text import printable

__all__ = ["MAX_ELEMENTS", "fix_input_shapes", "shape_text", "show_name", "show_text"]

MAX_ELEMENTS = 1 << 28
"""Of one tensor. Keeps shape products within 32 bits on every board, with room for strides."""


def show_text(text: str) -> str:
    """Text from a model file as a message shows it: one line, escaped, at most 80 characters."""
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= 80 else f"{shown[:60]}…{shown[-19:]}"


def show_name(name: str) -> str:
    """A name from a model file as a message shows it: as `show_text` does, and quoted."""
    return "'" + show_text(name).replace("'", "\\'") + "'"


def shape_text(shape: tuple[int | None, ...]) -> str:
    """`1,49,10,1`, with `?` for a dynamic dimension."""
    return ",".join("?" if d is None else str(d) for d in shape)


def _check_requested(
    name: str, requested: tuple[int, ...], declared: tuple[int | None, ...] | None
) -> tuple[int, ...]:
    elements = 1
    for dimension in requested:
        elements *= dimension
        if dimension < 1 or elements > MAX_ELEMENTS:
            raise UsageError(f"--shape {show_name(name)}={shape_text(requested)} is not a sensible shape.")
    if declared is None:
        return requested
    fits = len(requested) == len(declared) and all(
        d is None or d == r for d, r in zip(declared, requested, strict=True)
    )
    if not fits:
        raise UsageError(
            f"--shape {show_name(name)}={shape_text(requested)} does not fit the model, "
            f"whose input is {shape_text(declared)}."
        )
    return requested


def fix_input_shapes(
    declared: Mapping[str, tuple[int | None, ...] | None], shapes: Mapping[str, tuple[int, ...]] | None
) -> dict[str, tuple[int, ...]]:
    """The fixed shape of every input.

    Args:
        declared: What the file says; None for a dynamic dimension, and instead of a shape of unknown rank.
        shapes: What the caller said.

    Raises:
        UsageError: a name that is no input, or a shape that contradicts the file.
        ModelError: inputs that are still dynamic; all of them are named.
    """
    requested = dict(shapes or {})
    for name in requested:
        if name not in declared:
            close = difflib.get_close_matches(name, declared, n=1, cutoff=0.0)
            nearest = f" Did you mean {show_name(close[0])}?" if close else ""
            raise UsageError(f"The model has no input {show_name(name)} (--shape).{nearest}")
    fixed: dict[str, tuple[int, ...]] = {}
    dynamic: list[str] = []
    for name, shape in declared.items():
        if name in requested:
            fixed[name] = _check_requested(name, requested[name], shape)
        elif shape is None:
            dynamic.append(f"{show_name(name)} (of unknown rank)")
        elif any(d is None for d in shape):
            dynamic.append(f"{show_name(name)} ({shape_text(shape)})")
        else:
            fixed[name] = tuple(d for d in shape if d is not None)
    if dynamic:
        first = next(name for name in declared if name not in fixed)
        example = shape_text(tuple(d or 1 for d in declared[first] or (None,)))
        plural = "inputs have" if len(dynamic) > 1 else "input has"
        raise ModelError(
            f"The model's {plural} dynamic dimensions: {', '.join(dynamic)}. A board needs fixed ones.",
            hint=f"Fix them: --shape {shlex.quote(f'{printable(first)}={example}')}",
        )
    return fixed
