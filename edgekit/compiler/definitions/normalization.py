"""Layer normalisation in integers: exact sums, an inverse square root by Newton steps, one rounding."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, SUM, Definition, at_index, const, i32
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["layer_norm"]

FRACTION = 20
"""Bits behind the point of a normalised value."""
OFFSET_FRACTION = 16
SPREAD_FRACTION = 16
"""Bits behind the point of W, which hold an epsilon that is small beside one step of the input."""
NEWTON_STEPS = 4

# 1/sqrt(v) of v in [1/4, 1) is within 9 % of this line, Q2.29; each step squares the error (times 1.5).
_LINE = (1143535043, 652298158)
_LIMIT = 2**30 - 1


def _i64(value: int) -> Any:
    return tirx.const(value, "int64")


def _wide(value: Any) -> Any:
    return tirx.Cast("int64", value)


def layer_norm(operator: op.LayerNorm, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data = inputs[0]
    count = int(output.shape[-1])
    rows = output.shape[:-1]
    multipliers, offsets = const("multipliers", operator.multipliers), const("offsets", operator.offsets)
    first = te.reduce_axis((0, count), name="k")
    second = te.reduce_axis((0, count), name="k")
    total = te.compute(rows, lambda *at: te.sum(i32(at_index(data, *at, first)), axis=first), name=SUM)
    squares = te.compute(
        rows,
        lambda *at: te.sum(i32(at_index(data, *at, second)) * i32(at_index(data, *at, second)), axis=second),
        name="squares",
    )
    spread = te.compute(
        rows,
        lambda *at: tirx.max(
            tirx.shift_left(
                _wide(squares[at]) * _i64(count) - _wide(total[at]) * _wide(total[at]), _i64(SPREAD_FRACTION)
            )
            + _i64(operator.epsilon),
            _i64(1),
        ),
        name="spread",
    )
    lead = te.compute(rows, lambda *at: _even_headroom(spread[at]), name="lead")
    inverse = _inverse_root(rows, spread, lead)
    # D · inverse is Q29 · 2^(31 − lead / 2), and half of W's fraction: this many bits are too many.
    bits = 60 - SPREAD_FRACTION // 2 - FRACTION
    excess = te.compute(
        rows, lambda *at: _i64(bits) - _wide(tirx.shift_right(lead[at], i32(1))), name="excess"
    )
    half = te.compute(rows, lambda *at: tirx.shift_left(_i64(1), excess[at] - _i64(1)), name="half")

    def value(*at: Any) -> Any:
        row, column = at[:-1], at[-1]
        centred = i32(at_index(data, *at)) * i32(count) - total[row]
        normal = tirx.shift_right(_wide(centred) * _wide(inverse[row]) + half[row], excess[row])
        scaled = _rounded(_wide(i32(normal)) * _wide(multipliers[0][column]), operator.shift)
        bounded = i32(tirx.min(tirx.max(scaled, _i64(-_LIMIT)), _i64(_LIMIT)))
        # A half of the last step, so that the shift rounds; the zero point is added behind it.
        sum_ = bounded + offsets[0][column] + i32(1 << (OFFSET_FRACTION - 1))
        whole = tirx.shift_right(sum_, i32(OFFSET_FRACTION))
        return saturate(whole + i32(operator.output_zero_point), operator.clamp.low, operator.clamp.high)

    result = te.compute(output.shape, value, name=OUTPUT)
    return Definition(inputs, (multipliers, offsets), result)


def _rounded(value: Any, shift: int) -> Any:
    """value / 2^shift in 64 bits, halves upwards."""
    if shift == 0:
        return value
    return tirx.shift_right(value + _i64(1 << (shift - 1)), _i64(shift))


def _even_headroom(value: Any) -> Any:
    """The even shift that brings a positive int64 below 2^62 into [2^60, 2^62)."""
    high = i32(tirx.shift_right(value, _i64(32)))
    zeros = tirx.Select(high > i32(0), tirx.clz(high), i32(32) + tirx.clz(i32(value)))
    return tirx.bitwise_and(zeros - i32(2), i32(-2))


def _inverse_root(rows: tuple[int, ...], spread: Any, lead: Any) -> Any:
    """2^31 / sqrt(spread · 2^lead), Q2.29; each Newton step reads the one before three times."""
    fraction = te.compute(
        rows,
        lambda *at: i32(tirx.shift_right(tirx.shift_left(spread[at], _wide(lead[at])), _i64(31))),
        name="fraction",
    )
    start, slope = _LINE
    estimate = te.compute(
        rows,
        lambda *at: i32(_i64(start) - tirx.shift_right(_wide(fraction[at]) * _i64(slope), _i64(31))),
        name="estimate",
    )
    for step in range(NEWTON_STEPS):
        estimate = _newton_step(f"newton{step}", rows, fraction, estimate)
    return estimate


def _newton_step(name: str, rows: tuple[int, ...], fraction: Any, estimate: Any) -> Any:
    """y · (3 − v · y²) / 2"""
    square = te.compute(
        rows,
        lambda *at: tirx.shift_right(_wide(estimate[at]) * _wide(estimate[at]), _i64(29)),
        name=f"{name}_square",
    )
    rest = te.compute(
        rows,
        lambda *at: _i64(3 << 29) - tirx.shift_right(_wide(fraction[at]) * square[at], _i64(31)),
        name=f"{name}_rest",
    )
    return te.compute(
        rows, lambda *at: i32(tirx.shift_right(_wide(estimate[at]) * rest[at], _i64(30))), name=name
    )
