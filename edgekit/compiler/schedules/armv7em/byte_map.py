"""Functions of one int8 value: as a linear form where one equals them on all 256 values, else as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.schedules.armv7em.frame import Frame
from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler
from edgekit.compiler.schedules.armv7em.linear_sum import double_rounding
from edgekit.compiler.schedules.armv7em.lookup import look_up
from edgekit.compiler.schedules.armv7em.strips import in_strips, store_four

__all__ = ["ByteMap", "LinearMap", "byte_map", "linear_map", "operand_maps", "requantized", "scale_linear"]

SHIFTS = (20, 16, 12)
"""Fractional bits; the most wherever they fit, so that layers share a routine."""

LARGEST = 2**40
"""Beyond all factors and constants."""

_VALUES = np.arange(-128, 128, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class LinearMap:
    """y = ssat8((x · factor + constant) >> shift), for stored values x."""

    factor: int
    constant: int
    shift: int


@dataclass(frozen=True, slots=True, eq=False)
class ByteMap:
    """A function of one int8 value as a kernel computes it; `name` is its table's among the constants."""

    name: str
    table: NDArray[np.int8]
    """The outputs of all inputs from −128 up, (256,)."""
    form: LinearMap | None

    @property
    def constants(self) -> dict[str, NDArray[np.generic]]:
        """What the frame has to hold for it."""
        return {} if self.form is not None else {self.name: self.table}

    def emit(self, frame: Frame, source: Any, to: Any, size_bytes: int) -> None:
        """Each byte from `source` mapped to `to`, which may be the same place."""
        if self.form is None:
            frame.call(look_up(), source, frame.constants[self.name], to, size_bytes)
        else:
            form = self.form
            frame.call(scale_linear(form.shift), source, to, size_bytes, form.factor, form.constant)


def byte_map(name: str, table: NDArray[np.int8]) -> ByteMap:
    return ByteMap(name, table, linear_map(table))


def operand_maps(operator: op.Concat | op.Maximum | op.Minimum) -> list[ByteMap | None]:
    """Each operand brought to the output's scale, its table named by its number; None where it has it."""
    return [
        None
        if rescale is None
        else byte_map(f"table{number}", requantized(rescale, zero_point, operator.output_zero_point))
        for number, (rescale, zero_point) in enumerate(
            zip(operator.rescales, operator.zero_points, strict=True)
        )
    ]


def requantized(
    rescale: op.Rescale | None, zero_point: int, output_zero_point: int, clamp: op.Clamp = op.FullRange
) -> NDArray[np.int8]:
    """The outputs of all inputs from −128 up, (256,): TFLite's requantisation with two roundings."""
    values = _VALUES - zero_point
    if rescale is not None:
        values = double_rounding(values, rescale)
    return np.clip(values + output_zero_point, clamp.low, clamp.high).astype(np.int8)


def linear_map(table: NDArray[np.int8]) -> LinearMap | None:
    """The linear form that equals a table (256,) everywhere; None where there is none.

    A constant c has to satisfy table[i] · 2^s − x[i] · k ≤ c for each i that is not at the lower end, and
    c < (table[j] + 1) · 2^s − x[j] · k for each j that is not at the upper one. There is one if all pairs
    allow the factor k.
    """
    wanted = table.astype(np.int64)
    above, below = np.nonzero(wanted > -128)[0], np.nonzero(wanted < 127)[0]
    for shift in SHIFTS:
        distance = _VALUES[below][None, :] - _VALUES[above][:, None]
        room = ((wanted[below] + 1)[None, :] << shift) - 1 - (wanted[above][:, None] << shift)
        most = np.floor_divide(room, distance, out=np.full_like(room, LARGEST), where=distance > 0).min(
            initial=LARGEST
        )
        least = -np.floor_divide(room, -distance, out=np.full_like(room, LARGEST), where=distance < 0).min(
            initial=LARGEST
        )
        if least > most:
            return None
        factor = int(least + most) // 2
        values = _VALUES * factor
        low = ((wanted << shift) - values)[above].max(initial=-LARGEST)
        high = (((wanted + 1) << shift) - 1 - values)[below].min(initial=LARGEST)
        constant = int(low + high) // 2
        if max(np.abs(values + constant).max(), abs(constant)) < 2**31:
            return LinearMap(factor, constant, shift)
    return None


def scale_linear(shift: int) -> Assembler:
    """void f(const int8_t *from, int8_t *to, int32_t bytes, int32_t factor, int32_t constant)

    The output may be where the input is.
    """
    code = Assembler(
        f"edgekit_scale_{shift}",
        f"Linear forms of bytes, {shift} fractional bits.\n(from, to, bytes, factor, constant)",
    )
    source, to, count, factor, constant, *values = code.registers("from to bytes factor constant y0 y1 y2 y3")

    def four(counted: Callable[[], None]) -> None:
        for value in values:
            code.ldrsb(value, source, post=1)
        for value in values:
            code.mla(value, value, factor, constant)
        for value in values:
            code.ssat(value, 8, value, asr=shift)
        counted()
        store_four(code, values, to)

    def one(counted: Callable[[], None]) -> None:
        code.ldrsb(values[0], source, post=1)
        code.mla(values[0], values[0], factor, constant)
        code.ssat(values[0], 8, values[0], asr=shift)
        code.strb(values[0], to, post=1)
        counted()

    arguments = code.enter()
    code.ldr(constant, SP, arguments)
    in_strips(code, count, 4, four, one)
    code.leave()
    return code
