"""Operators whose output elements depend on the input elements at the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.operators.base import Clamp, Operator, Rescale

__all__ = ["Add", "Dequantize", "Quantize", "Requantize"]


@dataclass(frozen=True, slots=True, eq=False)
class Add(Operator):
    """Sum of two tensors with numpy broadcasting; each has its own scale."""

    NAME: ClassVar[str] = "add"
    IN_PLACE: ClassVar[bool] = True
    zero_points: tuple[int, int]
    rescales: tuple[Rescale, Rescale]
    output_zero_point: int
    output_rescale: Rescale
    clamp: Clamp


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
