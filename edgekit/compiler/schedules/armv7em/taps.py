"""Depthwise windows of any shape, one output pixel at a time, four channels after four.

Two neighbouring taps of a row are paired for each channel as in `planes`, but in registers: nothing is kept
from pixel to pixel. It costs more than planes and takes every kernel size, stride and dilation of rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler
from edgekit.compiler.schedules.armv7em.last_four import emit_last_four
from edgekit.compiler.schedules.armv7em.requantize import (
    FORM_NOTE,
    FORM_SUFFIX,
    ChannelParameters,
    Form,
    emit_requantize,
)

__all__ = ["FARTHEST_LEFT", "convolve_taps", "pack_taps"]

FARTHEST_LEFT = 6
"""By how many bits more than the doubling weights may be shifted: int16 holds −128 · 2^7."""


def pack_taps(weights: NDArray[np.int8], parameters: ChannelParameters) -> NDArray[np.int8]:
    """(KH, KW, C) weights and parameters as the stream that `convolve_taps` reads.

    For each four channels: a word of two taps for each channel, pair after pair of each row (an odd last tap
    has 0 beside it), then the four parameters of each.
    """
    rows, columns, channels = weights.shape
    even = np.zeros((rows, columns + columns % 2, channels), np.int16)
    even[:, :columns] = (2 * weights.astype(np.int16)) << parameters.left.astype(np.int16)
    pairs = even.reshape(rows, -1, 2, channels // 4, 4).transpose(3, 0, 1, 4, 2)
    words = np.ascontiguousarray(pairs, "<i2").view("<i4").reshape(channels // 4, -1)
    settings = parameters.rows().astype("<i4").reshape(channels // 4, 16)
    return np.ascontiguousarray(np.concatenate([words, settings], axis=1)).reshape(-1).view(np.int8)


def convolve_taps(form: Form, *, ragged: bool = False) -> Assembler:
    """The routine for one output pixel; `ragged`: the last four channels overlap those before them.

        void f(const int8_t *window, const int8_t *stream, int8_t *output, int32_t channels,
               int32_t rows, int32_t row_pairs, int32_t rest_of_row)

    Pixels are `channels` bytes apart; `rest_of_row` is the distance from behind a row's last pair to the next
    row. The second tap of a last pair may lie behind the window, and is read.
    """
    code = Assembler(
        f"edgekit_taps{FORM_SUFFIX[form]}{'_ragged' if ragged else ''}",
        f"A depthwise window at one pixel{FORM_NOTE[form]}.\n"
        "(window, stream, output, channels, rows, row_pairs, rest_of_row)",
    )
    window, stream, output, channels, *rest = code.registers(
        "window stream output channels s0 s1 s2 s3 a b t w0 w1 pairs"
    )
    sums, (a, b, t, w0, w1, pairs) = rest[:4], rest[4:]
    at_window, at_end, at_rows = 0, 4, 8
    frame = 16
    four, row, pair = (code.new_label(name) for name in ("four", "row", "pair"))
    arguments = code.enter(frame)
    code.str_(window, SP, at_window)
    code.add(a, output, channels)
    code.str_(a, SP, at_end)
    code.label(four)
    code.ldr(a, SP, arguments)
    for total in sums:
        code.mov(total, 0)
    code.label(row)
    code.str_(a, SP, at_rows)
    code.ldr(pairs, SP, arguments + 4)
    code.label(pair)
    code.ldr(a, window)
    code.ldr_register(b, window, channels)
    code.add(window, window, channels, lsl=1)
    code.pkhbt(t, a, b, lsl=16)
    code.pkhtb(b, b, a, asr=16)
    for packed, (first, second) in ((t, sums[:2]), (b, sums[2:])):
        code.ldrd(w0, w1, stream, post=8)
        code.sxtb16(a, packed)
        code.smlad(first, a, w0, first)
        code.sxtb16(packed, packed, ror=8)
        code.smlad(second, packed, w1, second)
    code.subs(pairs, pairs, 1)
    code.branch(pair, "ne")
    code.ldr(b, SP, arguments + 8)
    code.ldr(a, SP, at_rows)
    code.add(window, window, b)
    code.subs(a, a, 1)
    code.branch(row, "ne")
    names = ("bias", "multiplier", "constant", "exponent", "spare")
    bias, multiplier, constant, exponent, spare = (
        code.rename(register, name) for register, name in zip((a, b, t, w0, w1), names, strict=True)
    )
    for total in sums:
        code.ldm(stream, (bias, multiplier, constant, exponent))
        code.add(total, total, bias)
        emit_requantize(code, (total,), multiplier, constant, exponent, spare, form)
    for offset, total in enumerate(sums[1:], start=1):
        code.strb(total, output, offset)
    code.strb(sums[0], output, post=4)
    for register in (a, b, t, w0, w1):
        code.rename(register, register.name)
    code.ldr(window, SP, at_window)
    code.ldr(a, SP, at_end)
    code.add(window, window, 4)
    if ragged:
        emit_last_four(code, output, a, b, (window,))
    code.str_(window, SP, at_window)
    code.cmp(output, a)
    code.branch(four, "ne")
    code.leave(frame)
    return code
