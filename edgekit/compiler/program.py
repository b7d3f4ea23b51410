"""The program: operators in order over tensors, between the lowering and the schedules.

Tensors that share a `storage` are one piece of memory seen in different shapes: a reshape costs nothing, nor
does a slice or a concatenation of what lies together. A tensor may also lie in runs between the bytes of
others, as the channels of one branch do in the pixels of a concatenation.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import ITEM_SIZE, Place, Quantization, TensorSpec
from edgekit.compiler.operators import FloatFunction, Operator

__all__ = ["Program", "Runs", "Step", "Tensor"]


@dataclass(frozen=True, slots=True)
class Runs:
    """A tensor in pieces: each has `size` bytes, one place of all axes but the last, and begins `pitch` bytes
    behind the one before.
    """

    size: int
    pitch: int


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
    runs: Runs | None = None
    """None where it is one piece of memory."""

    @property
    def size_bytes(self) -> int:
        """In the arena. A tensor without elements takes the place of one: it has an address."""
        return max(math.prod(self.shape), 1) * ITEM_SIZE[self.dtype]

    @property
    def span_bytes(self) -> int:
        """From its first byte to its last, what lies between its runs included."""
        if self.runs is None:
            return self.size_bytes
        return (self.size_bytes // self.runs.size - 1) * self.runs.pitch + self.runs.size

    @property
    def pitch(self) -> int:
        """Bytes from one place of all axes but the last to the next."""
        return self.shape[-1] * ITEM_SIZE[self.dtype] if self.runs is None else self.runs.pitch

    def meets(self, other: Tensor, distance: int | None = None) -> bool:
        """Whether two tensors have a byte in common if the other starts so many bytes behind this one.

        Without a distance as they lie in their storage.
        """
        if distance is None:
            distance = other.offset - self.offset
        if distance >= self.span_bytes or -distance >= other.span_bytes:
            return False
        if self.runs is None and other.runs is None:
            return True
        return bool(np.isin(self._places(), distance + other._places(), assume_unique=True).any())

    def _places(self) -> NDArray[np.int64]:
        """How far behind the first each byte lies."""
        places = np.arange(self.size_bytes, dtype=np.int64)
        if self.runs is None:
            return places
        return places // self.runs.size * self.runs.pitch + places % self.runs.size


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
