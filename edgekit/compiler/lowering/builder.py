"""Grows a Program step by step: tensors, reshapes as views of one storage, layout changes as steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import Place, Quantization
from edgekit.compiler.operators import Operator, Transpose
from edgekit.compiler.program import Step, Tensor

__all__ = ["Order", "ProgramBuilder", "axis_last", "identity_order"]

Order = tuple[int, ...]
"""Physical axis i of a stored tensor is logical axis order[i]: NCHW stored as NHWC is (0, 2, 3, 1)."""


def identity_order(rank: int) -> Order:
    return tuple(range(rank))


def axis_last(order: Order, axis: int) -> Order:
    """The order with that logical axis innermost, where it is not already."""
    return order if order[-1] == axis else (*(each for each in order if each != axis), axis)


class ProgramBuilder:
    """The tensors and steps so far. Tensor ids are positions in `tensors`."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.steps: list[Step] = []
        self._transposed: dict[tuple[int, Order], int] = {}

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        quantization: Quantization | None,
        *,
        data: NDArray[np.generic] | None = None,
        storage: int | None = None,
    ) -> int:
        """Add a tensor; `storage` makes it a view of that other storage."""
        index = len(self.tensors)
        where = index if storage is None else storage
        self.tensors.append(Tensor(index, name, shape, dtype, quantization, where, data))
        return index

    def set_quantization(self, index: int, quantization: Quantization) -> None:
        self.tensors[index] = replace(self.tensors[index], quantization=quantization)

    def step(
        self,
        operator: Operator,
        inputs: tuple[int, ...],
        place: Place | None,
        name: str,
        shape: tuple[int, ...],
        quantization: Quantization | None,
        dtype: str = "int8",
        *,
        float_because: str | None = None,
    ) -> int:
        """Add an operator and its output tensor; returns the tensor's id."""
        output = self.tensor(name, shape, dtype, quantization)
        self.steps.append(Step(operator, inputs, output, place, float_because))
        return output

    def view(self, index: int, shape: tuple[int, ...]) -> int:
        """The same storage in another shape of as many elements."""
        source = self.tensors[index]
        if source.shape == shape:
            return index
        if math.prod(source.shape) != math.prod(shape):
            raise ValueError(f"cannot view {source.shape} as {shape}")
        data = None if source.data is None else source.data.reshape(shape)
        return self.tensor(
            source.name, shape, source.dtype, source.quantization, data=data, storage=source.storage
        )

    def transpose(self, index: int, axes: Order, place: Place | None) -> int:
        """Physical transposition.

        Axis i of the result is axis `axes[i]`. A view where only axes of size 1 move.
        """
        source = self.tensors[index]
        shape = tuple(source.shape[axis] for axis in axes)
        moved = [axis for axis in axes if source.shape[axis] != 1]
        if moved == sorted(moved):
            return self.view(index, shape)
        key = (index, axes)
        if key not in self._transposed:
            if source.data is not None:
                data = np.ascontiguousarray(np.transpose(source.data, axes))
                result = self.tensor(source.name, shape, source.dtype, source.quantization, data=data)
            else:
                result = self.step(
                    Transpose(axes), (index,), place, source.name, shape, source.quantization, source.dtype
                )
            self._transposed[key] = result
        return self._transposed[key]

    def in_order(self, index: int, order: Order, wanted: Order, place: Place | None) -> int:
        """A tensor stored in `order`, stored in `wanted` order instead."""
        if order == wanted:
            return index
        return self.transpose(index, tuple(order.index(axis) for axis in wanted), place)
