"""Operators that move values without computing new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.operators.base import Clamp, Operator, Rescale

__all__ = ["Concat", "Pad", "Transpose"]


@dataclass(frozen=True, slots=True, eq=False)
class Pad(Operator):
    """Constant padding. `before` and `after` have an entry a dimension; `value` is a stored value."""

    NAME: ClassVar[str] = "pad"
    before: tuple[int, ...]
    after: tuple[int, ...]
    value: int


@dataclass(frozen=True, slots=True, eq=False)
class Concat(Operator):
    """Inputs joined along `axis`; an input whose quantisation differs from the output's is requantised."""

    NAME: ClassVar[str] = "concat"
    axis: int
    zero_points: tuple[int, ...]
    rescales: tuple[Rescale | None, ...]
    output_zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Transpose(Operator):
    """Output axis i is input axis `axes[i]`."""

    NAME: ClassVar[str] = "transpose"
    axes: tuple[int, ...]
