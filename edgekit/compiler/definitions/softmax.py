"""gemmlowp's fixed-point softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, SUM, Definition, at_index, const, i32
from edgekit.compiler.fixed_point import saturate
from edgekit.compiler.program import Tensor

__all__ = ["softmax"]


def softmax(operator: op.Softmax, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    """gemmlowp's fixed-point softmax (TFLite softmax.h), its exponentials from the table."""
    data = inputs[0]
    table = const("table", operator.table)
    rows = output.shape[:-1]
    scan = te.reduce_axis((0, output.shape[-1]), name="k")
    largest = te.compute(rows, lambda *at: te.max(at_index(data, *at, scan), axis=scan), name="largest")
    add = te.reduce_axis((0, output.shape[-1]), name="k")

    def exponential(at: Sequence[Any], column: Any) -> Any:
        return table[0][i32(largest[tuple(at)]) - i32(at_index(data, *at, column))]

    total = te.compute(
        rows,
        lambda *at: te.sum(_shift_right_rounding(exponential(at, add), 12), axis=add),
        name=SUM,
    )
    headroom = te.compute(rows, lambda *at: tirx.clz(total[at]), name="headroom")
    reciprocal = _reciprocal(
        rows,
        lambda *at: tirx.bitwise_and(
            tirx.shift_left(total[at], headroom[at]), tirx.const(0x7FFFFFFF, "int32")
        ),
    )

    def value(*at: Any) -> Any:
        row, column = at[:-1], at[-1]
        product = _high_multiply(reciprocal[row], exponential(row, column))
        # The exponent is 35 − headroom; 32 and more (a sum of 512 or more) rounds to nothing.
        exponent = tirx.min(i32(35) - headroom[row], i32(31))
        mask = tirx.shift_left(tirx.const(1, "int64"), tirx.Cast("int64", exponent)) - tirx.const(1, "int64")
        wide = tirx.Cast("int64", product) + tirx.shift_right(
            mask + tirx.const(1, "int64"), tirx.const(1, "int64")
        )
        rounded = i32(tirx.shift_right(wide, tirx.Cast("int64", exponent)))
        kept = tirx.Select(headroom[row] >= i32(4), rounded, i32(0))
        return saturate(kept - i32(128), -128, 127)

    return Definition(inputs, (table,), te.compute(output.shape, value, name=OUTPUT))


def _high_multiply(a: Any, b: Any) -> Any:
    """(a · b + 2^30) >> 31 in 64 bits.

    Gemmlowp's SaturatingRoundingDoublingHighMul where it cannot saturate.
    """
    product = tirx.Cast("int64", a) * tirx.Cast("int64", b) + tirx.const(1 << 30, "int64")
    return i32(tirx.shift_right(product, tirx.const(31, "int64")))


def _shift_right_rounding(value: Any, exponent: int) -> Any:
    """value / 2^exponent to nearest, for value ≥ 0 below 2^31 − 2^(exponent−1) or in 64 bits."""
    wide = tirx.Cast("int64", value) + tirx.const(1 << (exponent - 1), "int64")
    return i32(tirx.shift_right(wide, tirx.const(exponent, "int64")))


def _reciprocal(shape: tuple[int, ...], operand: Callable[..., Any]) -> Any:
    """1 / (1 + a) for a in [0, 1), Q0.31 in and out: three Newton steps (gemmlowp fixedpoint.h).

    Each step is a stage of its own, since it reads the one before three times.
    """

    def half(*at: Any) -> Any:
        one_plus = tirx.Cast("int64", operand(*at)) + tirx.const(2**31, "int64")
        return i32(tirx.shift_right(one_plus, tirx.const(1, "int64")))

    half_denominator = te.compute(shape, half, name="half_denominator")
    estimate = te.compute(
        shape,
        lambda *at: i32(1515870810) + _high_multiply(half_denominator[at], i32(-1010580540)),
        name="estimate",
    )
    for step in range(3):
        estimate = _newton_step(f"newton{step}", shape, half_denominator, estimate)

    def doubled(*at: Any) -> Any:
        twice = tirx.shift_left(tirx.Cast("int64", estimate[at]), tirx.const(1, "int64"))
        return i32(tirx.min(twice, tirx.const(2**31 - 1, "int64")))

    return te.compute(shape, doubled, name="reciprocal")


def _newton_step(name: str, shape: tuple[int, ...], half_denominator: Any, estimate: Any) -> Any:
    """x + x · (1 − d · x), Q2.29."""
    error = te.compute(
        shape,
        lambda *at: i32(1 << 29) - _high_multiply(half_denominator[at], estimate[at]),
        name=f"{name}_error",
    )
    return te.compute(
        shape,
        lambda *at: estimate[at] + tirx.shift_left(_high_multiply(estimate[at], error[at]), i32(2)),
        name=name,
    )
