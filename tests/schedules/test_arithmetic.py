"""The compile-time proofs: forms that are cheaper than the rules they stand for and equal them everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.schedules.armv7em.byte_map import linear_map, requantized
from edgekit.compiler.schedules.armv7em.float_rule import dense_parameters
from edgekit.compiler.schedules.armv7em.linear_sum import linear_sum
from edgekit.compiler.schedules.armv7em.requantize import channel_parameters
from tests.campaign import campaign_count
from tests.reference import int8
from tests.schedules.cases import case

SEEDS = range(campaign_count(2000, 60))


def _operator(name: str, seed: int) -> Any:
    return case(name, seed).operators[0][0]


def test_dense_sums_are_scaled_as_float64_would() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for seed in SEEDS:
        operator: op.Dense = _operator("dense", seed)
        parameters = dense_parameters(operator)
        if parameters is None:
            continue
        found += 1
        wide = operator.multipliers
        reals = np.ldexp(wide.high.astype(float) * 2.0**32 + wide.low, -wide.shift)
        weights = operator.weights.astype(np.int64)
        bias = operator.bias - operator.input_zero_point * weights.sum(axis=1)
        np.testing.assert_array_equal(parameters.doubled_bias, 2 * bias)
        reach = np.abs(bias) + 128 * np.abs(weights).sum(axis=1)
        for channel, real in enumerate(reals.tolist()):
            sums = _sums(rng, int(reach[channel]), real)
            exact = int8.round_half_away(sums * real).astype(np.int64) + operator.output_zero_point
            product = (sums * int(parameters.multiplier[channel])) >> 31
            cheap = (product + int(parameters.constant[channel])) >> int(parameters.exponent[channel])
            low, high = operator.clamp.low, operator.clamp.high
            np.testing.assert_array_equal(
                np.clip(cheap, low, high), np.clip(exact, low, high), err_msg=f"seed {seed}"
            )
    assert found > len(SEEDS) // 2


def _sums(rng: np.random.Generator, reach: int, real: float) -> NDArray[np.int64]:
    """All reachable sums where they are few; else those around each step of the output, the ends, others."""
    if reach < 20_000:
        return np.arange(-reach, reach + 1)
    steps = np.rint((np.arange(-300, 300) + 0.5) / max(real, 1e-9)).clip(-reach, reach).astype(np.int64)
    near = (steps[:, None] + np.arange(-3, 4)).ravel()
    others = rng.integers(-reach, reach + 1, 2000)
    return np.concatenate([near, others, [-reach, reach]]).clip(-reach, reach)


def test_convolutions_are_requantised_with_two_roundings_or_one() -> None:
    rng = np.random.default_rng(2)
    found = 0
    for seed in SEEDS:
        operator: op.Conv2D = _operator("conv2d", seed)
        weights = operator.weights.reshape(len(operator.bias), -1)
        parameters = channel_parameters(operator, weights)
        if parameters is None:
            continue
        found += 1
        reach = 2**30 - 1 if seed % 5 == 0 else int(128 * np.abs(weights.astype(np.int64)).sum(axis=1).max())
        low, high = operator.clamp.low, operator.clamp.high
        for channel, (multiplier, shift) in enumerate(
            zip(operator.multipliers.tolist(), operator.shifts.tolist(), strict=True)
        ):
            sums = np.concatenate(
                [rng.integers(-reach, reach + 1, 500), np.arange(-500, 500), [-reach, reach]]
            )
            constant = int(parameters.constant[channel])
            addend = constant + (sums >> 63) if parameters.form == "two_sided" else constant
            if operator.rounding == "single":
                nudge = 0
                exact = (sums * multiplier + (1 << (30 - shift))) >> (31 - shift)
            else:
                nudge = 2**31
                exact = int8.double_rounding(sums, multiplier, shift)
            exact = exact + operator.output_zero_point
            product = (2 * sums * int(parameters.multiplier[channel]) + (addend << 32) + nudge) >> 32
            cheap = product >> int(parameters.exponent[channel])
            np.testing.assert_array_equal(
                np.clip(cheap, low, high), np.clip(exact, low, high), err_msg=f"seed {seed}"
            )
    assert found > len(SEEDS) // 3


def test_a_sum_of_two_tensors_is_one_linear_form() -> None:
    values = np.arange(-128, 128, dtype=np.int64)
    found = 0
    for seed in SEEDS:
        operator: op.Add | op.Subtract = _operator("add", seed)
        form = linear_sum(operator)
        if form is None:
            continue
        found += 1
        first, second = (
            int8.double_rounding((values - zero) << 20, rescale.multiplier, rescale.shift)
            for zero, rescale in zip(operator.zero_points, operator.rescales, strict=True)
        )
        sign = -1 if isinstance(operator, op.Subtract) else 1
        total = first[:, None] + sign * second[None, :]
        out = operator.output_rescale
        exact = int8.double_rounding(total, out.multiplier, out.shift) + operator.output_zero_point
        whole = values[:, None] * form.first + values[None, :] * form.second + form.constant
        # The routine's accumulator has 32 bits.
        wrapped = ((whole + 2**31) % 2**32 - 2**31) >> form.shift
        low, high = operator.clamp.low, operator.clamp.high
        np.testing.assert_array_equal(
            np.clip(wrapped, low, high), np.clip(exact, low, high), err_msg=f"{seed}"
        )
    assert found > 0.8 * len(SEEDS)


def test_a_change_of_scale_is_a_linear_form_or_a_table() -> None:
    values = np.arange(-128, 128, dtype=np.int64)
    found = 0
    for seed in SEEDS:
        operator: op.Requantize = _operator("requantize", seed)
        exact = values - operator.input_zero_point
        if operator.rescale is not None:
            exact = int8.double_rounding(exact, operator.rescale.multiplier, operator.rescale.shift)
        exact = np.clip(exact + operator.output_zero_point, operator.clamp.low, operator.clamp.high)
        table = requantized(
            operator.rescale, operator.input_zero_point, operator.output_zero_point, operator.clamp
        )
        np.testing.assert_array_equal(table, exact, err_msg=f"seed {seed}")
        form = linear_map(table)
        if form is None:
            continue
        found += 1
        whole = values * form.factor + form.constant
        assert np.abs(whole).max() < 2**31
        np.testing.assert_array_equal(np.clip(whole >> form.shift, -128, 127), exact, err_msg=f"seed {seed}")
    assert found > len(SEEDS) // 4


@pytest.mark.parametrize("shift", [1, 2, -23, -30])
def test_what_two_roundings_cannot_hold_is_left_to_others(shift: int) -> None:
    operator: op.Conv2D = _operator("conv2d", 3)
    weights = operator.weights.reshape(len(operator.bias), -1)
    shifts = np.full_like(operator.shifts, shift)
    changed = op.Conv2D(
        operator.window,
        operator.weights,
        np.zeros_like(operator.bias),
        0,
        0,
        np.full_like(operator.multipliers, 2**30),
        shifts,
        op.FullRange,
    )
    assert channel_parameters(changed, weights) is None
