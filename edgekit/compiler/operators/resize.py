"""Resizing of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.operators.base import Operator

__all__ = ["Blend", "ResizeBilinear"]


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """For each output place along an axis: x[lower] · (1 − fraction / 1024) + x[upper] · fraction / 1024."""

    lower: NDArray[np.int32]
    upper: NDArray[np.int32]
    fraction: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ResizeBilinear(Operator):
    """(N, H, W, C) → (N, OH, OW, C), blended along H and W, rounded once, halves away from zero."""

    NAME: ClassVar[str] = "resize_bilinear"
    rows: Blend
    columns: Blend
