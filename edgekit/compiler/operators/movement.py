"""Operators that move values without computing new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.operators.base import Clamp, Operator, Rescale
from edgekit.compiler.operators.elementwise import Requantize

__all__ = ["Cast", "Concat", "Copy", "Gather", "Pad", "Slice", "Tile", "Transpose"]


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

    def changes(self, operand: int) -> bool:
        """Whether an input's values are other ones in the output."""
        return self.rescales[operand] is not None or (self.clamp.low, self.clamp.high) != (-128, 127)

    def copy_of(self, operand: int) -> Requantize:
        """What brings one input to its place in the output."""
        rescale = self.rescales[operand]
        if rescale is None:
            return Requantize(0, 0, None, self.clamp)
        return Requantize(self.zero_points[operand], self.output_zero_point, rescale, self.clamp)


@dataclass(frozen=True, slots=True, eq=False)
class Transpose(Operator):
    """Output axis i is input axis `axes[i]`."""

    NAME: ClassVar[str] = "transpose"
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Slice(Operator):
    """Output place i is input place `begin + i · stride`, along every axis; a stride may be negative."""

    NAME: ClassVar[str] = "slice"
    begin: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Gather(Operator):
    """Output place (i, j, …) is input place (indices[0][i], indices[1][j], …); None takes an axis as it is.

    Indices are int32, as many as the output has places along their axis, each within the input.
    """

    NAME: ClassVar[str] = "gather"
    indices: tuple[NDArray[np.int32] | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Tile(Operator):
    """The input again and again along every axis that is longer in the output (a multiple)."""

    NAME: ClassVar[str] = "tile"


@dataclass(frozen=True, slots=True, eq=False)
class Copy(Operator):
    """The input as it is, of any type: of a model whose output is its input, or a constant."""

    NAME: ClassVar[str] = "copy"
    IN_PLACE: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False)
class Cast(Operator):
    """Integers as integers of another type, which holds them all."""

    NAME: ClassVar[str] = "cast"
