"""Inner products of one vector with four output channels at a time: fully connected layers.

Channels A, B and C, D share halfwords as in `pixel_blocks`. The vector was widened for all channels, or,
where that would take too much memory, is widened again for every four.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler
from edgekit.compiler.schedules.armv7em.pixel_blocks import K_ORDER, STEPS
from edgekit.compiler.schedules.armv7em.requantize import ChannelParameters, emit_single_rounding

__all__ = ["CHANNELS", "dot_products", "entry_offset", "pack_channel_fours", "widen"]

CHANNELS = 4


def entry_offset(k: int, *, widened: bool, unrolled: int = STEPS) -> int:
    """How far before the loop's end the first pass begins, in bytes of code."""
    return ((k // 4 - 1) % unrolled + 1) * 4 * (14 if widened else 16)


def pack_channel_fours(weights: NDArray[np.int8], parameters: ChannelParameters) -> NDArray[np.int8] | None:
    """(C, K) weights, C and K multiples of 4, and parameters as the stream that `dot_products` reads.

    For each four channels: a step of four k after another, two words of channels A and B and two of C and D;
    then the parameters of each. None where the sums of a pair could not be told apart.
    """
    channels, k = weights.shape
    first, second = weights[0::2].astype(np.int64), weights[1::2].astype(np.int64)
    halfwords = 256 * first + second
    if np.abs(first).sum(axis=1).max() >= 65536 or halfwords.min() < -32768:
        return None
    ordered = halfwords.reshape(channels // 4, 2, k // 4, 4)[:, :, :, K_ORDER].astype("<i2")
    by_step = np.ascontiguousarray(ordered.transpose(0, 2, 1, 3)).reshape(channels // 4, -1)
    rows = np.ascontiguousarray(parameters.rows().reshape(channels // 4, 16), "<i4")
    return np.concatenate([by_step.view(np.int8), rows.view(np.int8)], axis=1).reshape(-1)


def dot_products(*, widened: bool, unrolled: int = STEPS) -> Assembler:
    """The routine, with so many steps in its loop, for a vector of int16 in the order of `widen`, or of int8.

    void f(const void *vector, const int8_t *stream, int8_t *output, int32_t channels,
           int32_t vector_bytes, int32_t entry_offset)
    """
    code = Assembler(
        f"edgekit_dot4x{unrolled}_{'int16' if widened else 'int8'}",
        "One vector by all output channels, four at a time.\n"
        "(vector, stream, output, channels, vector_bytes, entry_offset)",
    )
    registers = code.registers("vector stream a b c d w0 w1 w2 w3 x0 x1 limit entry")
    vector, stream, a, b, c, d, w0, w1, w2, w3, x0, x1, limit, entry = registers
    at_vector, at_output, at_end = 16, 20, 24
    frame = 32
    top, end, four = code.new_label("step"), code.new_label("end"), code.new_label("four")

    output, channels = code.rename(a, "output"), code.rename(b, "channels")
    arguments = code.enter(frame)
    code.strd(vector, output, SP, at_vector)
    code.add(channels, output, channels)
    code.str_(channels, SP, at_end)
    code.ldr(limit, SP, arguments)
    code.add(limit, vector, limit)
    code.ldr(w0, SP, arguments + 4)
    code.address_of(entry, end)
    code.sub(entry, entry, w0)
    code.orr(entry, entry, 1)
    code.mov(w0, 0)
    for offset in range(0, 16, 4):
        code.str_(w0, SP, offset)
    code.rename(a, "a")
    code.rename(b, "b")

    code.label(four)
    code.ldm(SP, (a, b, c, d), forward=False)
    code.jump(entry)
    code.align()
    code.label(top)
    for _ in range(unrolled):
        if widened:
            code.ldrd(x0, x1, vector, post=8)
        else:
            code.ldr(x0, vector, post=4)
            code.sxtb16(x1, x0, ror=8)
            code.sxtb16(x0, x0)
        code.ldm(stream, (w0, w1, w2, w3))
        for word, x, both, low in ((w0, x0, a, b), (w1, x1, a, b), (w2, x0, c, d), (w3, x1, c, d)):
            code.smlad(both, word, x, both)
            code.sxtb16(word, word)
            code.smlad(low, word, x, low)
    code.label(end)
    code.cmp(vector, limit)
    code.branch(top, "ne")

    names = ("bias", "multiplier", "constant", "exponent")
    bias, multiplier, constant, exponent = (
        code.rename(register, name) for register, name in zip((w0, w1, w2, w3), names, strict=True)
    )
    for both, low in ((a, b), (c, d)):
        code.ldm(stream, (bias, multiplier, constant, exponent))
        code.sub(both, both, low)
        code.add(both, bias, both, asr=7)
        emit_single_rounding(code, (both,), multiplier, constant, exponent)
        code.ldm(stream, (bias, multiplier, constant, exponent))
        code.add(low, bias, low, lsl=1)
        emit_single_rounding(code, (low,), multiplier, constant, exponent)
    output, last = code.rename(w0, "output"), code.rename(w1, "last")
    code.ldrd(vector, output, SP, at_vector)
    code.ldr(last, SP, at_end)
    for offset, value in ((1, b), (2, c), (3, d)):
        code.strb(value, output, offset)
    code.strb(a, output, post=4)
    code.str_(output, SP, at_output)
    code.cmp(output, last)
    for register in (w0, w1, w2, w3):
        code.rename(register, register.name)
    code.branch(four, "ne")
    code.leave(frame)
    return code


def widen() -> Assembler:
    """void f(const int8_t *from, int16_t *to, int32_t bytes): a multiple of four, in the order 0, 2, 1, 3."""
    code = Assembler("edgekit_widen", "Widens a vector to int16.\n(from, to, bytes)")
    source, to, end, e0, o0, e1, o1 = code.registers("from to end - e0 o0 e1 o1")
    loop, last, done = code.new_label("words"), code.new_label("last"), code.new_label("done")
    code.enter()
    code.add(end, source, end)
    code.sub(end, end, 4)
    code.cmp(source, end)
    code.branch(last, "hs")
    code.label(loop)
    # The vector may begin anywhere; load-double would want a word boundary.
    code.ldr(e0, source, post=4)
    code.ldr(e1, source, post=4)
    code.sxtb16(o0, e0, ror=8)
    code.sxtb16(e0, e0)
    code.sxtb16(o1, e1, ror=8)
    code.sxtb16(e1, e1)
    code.stm(to, (e0, o0, e1, o1))
    code.cmp(source, end)
    code.branch(loop, "lo")
    code.label(last)
    code.branch(done, "ne")
    code.ldr(e0, source)
    code.sxtb16(o0, e0, ror=8)
    code.sxtb16(e0, e0)
    code.strd(e0, o0, to, 0)
    code.label(done)
    code.leave()
    return code
