"""Operators whose output elements depend on the input elements at the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.operators.base import Clamp, Operator, Rescale

__all__ = [
    "Add",
    "Dequantize",
    "Lookup",
    "Maximum",
    "Minimum",
    "Multiply",
    "PRelu",
    "Quantize",
    "Requantize",
    "SquaredDifference",
    "Subtract",
]


@dataclass(frozen=True, slots=True, eq=False)
class _RescaledPair(Operator):
    """Two tensors with numpy broadcasting, each brought to a common scale, and the result to the output's."""

    IN_PLACE: ClassVar[bool] = True
    zero_points: tuple[int, int]
    rescales: tuple[Rescale, Rescale]
    output_zero_point: int
    output_rescale: Rescale
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class _Extremum(Operator):
    """Two tensors with numpy broadcasting; an operand without `rescale` is stored as the output is."""

    IN_PLACE: ClassVar[bool] = True
    zero_points: tuple[int, int]
    rescales: tuple[Rescale | None, Rescale | None]
    output_zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Add(_RescaledPair):
    """Sum of two tensors with numpy broadcasting; each has its own scale."""

    NAME: ClassVar[str] = "add"


@dataclass(frozen=True, slots=True, eq=False)
class Subtract(_RescaledPair):
    """Difference of two tensors with numpy broadcasting; each has its own scale."""

    NAME: ClassVar[str] = "subtract"


@dataclass(frozen=True, slots=True, eq=False)
class SquaredDifference(_RescaledPair):
    """(a − b)² of two tensors with numpy broadcasting; each has its own scale."""

    NAME: ClassVar[str] = "squared_difference"


@dataclass(frozen=True, slots=True, eq=False)
class Multiply(Operator):
    """Product of two tensors with numpy broadcasting: (a − z_a) · (b − z_b) · rescale + output_zero_point."""

    NAME: ClassVar[str] = "multiply"
    IN_PLACE: ClassVar[bool] = True
    zero_points: tuple[int, int]
    rescale: Rescale
    output_zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Maximum(_Extremum):
    """The larger of two tensors, broadcast as numpy; an operand without `rescale` is stored as the output."""

    NAME: ClassVar[str] = "maximum"


@dataclass(frozen=True, slots=True, eq=False)
class Minimum(_Extremum):
    """The smaller of two tensors, broadcast as numpy; an operand without `rescale` is stored as it."""

    NAME: ClassVar[str] = "minimum"


@dataclass(frozen=True, slots=True, eq=False)
class PRelu(Operator):
    """x where it is positive, else x · slope, with a tensor of slopes that broadcasts to x.

    Rescales: of x, and of the product of x and slope.
    """

    NAME: ClassVar[str] = "prelu"
    IN_PLACE: ClassVar[bool] = True
    zero_points: tuple[int, int]
    rescales: tuple[Rescale, Rescale]
    output_zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Lookup(Operator):
    """Any function of one int8 tensor: output = table[x + 128]; the table (256,) is int8 or float32."""

    NAME: ClassVar[str] = "lookup"
    IN_PLACE: ClassVar[bool] = True
    table: NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Requantize(Operator):
    """(x − input_zero_point) · rescale + output_zero_point, clamped; without `rescale` the scale stays.

    A change of scale, ReLU, ReLU6, uint8 ↔ int8.
    """

    NAME: ClassVar[str] = "requantize"
    IN_PLACE: ClassVar[bool] = True
    input_zero_point: int
    output_zero_point: int
    rescale: Rescale | None
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Quantize(Operator):
    """float32 → int8: round(x / scale), ties away from zero, plus zero_point, saturated; NaN gives −128."""

    NAME: ClassVar[str] = "quantize"
    scale: float
    zero_point: int
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Dequantize(Operator):
    """int8 → float32: (x − zero_point) · scale."""

    NAME: ClassVar[str] = "dequantize"
    scale: float
    zero_point: int
