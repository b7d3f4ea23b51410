"""Shape arithmetic of TFLite files and weights stored as float16, worked out while importing.

TensorFlow's converter writes a reshape of a dynamic batch as SHAPE → STRIDED_SLICE → PACK → RESHAPE. Once the
inputs are fixed these are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.frontend.tflite_graph import TfliteTensor
from edgekit.frontend.tflite_operators import Operands

__all__ = ["FOLDED", "fold", "is_foldable"]

Integers = npt.NDArray[Any]

INTEGER_TYPES = ("int32", "int64")


def _values(operands: Operands, position: int) -> Integers:
    tensor = operands.input(position)
    if tensor.data is None or tensor.dtype not in INTEGER_TYPES:
        raise operands.wrong(f"input {position} must be a constant of integers")
    values: Integers = tensor.values()
    return values


def _shape(operands: Operands) -> Integers:
    return np.asarray(operands.input(0).shape, dtype=operands.output.dtype)


def _strided_slice(operands: Operands) -> Integers:
    values = _values(operands, 0)
    begin, end, step = (_values(operands, i).ravel() for i in (1, 2, 3))
    options = operands.options
    if values.ndim != 1 or not len(begin) == len(end) == len(step) == 1 or step[0] == 0:
        raise operands.wrong("it slices a shape in a way that makes no sense")
    if options is not None and (options.i32(2) or options.i32(3) or options.boolean(5)):
        raise operands.wrong("it slices a shape with an ellipsis or a new axis")
    masks = (0, 0, 0) if options is None else (options.i32(0) & 1, options.i32(1) & 1, options.i32(4) & 1)
    first = 0 if masks[0] else int(begin[0])
    if masks[2]:
        if not -len(values) <= first < len(values):
            raise operands.wrong(f"it takes dimension {first} of {len(values)}")
        return np.asarray(values[first])
    return values[None if masks[0] else first : None if masks[1] else int(end[0]) : int(step[0])]


def _pack(operands: Operands) -> Integers:
    parts = [_values(operands, i) for i in range(len(operands.inputs))]
    axis = operands.options.i32(1) if operands.options is not None else 0
    if not parts or any(p.shape != parts[0].shape or p.ndim > 1 for p in parts) or axis not in (0, -1):
        raise operands.wrong("it packs numbers in a way that makes no sense")
    return np.stack(parts, axis=axis)


def _from_half(operands: Operands) -> Integers:
    return operands.input(0).values().astype(np.float32)


FOLDED: Mapping[str, Callable[[Operands], Integers]] = {
    "DEQUANTIZE": _from_half,
    "PACK": _pack,
    "SHAPE": _shape,
    "STRIDED_SLICE": _strided_slice,
}


def is_foldable(operands: Operands, constants: set[int]) -> bool:
    """Whether an operator is shape arithmetic: from constants or a shape, to integers."""
    if operands.operator.op == "DEQUANTIZE":
        first = operands.inputs[0] if operands.inputs else None
        half = first is not None and first.index in constants and first.dtype == "float16"
        return half and operands.output.dtype == "float32" and not (first is None or first.is_sparse)
    if operands.operator.op not in FOLDED or operands.output.dtype not in INTEGER_TYPES:
        return False
    if operands.operator.op == "SHAPE":
        return len(operands.inputs) == 1 and operands.inputs[0] is not None
    return all(t is not None and t.index in constants for t in operands.inputs)


def fold(operands: Operands) -> TfliteTensor:
    """The output of a foldable operator, as a constant."""
    values = np.asarray(FOLDED[operands.operator.op](operands), dtype=operands.output.dtype)
    shape = tuple(values.shape)
    return replace(operands.output, shape=shape, signature=shape, data=memoryview(values.tobytes()))
