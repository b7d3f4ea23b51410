"""One ONNX node with its operands, as the converters of `onnx_operators` take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto
from tvm import relax

from edgekit.errors import ModelError
from edgekit.frontend.shapes import show_name

__all__ = ["Array", "Converter", "Node", "Refused", "scalar"]

Array = npt.NDArray[Any]


class Refused(Exception):
    """One node that cannot be converted, and why; collected, and raised with all the others."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node with its operands; an operand left out is None."""

    proto: NodeProto
    attributes: Mapping[str, Any]
    inputs: tuple[relax.Expr | None, ...]
    constants: tuple[Array | None, ...]
    """The value of each operand that is constant, dequantised where it is stored quantised."""
    output_shape: tuple[int, ...] | None
    """Of the first output, by ONNX's inference; None where it cannot tell."""
    opset: int
    emit: Callable[[relax.Expr], relax.Expr]
    """Bind an expression to a variable, so that its type is known and it is computed once."""

    @property
    def outputs(self) -> int:
        """How many of its outputs something reads or could read."""
        return max((i + 1 for i, name in enumerate(self.proto.output) if name), default=0)

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def input(self, position: int) -> relax.Expr:
        value = self.inputs[position] if position < len(self.inputs) else None
        if value is None:
            raise self.wrong(f"lacks input {position}")
        return value

    def known(self, position: int) -> Array | None:
        """A constant operand; None where it is left out or computed."""
        return self.constants[position] if position < len(self.constants) else None

    def constant(self, position: int, what: str) -> Array | None:
        """A constant operand, None when it is left out."""
        if not self.has(position):
            return None
        value = self.constants[position]
        if value is None:
            raise Refused(f"its {what} is computed, not constant")
        return value

    def wrong(self, why: str) -> ModelError:
        return ModelError(f"{self.proto.op_type} {show_name(self.proto.output[0])} of the ONNX file {why}.")

    def shape(self, position: int) -> tuple[int, ...]:
        return tuple(int(d) for d in self.input(position).ty.shape)

    def rank(self, position: int) -> int:
        return len(self.shape(position))

    def dtype(self, position: int) -> str:
        return str(self.input(position).ty.dtype)

    def integer(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def real(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default.encode())
        return bytes(value).decode("ascii", "replace") if isinstance(value, bytes) else str(value)

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        return [int(v) for v in self.attributes.get(name, default)]

    def axis(self, value: int, rank: int) -> int:
        """An axis from 0, of a tensor of `rank` dimensions."""
        if not -rank <= value < max(rank, 1):
            raise self.wrong(f"has axis {value} on {rank} dimensions")
        return value % rank if rank else 0

    def axes(self, position: int, since: int) -> list[int] | None:
        """Axes as given: an operand from operator set `since` on and an attribute before; None for none."""
        if self.opset >= since:
            values = self.constant(position, "list of axes")
            return None if values is None else [int(v) for v in values.reshape(-1)]
        return self.integers("axes", ()) if "axes" in self.attributes else None


Converter = Callable[[Node], "relax.Expr | list[relax.Expr]"]


def scalar(value: float | int | bool, dtype: str) -> relax.Expr:
    """A constant without dimensions."""
    return relax.const(np.asarray(value, dtype=dtype), dtype)
