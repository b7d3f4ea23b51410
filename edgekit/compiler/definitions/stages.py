"""The stages that definitions are made of: constants, padding, rescaling, the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import (
    high_multiply_shifted,
    requantize_double_rounding,
    saturate,
    shift_right_double_rounding,
)
from edgekit.compiler.program import Tensor

__all__ = [
    "OUTPUT",
    "PADDED",
    "SUM",
    "Definition",
    "all_of",
    "at_index",
    "clamped_output",
    "const",
    "i32",
    "padded_source",
    "rescaled",
    "rescaled_stage",
]

OUTPUT = "output"


SUM = "sum"


PADDED = "padded"


@dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """Placeholders for the inputs and the constants, the constants' values, and the output stage."""

    inputs: tuple[Any, ...]
    constants: tuple[tuple[Any, NDArray[np.generic]], ...]
    output: Any


def const(name: str, values: NDArray[np.generic]) -> tuple[Any, NDArray[np.generic]]:
    return te.placeholder(values.shape, str(values.dtype), name=name), np.ascontiguousarray(values)


def i32(value: Any) -> Any:
    return tirx.Cast("int32", value) if not isinstance(value, int) else tirx.const(value, "int32")


def at_index(tensor: Any, *index: Any) -> Any:
    return tensor[index]


def all_of(conditions: Sequence[Any]) -> Any:
    combined = conditions[0]
    for condition in conditions[1:]:
        combined = tirx.And(combined, condition)
    return combined


def padded_source(data: Any, window: op.Window, output: Tensor, fill: int) -> Any:
    """The input with the border that the window positions of `output` reach, filled with `fill`.

    Data if none.
    """
    batch, height, width, channels = (int(size) for size in data.shape)
    top, left = window.padding[:2]
    rows = (output.shape[1] - 1) * window.stride[0] + (window.kernel[0] - 1) * window.dilation[0] + 1
    columns = (output.shape[2] - 1) * window.stride[1] + (window.kernel[1] - 1) * window.dilation[1] + 1
    if top == 0 and left == 0 and rows <= height and columns <= width:
        return data

    def value(n: Any, y: Any, x: Any, c: Any) -> Any:
        inside = all_of([y >= top, y < top + height, x >= left, x < left + width])
        return tirx.if_then_else(inside, data[n, y - top, x - left, c], tirx.const(fill, data.dtype))

    return te.compute((batch, rows, columns, channels), value, name=PADDED)


def rescaled(value: Any, rescale: op.Rescale) -> Any:
    """Double rounding with a multiplier known at compile time."""
    shifts = np.array([rescale.shift], np.int32)
    return requantize_double_rounding(value, i32(rescale.multiplier), i32(rescale.shift), shifts)


def rescaled_stage(
    name: str, shape: tuple[int, ...], value: Callable[..., Any], rescale: op.Rescale | None
) -> Any:
    """`value` at each position, rescaled, as stages of their own: rounding reads its operand three times."""
    source = te.compute(shape, value, name=f"{name}_value")
    if rescale is None:
        return source
    shifts = np.array([rescale.shift], np.int32)
    multiplier, shift = i32(rescale.multiplier), i32(rescale.shift)
    high = te.compute(
        shape, lambda *at: high_multiply_shifted(source[at], multiplier, shift, shifts), name=f"{name}_high"
    )
    return te.compute(shape, lambda *at: shift_right_double_rounding(high[at], shift, shifts), name=name)


def clamped_output(total: Any, zero_point: int, clamp: op.Clamp, output: Tensor) -> Any:
    """The output stage: zero point added, clamped, narrowed."""
    return te.compute(
        output.shape,
        lambda *at: saturate(total[at] + i32(zero_point), clamp.low, clamp.high, output.dtype),
        name=OUTPUT,
    )
