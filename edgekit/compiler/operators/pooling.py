"""Pooling and reductions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgekit.compiler.operators.base import Clamp, Operator, Rescale, Window

__all__ = ["ArgExtreme", "AveragePool", "Extreme", "MaxPool", "Mean"]


@dataclass(frozen=True, slots=True, eq=False)
class AveragePool(Operator):
    """Mean of the window's values that lie inside the input; input and output have the same quantisation.

    With `count_padding` the padded positions count too, as real zeros (the zero point).
    """

    NAME: ClassVar[str] = "average_pool2d"
    window: Window
    zero_point: int
    count_padding: bool
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class MaxPool(Operator):
    """Largest of the window's values that lie inside the input; quantisation unchanged."""

    NAME: ClassVar[str] = "max_pool2d"
    window: Window
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Mean(Operator):
    """Mean or sum over `axes`, requantised: Σ(x − zero_point) · rescale + output_zero_point.

    The `rescale` of a mean already holds the division by the number of elements.
    """

    NAME: ClassVar[str] = "mean"
    axes: tuple[int, ...]
    input_zero_point: int
    output_zero_point: int
    rescale: Rescale
    clamp: Clamp


@dataclass(frozen=True, slots=True, eq=False)
class Extreme(Operator):
    """The largest or the smallest stored value over `axes`; quantisation unchanged."""

    NAME: ClassVar[str] = "extreme"
    axes: tuple[int, ...]
    largest: bool


@dataclass(frozen=True, slots=True, eq=False)
class ArgExtreme(Operator):
    """Where along `axis` the largest or the smallest value lies, the first of equals; output int64."""

    NAME: ClassVar[str] = "arg_extreme"
    axis: int
    largest: bool
