"""The float64 rule of fully connected layers as one fixed-point multiplication, proved for each channel.

LiteRT computes y = away(float64(v) · real) + zero_point. Both that and

    (v · m / 2^31 + constant) >> e        constant = 2^(e−1) + zero_point · 2^e

never decrease as v grows, so they are equal for all sums v that weights and bias can reach if they take the
same step at each of the at most 255 places where the output changes. These are found from the float64 rule
itself; m is searched near real · 2^(31+e) until every step agrees. A little above it, halves go away from
zero for negative sums too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.schedules.armv7em.requantize import LARGEST_EXPONENT, ChannelParameters

__all__ = ["dense_parameters"]

FARTHEST_MULTIPLIER = 64
"""How far from the nearest multiplier the search goes."""


def dense_parameters(operator: op.Dense) -> ChannelParameters | None:
    """Parameters that give the float64 rule's answer for every reachable sum; None where none were found."""
    weights = operator.weights.astype(np.int64)
    bias = operator.bias.astype(np.int64) - operator.input_zero_point * weights.sum(axis=1)
    reach = np.abs(bias) + 128 * np.abs(weights).sum(axis=1)
    reals = _reals(operator)
    mantissas, shifts = np.frexp(reals)
    exponents = np.where(reals == 0, 1, -shifts.astype(np.int64))
    if reach.max() >= 2**30 or exponents.min() < 1 or exponents.max() > LARGEST_EXPONENT:
        return None
    constants = (np.int64(1) << (exponents - 1)) + operator.output_zero_point * (np.int64(1) << exponents)
    levels, steps = _steps(operator, reals, reach)
    nearest = np.rint(mantissas * 2.0**31).astype(np.int64)
    found = np.full(len(reals), -1, np.int64)
    for distance in _distances():
        open_ = found < 0
        candidates = nearest + distance
        right = _agrees(candidates, constants, exponents, levels, steps, reach) & (candidates < 2**31)
        found[open_ & right] = candidates[open_ & right]
        if (found >= 0).all():
            break
    else:
        return None
    return ChannelParameters(
        (2 * bias).astype(np.int32),
        found.astype(np.int32),
        constants.astype(np.int32),
        exponents.astype(np.int32),
        np.zeros_like(found, np.int32),
        form="single",
    )


def _reals(operator: op.Dense) -> NDArray[np.float64]:
    """The channels' float64 multipliers: 53 bits, so that the sum below is exact."""
    wide = operator.multipliers
    mantissas = wide.high.astype(np.float64) * 2.0**32 + wide.low.astype(np.float64)
    return np.ldexp(mantissas, -wide.shift)


def _away(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest integers, halves away from zero; exact, since the fraction of a float64 is one."""
    whole = np.floor(np.abs(values))
    magnitudes = whole + (np.abs(values) - whole >= 0.5)
    signed: NDArray[np.float64] = np.copysign(magnitudes, values)
    return signed.astype(np.int64)


def _steps(
    operator: op.Dense, reals: NDArray[np.float64], reach: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Output values (L,) above the lowest and, the least sum of each channel that gives as much (C, L).

    A step that no reachable sum takes is one beyond the reach, or one below it.
    """
    levels = np.arange(operator.clamp.low + 1, operator.clamp.high + 1, dtype=np.int64)
    wanted = levels - operator.output_zero_point
    with np.errstate(divide="ignore", invalid="ignore"):
        guess = (wanted[None, :] - 0.5) / reals[:, None]
    bound = reach[:, None].astype(np.float64) + 1
    guess = np.where(reals[:, None] == 0, np.where(wanted > 0, bound, -bound), guess)
    low = np.clip(np.floor(guess) - 3, -bound, bound).astype(np.int64)
    steps = np.clip(low + 7, None, reach[:, None] + 1)
    for ahead in range(6, -1, -1):
        place = np.clip(low + ahead, -reach[:, None] - 1, reach[:, None] + 1)
        reached = _away(place.astype(np.float64) * reals[:, None]) >= wanted[None, :]
        steps = np.where(reached, place, steps)
    return levels, steps


def _agrees(
    multipliers: NDArray[np.int64],
    constants: NDArray[np.int64],
    exponents: NDArray[np.int64],
    levels: NDArray[np.int64],
    steps: NDArray[np.int64],
    reach: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Channels (C,) whose fixed-point form takes every reachable step where the float64 rule does."""

    def output(sums: NDArray[np.int64]) -> NDArray[np.int64]:
        product = (sums * multipliers[:, None]) >> 31
        return (product + constants[:, None]) >> exponents[:, None]

    limit = reach[:, None]
    up = (output(steps) >= levels) | (steps > limit)
    down = (output(steps - 1) < levels) | (steps - 1 < -limit)
    return np.asarray((up & down).all(axis=1), np.bool_)


def _distances() -> Iterator[int]:
    """0, 1, −1, 2, −2, …"""
    yield 0
    for distance in range(1, FARTHEST_MULTIPLIER + 1):
        yield distance
        yield -distance
