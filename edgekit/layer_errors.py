"""Float against int8, layer by layer: what the comparison tells, between the compiler and the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Advice", "Comparison", "Help", "LayerError", "Reference"]

Reference = Literal["source", "dequantized"]
Help = Literal["wider_range", "percentile", "per_channel", "int16x8", "qat", "float"]


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that would help, and what it was concluded from."""

    help: Help
    text: str


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far one operator's output is from the float reference. Errors are in real units.

    SQNR = 10 · log10(Σ x² / Σ (x − x̂)²), over all values of all rows; x is the float reference, x̂ the reals
    that the program's integers stand for.
    """

    index: int
    """Of the operator, in the order of the program."""
    name: str
    """Of its output in the source file (untrusted text)."""
    op: str
    dtype: str
    sqnr_db: float | None
    """In the program; None where there is no error at all, or no signal."""
    alone_db: float | None
    """Of this operator alone: its inputs are the reference's, rounded to their own scales."""
    max_abs_error: float
    saturated: float
    """Share of the values that the reference has outside the range of the tensor's scale."""
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All layers that have a float counterpart, and those that lose most by themselves, the worst first."""

    rows: int
    reference: Reference
    """source: the float model that was quantised; dequantized: the quantised one, activations unrounded."""
    layers: tuple[LayerError, ...]
    worst: tuple[int, ...]
    """Positions in `layers`."""
