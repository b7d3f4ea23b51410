"""Requantisation, with TFLite's two roundings or with one, in four or five instructions.

With v = accumulator + folded bias, `high_mul` and `round_shift` as in docs/arithmetic.md, and an exponent
e ≥ 1 to the right:

    x = 2v                                  one shift that the addition of the bias does on its way
    t = constant + (x >> 31)                constant = 2^(e−1) + zero_point · 2^e
    x = smmlar(x, multiplier, t)            (x · multiplier + 2^31) >> 32 is high_mul(v, multiplier)
    y = ssat8(x >> e)

Adding −1 where v < 0 makes halves of negative sums go away from zero, as `round_shift` does. Where the
clamp's lower bound is the zero point or above (a ReLU), negative sums come out at that bound in either case
and the line for t is left out: the *one-sided* form, which also serves e = 0. With one rounding `smmla`,
which drops what is below the product's high word, takes the place of `smmlar`, for either sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.schedules.armv7em.instructions import Assembler, Register

__all__ = [
    "FORM_NOTE",
    "FORM_SUFFIX",
    "LARGEST_EXPONENT",
    "ChannelParameters",
    "Form",
    "channel_parameters",
    "emit_requantize",
    "emit_single_rounding",
]

Form = Literal["two_sided", "one_sided", "single"]
"""Two roundings for sums of either sign, two where negative ones are clamped away, or one rounding."""

FORM_SUFFIX: dict[Form, str] = {"two_sided": "", "one_sided": "_relu", "single": "_single"}
"""What the form adds to a routine's name."""

FORM_NOTE: dict[Form, str] = {
    "two_sided": "",
    "one_sided": ", negative sums clamped away",
    "single": ", one rounding",
}

LARGEST_EXPONENT = 22
"""constant = 2^(e−1) + zero_point · 2^e is added to a product below 2^30: both fit 31 bits up to here."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelParameters:
    """Per output channel, int32 (C,): twice the folded bias, multiplier, constant, exponent.

    `left` is by how many bits the weights are to be shifted to the left; the bias already is.
    """

    doubled_bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    constant: NDArray[np.int32]
    exponent: NDArray[np.int32]
    left: NDArray[np.int32]
    form: Form

    def general(self) -> ChannelParameters:
        """The same in the form that needs no ReLU, where it serves: so that layers share their code."""
        if self.form != "one_sided" or self.exponent.min() < 1:
            return self
        return replace(self, form="two_sided")

    def taken(self, channels: NDArray[np.int64]) -> ChannelParameters:
        """Parameters of the channels named, which may come twice."""
        return replace(
            self,
            doubled_bias=self.doubled_bias[channels],
            multiplier=self.multiplier[channels],
            constant=self.constant[channels],
            exponent=self.exponent[channels],
            left=self.left[channels],
        )

    def filled(self, channels: int) -> ChannelParameters:
        """Parameters of so many channels; what is added computes nothing that anyone reads."""
        missing = channels - len(self.multiplier)
        return replace(
            self,
            doubled_bias=np.pad(self.doubled_bias, (0, missing)),
            multiplier=np.pad(self.multiplier, (0, missing)),
            constant=np.pad(self.constant, (0, missing)),
            exponent=np.pad(self.exponent, (0, missing)),
            left=np.pad(self.left, (0, missing)),
        )

    def rows(self) -> NDArray[np.int32]:
        """(C, 4), in the order in which the routines load them."""
        return np.stack([self.doubled_bias, self.multiplier, self.constant, self.exponent], axis=1)


def channel_parameters(
    operator: op.Conv2D | op.DepthwiseConv2D, weights: NDArray[np.int8], farthest_left: int = 0
) -> ChannelParameters | None:
    """Parameters of a convolution; None where the arithmetic above is not exact.

    A shift to the left, or one too small for the form, is taken out of the weights where these have the room:
    v · 2^k with an exponent of e + k rounds once where v with e does, and so does the first of two roundings.

    Args:
        weights: (C, K), all weights of each output channel.
        farthest_left: by how many bits they may be shifted to the left.
    """
    form = _form(operator)
    multipliers, exponents = operator.multipliers.astype(np.int64), -operator.shifts.astype(np.int64)
    # A multiplier of 0 gives the zero point with any exponent.
    exponents = np.where(multipliers == 0, 1, exponents)
    least = 0 if form == "one_sided" else 1
    left = np.maximum(least - exponents, 0)
    if form == "two_sided" and left.any():
        return None  # Without a second rounding there is no half whose sign matters.
    exponents = exponents + left
    if left.max() > farthest_left or exponents.max() > LARGEST_EXPONENT:
        return None
    wide = weights.astype(np.int64)
    bias = operator.bias.astype(np.int64) - operator.input_zero_point * wide.sum(axis=1)
    reach = np.abs(bias) + 128 * np.abs(wide).sum(axis=1)
    if (reach << left).max() >= 2**30:
        return None
    half = np.where(exponents == 0, 0, np.int64(1) << np.maximum(exponents - 1, 0))
    constants = half + operator.output_zero_point * (np.int64(1) << exponents)
    return ChannelParameters(
        ((2 * bias) << left).astype(np.int32),
        multipliers.astype(np.int32),
        constants.astype(np.int32),
        exponents.astype(np.int32),
        left.astype(np.int32),
        form,
    )


def _form(operator: op.Conv2D | op.DepthwiseConv2D) -> Form:
    if operator.rounding == "single":
        return "single"
    return "one_sided" if operator.clamp.low >= operator.output_zero_point else "two_sided"


def emit_requantize(
    code: Assembler,
    values: Sequence[Register],
    multiplier: Register,
    constant: Register,
    exponent: Register,
    spare: Register,
    form: Form = "two_sided",
) -> None:
    """Each of `values` from 2v to the int8 output. Only the two-sided form changes `spare`."""
    if form == "single":
        emit_single_rounding(code, values, multiplier, constant, exponent)
        return
    for value in values:
        addend = constant
        if form == "two_sided":
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
    """Each of `values` from 2v to the output with one rounding: (v · m / 2^31 + constant) >> e."""
    for value in values:
        code.smmla(value, value, multiplier, constant)
        code.asr(value, value, exponent)
        code.ssat(value, 8, value)
