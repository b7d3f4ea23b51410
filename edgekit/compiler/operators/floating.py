"""What has no integer form: a function that TVM legalises an operator of the source to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from edgekit.compiler.operators.base import Operator, Shape

__all__ = ["FloatFunction"]


@dataclass(frozen=True, slots=True, eq=False)
class FloatFunction(Operator):
    """A TIR function over tensors in the source's own layout: its inputs in order, then its output.

    It computes in float32, or in the integers and booleans that its tensors hold (argmax, masks, indices).
    Constants are inputs whose tensors have data. Several operators of the source may be fused into one.
    """

    NAME: ClassVar[str] = "float"
    function: Any
    """`tvm.tirx.PrimFunc`, unscheduled: one block a stage, parameters are buffers."""
    title: str
    """The source's operators by TVM's names, joined by '+': conv2d+add+relu."""
    computes_in_float: bool
    """Whether any tensor of it holds float32; otherwise its answer is the same on every target."""
    work: int
    """Multiply-accumulates of the whole function."""
    trained: int
    """Float32 constants among its inputs."""

    @property
    def label(self) -> str:
        return f"{self.NAME}.{self.title}" if self.computes_in_float else self.title

    def macs(self, output: Shape) -> int:
        return self.work

    def parameters(self) -> int:
        return self.trained
