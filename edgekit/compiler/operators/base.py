"""What all operators share: geometry, bounds, rescaling, and the base class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Clamp",
    "FullRange",
    "Int8Array",
    "Int32Array",
    "Operator",
    "Rescale",
    "Rounding",
    "Shape",
    "Window",
]

Shape = tuple[int, ...]


Int8Array = NDArray[np.int8]


Int32Array = NDArray[np.int32]


Rounding = Literal["double", "single"]
"""Of requantisation: TFLite's two roundings, or one as a quantised model in reals has it."""


@dataclass(frozen=True, slots=True)
class Clamp:
    """Inclusive bounds of the stored output, e.g. ReLU is [zero_point, 127]."""

    low: int = -128
    high: int = 127

    def intersect(self, low: int, high: int) -> Clamp:
        return Clamp(max(self.low, low), min(self.high, high))


FullRange = Clamp()


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window over (H, W). `padding` is top, left, bottom, right."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Number of window positions that fit in (height, width) with the padding."""
        top, left, bottom, right = self.padding
        span_h = (self.kernel[0] - 1) * self.dilation[0] + 1
        span_w = (self.kernel[1] - 1) * self.dilation[1] + 1
        return (
            (height + top + bottom - span_h) // self.stride[0] + 1,
            (width + left + right - span_w) // self.stride[1] + 1,
        )


@dataclass(frozen=True, slots=True)
class Rescale:
    """A positive real factor as fixed point: multiplier / 2^31 · 2^shift (see `fixed_point`)."""

    multiplier: int
    shift: int


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """Base of all operators."""

    NAME: ClassVar[str] = "operator"
    IN_PLACE: ClassVar[bool] = False
    """Each output element depends on the element at the same place in input 0 and nothing else of it.

    So the output may take the storage of an input of the same size.
    """

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.NAME

    def macs(self, output: Shape) -> int:
        """Multiply-accumulates to compute an output of that shape; 0 for operators that have none."""
        return 0

    def parameters(self) -> int:
        """Trained values that the operator holds (weights and biases)."""
        return 0
