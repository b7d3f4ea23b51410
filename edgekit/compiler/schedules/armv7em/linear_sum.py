"""The sum of two int8 tensors of their own scales as one linear form: (a · ka + b · kb + c) >> s.

TFLite rescales both to a common scale, adds, and rescales the sum: four roundings. There are only 65,536
pairs of inputs; a linear form with some 20 fractional bits is searched that gives the same answer for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler
from edgekit.compiler.schedules.armv7em.strips import in_strips, store_four

__all__ = ["LinearSum", "add_linear", "add_linear_scalar", "double_rounding", "linear_sum"]

LEFT_SHIFT = 20
"""TFLite's head room for the two operands (docs/arithmetic.md, ADD)."""

FARTHEST = 12
"""How far from the nearest integers the factors are searched."""

_VALUES = np.arange(-128, 128, dtype=np.int64)


def _changes() -> NDArray[np.int64]:
    """(N, 2) changes of both factors, small ones first."""
    grid = np.mgrid[-FARTHEST : FARTHEST + 1, -FARTHEST : FARTHEST + 1].reshape(2, -1).T
    order = np.argsort(np.abs(grid).sum(axis=1), kind="stable")
    return np.asarray(grid[order], np.int64)


_CHANGES = _changes()


@dataclass(frozen=True, slots=True)
class LinearSum:
    """y = ssat8((a · first + b · second + constant) >> shift), for stored values a and b."""

    first: int
    second: int
    constant: int
    shift: int


def linear_sum(operator: op.Add | op.Subtract) -> LinearSum | None:
    """The linear form of an operator; None where none of those tried equals it on all inputs.

    Candidates are first tried on the pairs whose sum lies so near to a half that they can differ there; these
    also say what the constant has to be.
    """
    expected = _exact(operator)
    sign = -1 if isinstance(operator, op.Subtract) else 1
    out = _real(operator.output_rescale)
    factors = [2.0**LEFT_SHIFT * _real(rescale) * out for rescale in operator.rescales]
    real = _centred_sum(operator, factors[0], sign * factors[1]) + operator.output_zero_point
    shift = min(30 - math.ceil(math.log2(max(np.abs(real).max(), 1.0) + 1)), 26)
    if shift < 8:
        return None
    nearest = np.array([round(factors[0] * 2.0**shift), sign * round(factors[1] * 2.0**shift)])
    low, high = operator.clamp.low, operator.clamp.high
    margin = 4 * 255 * FARTHEST * 2.0**-shift
    near = np.abs(real - np.floor(real) - 0.5) < margin
    near &= (real > low - 1) & (real < high + 1)
    places = zip(np.nonzero(near), operator.zero_points, strict=True)
    a, b = (_VALUES[at] - zero_point for at, zero_point in places)
    wanted = expected[near]
    nominal, slack = (1 << (shift - 1)) + (operator.output_zero_point << shift), 1 << (shift - 4)
    for change in _CHANGES:
        first, second = (int(each) for each in nearest + change)
        values = a * first + b * second
        # What the constant has to be for these pairs, from the outputs that are not at the clamp.
        least = ((wanted << shift) - values)[wanted > low].max(initial=nominal - slack)
        most = (((wanted + 1) << shift) - 1 - values)[wanted < high].min(initial=nominal + slack)
        if least > most:
            continue
        constant = int(least + most) // 2
        everywhere = (_centred_sum(operator, first, second) + constant) >> shift
        if np.array_equal(np.clip(everywhere, low, high), expected):
            centre = first * operator.zero_points[0] + second * operator.zero_points[1]
            return LinearSum(first, second, _wrapped(constant - centre), shift)
    return None


def _centred_sum(operator: op.Add | op.Subtract, first: Any, second: Any) -> NDArray[Any]:
    """(a − z_a) · first + (b − z_b) · second of all pairs, (256, 256)."""
    a, b = (_VALUES - zero_point for zero_point in operator.zero_points)
    return np.asarray(a[:, None] * first + b[None, :] * second)


def _wrapped(value: int) -> int:
    """Modulo 2^32, as an int32: only the whole form has to fit."""
    return (value + 2**31) % 2**32 - 2**31


