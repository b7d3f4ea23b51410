"""Requantisation with TFLite's two roundings in four or five instructions.

With v = accumulator + folded bias, `high_mul` and `round_shift` as in docs/arithmetic.md, and an exponent
e ≥ 1 to the right:

    x = 2v                                  one shift that the addition of the bias does on its way
    t = constant + (x >> 31)                constant = 2^(e−1) + zero_point · 2^e
    x = smmlar(x, multiplier, t)            (x · multiplier + 2^31) >> 32 is high_mul(v, multiplier)
    y = ssat8(x >> e)

Adding −1 where v < 0 makes halves of negative sums go away from zero, as `round_shift` does. Where the
clamp's lower bound is the zero point or above (a ReLU), negative sums come out at that bound in either case
and the line for t is left out: the *one-sided* form, which also serves e = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.schedules.armv7em.instructions import Assembler, Register

__all__ = [
    "LARGEST_EXPONENT",
    "ChannelParameters",
    "channel_parameters",
    "emit_requantize",
    "emit_single_rounding",
    "needs_clamp",
]

LARGEST_EXPONENT = 22
"""constant = 2^(e−1) + zero_point · 2^e is added to a product below 2^30: both fit 31 bits up to here."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelParameters:
    """Per output channel, int32 (C,): twice the folded bias, multiplier, constant, exponent."""

    doubled_bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    constant: NDArray[np.int32]
    exponent: NDArray[np.int32]
    one_sided: bool

    def rows(self) -> NDArray[np.int32]:
        """(C, 4), in the order in which the routines load them."""
        return np.stack([self.doubled_bias, self.multiplier, self.constant, self.exponent], axis=1)


def channel_parameters(
    operator: op.Conv2D | op.DepthwiseConv2D, weights: NDArray[np.int8]
) -> ChannelParameters | None:
    """Parameters of a convolution; None where the arithmetic above is not exact.

    Args:
        weights: (C, K), all weights of each output channel.
    """
    one_sided = operator.clamp.low >= operator.output_zero_point
    multipliers, exponents = operator.multipliers.astype(np.int64), -operator.shifts.astype(np.int64)
    # A multiplier of 0 gives the zero point with any exponent.
    exponents = np.where(multipliers == 0, 1, exponents)
    if exponents.min() < (0 if one_sided else 1) or exponents.max() > LARGEST_EXPONENT:
        return None
    wide = weights.astype(np.int64)
    bias = operator.bias.astype(np.int64) - operator.input_zero_point * wide.sum(axis=1)
    if (np.abs(bias) + 128 * np.abs(wide).sum(axis=1)).max() >= 2**30:
        return None
    half = np.where(exponents == 0, 0, np.int64(1) << np.maximum(exponents - 1, 0))
    constants = half + operator.output_zero_point * (np.int64(1) << exponents)
    return ChannelParameters(
        (2 * bias).astype(np.int32),
        multipliers.astype(np.int32),
        constants.astype(np.int32),
        exponents.astype(np.int32),
        one_sided,
    )


def needs_clamp(clamp: op.Clamp) -> bool:
    """Whether saturation to int8 is not all that the clamp does."""
    return (clamp.low, clamp.high) != (-128, 127)


def emit_requantize(
    code: Assembler,
    values: Sequence[Register],
    multiplier: Register,
    constant: Register,
    exponent: Register,
    spare: Register | None,
) -> None:
    """Each of `values` from 2v to the int8 output. `spare` is None for the one-sided form."""
    for value in values:
        addend = constant
        if spare is not None:
            code.add(spare, constant, value, asr=31)
            addend = spare
        code.smmlar(value, value, multiplier, addend)
        code.asr(value, value, exponent)
        code.ssat(value, 8, value)


def emit_single_rounding(
    code: Assembler,
    values: Sequence[Register],
    multiplier: Register,
    constant: Register,
    exponent: Register,
) -> None:
    """Each of `values` from 2v to the output of a fully connected layer: (v · m / 2^31 + constant) >> e."""
    for value in values:
        code.smmla(value, value, multiplier, constant)
        code.asr(value, value, exponent)
        code.ssat(value, 8, value)
