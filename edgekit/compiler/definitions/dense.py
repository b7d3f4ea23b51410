"""Fully connected layers: integer sums, scaled as float64 would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.convolution import biased_sum
from edgekit.compiler.definitions.stages import (
    OUTPUT,
    SUM,
    Definition,
    at_index,
    clamped_output,
    const,
    i32,
    rescaled_stage,
)
from edgekit.compiler.fixed_point import float64_ulp_bound, round_as_float64, saturate, wide_product
from edgekit.compiler.program import Tensor

__all__ = ["dense", "matmul"]


def _float64_output(
    operator: op.Dense, total: Any, weight_sums: NDArray[np.int64], output: Tensor
) -> tuple[list[tuple[Any, NDArray[np.generic]]], Any]:
    """Bias, scaling as float64 would, and clamp of a fully connected layer's accumulators."""
    bias, biased = biased_sum(operator, total, weight_sums, output)
    high = const("multipliers_high", operator.multipliers.high)
    low = const("multipliers_low", operator.multipliers.low)
    shifts = const("shifts", operator.multipliers.shift)

    def product(part: Any) -> Any:
        return lambda *at: wide_product(tirx.abs(biased[at]), part[0][at[-1]])

    highs = te.compute(output.shape, product(high), name="high_product")
    lows = te.compute(output.shape, product(low), name="low_product")
    quarters = te.compute(
        output.shape,
        lambda *at: float64_ulp_bound(highs[at], lows[at], shifts[0][at[-1]]),
        name="quarters",
    )
    magnitudes = te.compute(
        output.shape,
        lambda *at: round_as_float64(highs[at], lows[at], shifts[0][at[-1]], quarters[at]),
        name="magnitude",
    )

    def finish(*at: Any) -> Any:
        value = tirx.Select(biased[at] < i32(0), -magnitudes[at], magnitudes[at])
        return saturate(value + i32(operator.output_zero_point), operator.clamp.low, operator.clamp.high)

    return [bias, high, low, shifts], te.compute(output.shape, finish, name=OUTPUT)


def dense(operator: op.Dense, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    weights = const("weights", operator.weights)
    k = te.reduce_axis((0, operator.weights.shape[1]), name="k")
    total = te.compute(
        output.shape,
        lambda *at: te.sum(i32(at_index(inputs[0], *at[:-1], k)) * i32(weights[0][at[-1], k]), axis=k),
        name=SUM,
    )
    sums = operator.weights.astype(np.int64).sum(axis=1)
    constants, result = _float64_output(operator, total, sums, output)
    return Definition(inputs, (weights, *constants), result)


def matmul(operator: op.MatMul, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    k = te.reduce_axis((0, operator.depth), name="k")

    def element(position: int, at: Sequence[Any]) -> Any:
        """An operand at a logical place, relative to its zero point; broadcast axes stand still."""
        data, order = inputs[position], operator.orders[position]
        place = at[len(at) - len(order) :]
        stored = data[
            tuple(0 if int(n) == 1 else place[axis] for n, axis in zip(data.shape, order, strict=True))
        ]
        return i32(stored) - i32(operator.zero_points[position])

    total = te.compute(
        output.shape,
        lambda *at: te.sum(element(0, (*at[:-1], k)) * element(1, (*at[:-2], k, at[-1])), axis=k),
        name=SUM,
    )
    scaled = rescaled_stage("scaled", output.shape, lambda *at: total[at], operator.rescale)
    return Definition(inputs, (), clamped_output(scaled, operator.output_zero_point, operator.clamp, output))