def _real(rescale: op.Rescale) -> float:
    return rescale.multiplier / 2.0**31 * 2.0**rescale.shift


def double_rounding(values: NDArray[np.int64], rescale: op.Rescale) -> NDArray[np.int64]:
    """TFLite's MultiplyByQuantizedMultiplier with two roundings."""
    shifted = values << max(rescale.shift, 0)
    high = (shifted * rescale.multiplier + (1 << 30)) >> 31
    exponent = max(-rescale.shift, 0)
    mask = (1 << exponent) - 1
    return (high >> exponent) + ((high & mask) > (mask >> 1) + (high < 0))


def _exact(operator: op.Add | op.Subtract) -> NDArray[np.int64]:
    """The outputs of all pairs of inputs, (256, 256)."""
    first, second = (
        double_rounding((_VALUES - zero_point) << LEFT_SHIFT, rescale)
        for zero_point, rescale in zip(operator.zero_points, operator.rescales, strict=True)
    )
    total = first[:, None] + (-1 if isinstance(operator, op.Subtract) else 1) * second[None, :]
    result = double_rounding(total, operator.output_rescale) + operator.output_zero_point
    return np.clip(result, operator.clamp.low, operator.clamp.high)


def add_linear(shift: int) -> Assembler:
    """void f(const int8_t *a, const int8_t *b, int8_t *output, int32_t bytes,
              int32_t first, int32_t second, int32_t constant)

    The output may be where a is.
    """
    code = Assembler(
        f"edgekit_add_linear_{shift}",
        "Sums of two tensors of their own scales.\n(a, b, output, bytes, first, second, constant)",
    )
    a, b, output, count, first, second, constant, *values = code.registers(
        "a b output bytes first second constant y0 y1 y2 y3 b0 b1 -"
    )
    ys, bs = values[:4], values[4:6]

    def four(counted: Callable[[], None]) -> None:
        for y in ys:
            code.ldrsb(y, a, post=1)
        for y in ys:
            code.mla(y, y, first, constant)
        for pair in (ys[:2], ys[2:]):
            for value in bs:
                code.ldrsb(value, b, post=1)
            for y, value in zip(pair, bs, strict=True):
                code.mla(y, value, second, y)
        for y in ys:
            code.ssat(y, 8, y, asr=shift)
        counted()
        store_four(code, ys, output)

    def one(counted: Callable[[], None]) -> None:
        code.ldrsb(ys[0], a, post=1)
        code.ldrsb(bs[0], b, post=1)
        code.mla(ys[0], ys[0], first, constant)
        code.mla(ys[0], bs[0], second, ys[0])
        code.ssat(ys[0], 8, ys[0], asr=shift)
        code.strb(ys[0], output, post=1)
        counted()

    arguments = code.enter()
    code.ldrd(first, second, SP, arguments)
    code.ldr(constant, SP, arguments + 8)
    in_strips(code, count, 4, four, one)
    code.leave()
    return code


def add_linear_scalar(shift: int) -> Assembler:
    """The same where b is one byte for all. The output may be where a is."""
    code = Assembler(
        f"edgekit_add_linear_{shift}_scalar",
        "Sums of a tensor and one value.\n(a, b, output, bytes, first, second, constant)",
    )
    a, b, output, count, first, second, constant, *ys = code.registers(
        "a b output bytes first second constant y0 y1 y2 y3"
    )

    def four(counted: Callable[[], None]) -> None:
        for y in ys:
            code.ldrsb(y, a, post=1)
        for y in ys:
            code.mla(y, y, first, constant)
        for y in ys:
            code.ssat(y, 8, y, asr=shift)
        counted()
        store_four(code, ys, output)

    def one(counted: Callable[[], None]) -> None:
        code.ldrsb(ys[0], a, post=1)
        code.mla(ys[0], ys[0], first, constant)
        code.ssat(ys[0], 8, ys[0], asr=shift)
        code.strb(ys[0], output, post=1)
        counted()

    arguments = code.enter()
    code.ldrd(first, second, SP, arguments)
    code.ldr(constant, SP, arguments + 8)
    code.ldrsb(b, b)
    code.mla(constant, b, second, constant)
    in_strips(code, count, 4, four, one)
    code.leave()
    return code
