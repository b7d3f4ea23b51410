"""The program: operators in order over tensors, between the lowering and the schedules.

Tensors that share a `storage` are one piece of memory seen in different shapes: a reshape costs nothing, nor
does a slice or a concatenation of what lies together.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import ITEM_SIZE, Place, Quantization, TensorSpec
from edgekit.compiler.operators import FloatFunction, Operator

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
        """In the arena. A tensor without elements takes the place of one: it has an address."""
        return max(math.prod(self.shape), 1) * ITEM_SIZE[self.dtype]


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
        return sum(self.own_parameters())

    def own_parameters(self) -> tuple[int, ...]:
        """Trained values of each step that none before it holds; steps of a recurrent layer share theirs."""
        known: set[bytes] = set()
        return tuple(self._new_parameters(step, known) for step in self.steps)

    def _new_parameters(self, step: Step, known: set[bytes]) -> int:
        if isinstance(step.operator, FloatFunction):
            operands = [self.tensors[index].data for index in step.inputs]
            trained = [data for data in operands if data is not None and data.dtype == np.float32]
            return sum(data.size for data in trained if _is_new(data, known))
        weights = getattr(step.operator, "weights", None)
        return 0 if weights is not None and not _is_new(weights, known) else step.operator.parameters()


def _is_new(values: NDArray[np.generic], known: set[bytes]) -> bool:
    """Whether no equal array is known. Arrays of one value (biases of zero) are nobody's copies."""
    if values.size == 0 or (values == values.reshape(-1)[0]).all():
        return True
    digest = hashlib.sha256(f"{values.dtype} {values.shape} ".encode() + values.tobytes()).digest()
    found = digest in known
    known.add(digest)
    return not found
