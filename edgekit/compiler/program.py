"""The program: operators in order over tensors, between the lowering and the schedules.

Tensors that share a `storage` are one piece of memory seen in different shapes: a reshape costs nothing, nor
does a slice or a concatenation of what lies together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import ITEM_SIZE, Place, Quantization, TensorSpec
from edgekit.compiler.operators import Operator

__all__ = ["Program", "Step", "Tensor"]


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A value of the program. `data` is set for constants that an operator reads as an operand."""

    id: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None
    storage: int
    data: NDArray[np.generic] | None = None
    offset: int = 0
    """Where it starts in its storage, in bytes."""

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_SIZE[self.dtype]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operator applied: tensor ids in, one tensor id out."""

    operator: Operator
    inputs: tuple[int, ...]
    output: int
    place: Place | None
    float_because: str | None = None
    """Why it is computed in float and not in integers; None for integer operators."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A whole model. `inputs` and `outputs` pair what the user sees with the tensor behind it."""

    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    inputs: tuple[tuple[TensorSpec, int], ...]
    outputs: tuple[tuple[TensorSpec, int], ...]

    @property
    def macs(self) -> int:
        return sum(step.operator.macs(self.tensors[step.output].shape) for step in self.steps)

    @property
    def parameters(self) -> int:
        return sum(step.operator.parameters() for step in self.steps)
