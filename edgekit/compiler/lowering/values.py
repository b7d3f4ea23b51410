"""What is known of a Relax variable while the lowering walks the graph.

A QDQ graph says "dequantize, compute in reals, quantize". Walked in order, each real-valued result is either
an integer tensor seen as reals (`Real`) or a computation that waits for the quantize which fixes its output
scale (`Pending`). The integer operator is emitted when that quantize is reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Place, Quantization
from edgekit.compiler.lowering.builder import Order
from edgekit.compiler.operators import Clamp

__all__ = [
    "Constant",
    "Float",
    "NoFloatForm",
    "NoIntegerForm",
    "Pending",
    "QuantizedConstant",
    "Real",
    "Stored",
    "Tabulated",
    "Tuple",
    "Unknown",
    "Value",
]


class NoFloatForm(Exception):
    """An operator, used as it is here, cannot be computed in float either; the text says why."""


class NoIntegerForm(Exception):
    """An operator, used as it is here, has no integer form; the text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant of any type, as the source holds it."""

    array: NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedConstant:
    """A dequantised constant: reals = scale · (stored − zero_point), all three of the same shape.

    Scales are kept an element each, so that reshapes and transpositions need no axis bookkeeping.
    """

    stored: NDArray[np.int64]
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    dtype: str

    def reals(self) -> NDArray[np.float64]:
        return self.scale * (self.stored - self.zero_point)

    def map(self, function: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> QuantizedConstant:
        """Apply a data movement to the values and their scales alike."""
        return QuantizedConstant(
            function(self.stored).astype(np.int64),
            function(self.scale).astype(np.float64),
            function(self.zero_point).astype(np.int64),
            self.dtype,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Integers as stored.

    The source's value is the int8 tensor's plus `offset` (128 where the source says uint8).
    """

    tensor: int
    order: Order
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """An int8 tensor (int16 in 16x8 models) seen as reals."""

    tensor: int
    order: Order
    quantization: Quantization
    dtype: str = "int8"


@dataclass(frozen=True, slots=True, eq=False)
class Float:
    """A tensor in logical order that stands for what it stores: float32, or integers and booleans that are no
    quantised reals (indices, masks).
    """

    tensor: int


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A real-valued result whose integer operator is emitted once its output quantisation is known.

    `emit(quantization, clamp)` adds the operator and returns its tensor and the order it is stored in.
    `low` and `high` are real bounds (ReLU, ReLU6). `add_bias`, where not None, takes per-channel biases.
    `dtype` is what the operator stores: the quantize must ask for it (uint8 counts as int8).
    """

    emit: Callable[[Quantization, Clamp], tuple[int, Order]]
    shape: tuple[int, ...]
    place: Place | None
    low: float = -math.inf
    high: float = math.inf
    add_bias: Callable[[Constant | QuantizedConstant], Pending] | None = None
    moves: tuple[Callable[[Stored], Stored], ...] = field(default=())
    dtype: str = "int8"
    table: Tabulated | None = None
    """The same as a table, for what goes on computing with it before it is quantised."""
    squared: Pending | None = None
    """Its square, where that has an operator of its own."""

    def clamped(self, low: float, high: float) -> Pending:
        """The same with tighter bounds: a clamp to [low, high] applied after the bounds that it has."""
        return replace(
            self,
            low=min(max(self.low, low), high),
            high=max(min(self.high, high), low),
            add_bias=None,
            table=None,
            squared=None,
        )

    def moved(self, move: Callable[[Stored], Stored], shape: tuple[int, ...]) -> Pending:
        """The same followed by a data movement (it commutes with a per-tensor quantize)."""
        return replace(self, moves=(*self.moves, move), shape=shape, add_bias=None, table=None, squared=None)


@dataclass(frozen=True, slots=True, eq=False)
class Tabulated:
    """A function of one int8 tensor and nothing else, known by its result for each of the 256 stored values.

    `results` is (256,), of the type that the graph states, for the stored values −128 … 127 in order.
    Functions of functions and of constants stay one table until a quantize fixes the scale of the result.
    `fixed`, where not None, gives the stored results by LiteRT's fixed point for the one operator that made
    them. (`rules.tables.as_float` makes a float32 tensor of it.)
    """

    source: Real
    results: NDArray[np.generic]
    shape: tuple[int, ...]
    place: Place | None
    fixed: Callable[[Quantization], NDArray[np.int8]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Tuple:
    """Several values at once (the operand of concat, the results of split)."""

    fields: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Unknown:
    """The result of an operator that was refused; whatever uses it is not refused a second time."""


Value = Constant | QuantizedConstant | Stored | Real | Float | Pending | Tabulated | Tuple | Unknown
