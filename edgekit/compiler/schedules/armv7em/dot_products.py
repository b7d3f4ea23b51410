"""Inner products of one vector with four output channels at a time: fully connected layers.

Channels A, B and C, D share halfwords as in `pixel_blocks`. The vector was widened for all channels, or,
where that would take too much memory, is widened again for every four.

Where the weights of A or C add up to more than the sums can be told apart by, the vector is walked in parts
of equal length: behind each, what A and C came to is added to their totals, and A goes on from B's sum, C
from D's, so that the next difference is the next part's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler
from edgekit.compiler.schedules.armv7em.pixel_blocks import K_ORDER, LARGEST_SUM, STEPS
from edgekit.compiler.schedules.armv7em.requantize import (
    FORM_NOTE,
    ChannelParameters,
    Form,
    emit_requantize,
)

__all__ = [
    "CHANNELS",
    "dot_products",
    "entry_offset",
    "pack_channel_fours",
    "part_k",
    "parts_of",
    "widen",
]

CHANNELS = 4

_SUFFIX: dict[Form, str] = {"single": "", "two_sided": "_double", "one_sided": "_relu"}
"""What the form adds to the routine's name."""


def entry_offset(k: int, *, widened: bool, unrolled: int = STEPS) -> int:
    """How far before the loop's end the first pass begins, in bytes of code."""
    return ((k // 4 - 1) % unrolled + 1) * 4 * (14 if widened else 16)


def parts_of(weights: NDArray[np.int8]) -> int | None:
    """In how many parts (C, K) weights are to be multiplied: such as fill K's steps, where few do; else None.

    None where channels cannot share halfwords at all: −128 above a negative weight.
    """
    k = weights.shape[1]
    first, second = weights[0::2].astype(np.int64), weights[1::2].astype(np.int64)
    if (256 * first[: len(second)] + second).min(initial=0) < -32768:
        return None
    steps = -(-k // 4)

    def serves(parts: int) -> bool:
        length = part_k(k, parts)
        padded = np.pad(np.abs(first), ((0, 0), (0, parts * length - k)))
        return bool(padded.reshape(-1, parts, length).sum(axis=2).max() < LARGEST_SUM)

    least = next((parts for parts in range(1, steps + 1) if serves(parts)), None)
    if least is None:
        return None
    whole = (parts for parts in range(least, 2 * least) if steps % parts == 0 and serves(parts))
    return next(whole, least)


def part_k(k: int, parts: int) -> int:
    """k of each of so many parts, a multiple of 4."""
    return -(-k // (4 * parts)) * 4


def pack_channel_fours(weights: NDArray[np.int8], parameters: ChannelParameters) -> NDArray[np.int8]:
    """(C, K) weights, C and K multiples of 4, and parameters as the stream that `dot_products` reads.

    For each four channels: a step of four k after another, two words of channels A and B and two of C and D;
    then the parameters of each. `parts_of` says whether channels can share halfwords.
    """
    channels, k = weights.shape
    halfwords = 256 * weights[0::2].astype(np.int64) + weights[1::2]
    ordered = halfwords.reshape(channels // 4, 2, k // 4, 4)[:, :, :, K_ORDER].astype("<i2")
    by_step = np.ascontiguousarray(ordered.transpose(0, 2, 1, 3)).reshape(channels // 4, -1)
    rows = np.ascontiguousarray(parameters.rows().reshape(channels // 4, 16), "<i4")
    return np.concatenate([by_step.view(np.int8), rows.view(np.int8)], axis=1).reshape(-1)


def dot_products(
    *, widened: bool, unrolled: int = STEPS, form: Form = "single", in_parts: bool = False
) -> Assembler:
    """The routine, with so many steps in its loop, for a vector of int16 in the order of `widen`, or of int8.

    void f(const void *vector, const int8_t *stream, int8_t *output, int32_t channels,
           int32_t vector_bytes, int32_t entry_offset, int32_t part_bytes)

    `part_bytes` of the vector is the length of a part; without parts nothing is read there.
    """
    code = Assembler(
        f"edgekit_dot4x{unrolled}_{'int16' if widened else 'int8'}{_SUFFIX[form]}"
        f"{'_parts' if in_parts else ''}",
        f"One vector by all output channels, four at a time{FORM_NOTE[form]}.\n"
        "(vector, stream, output, channels, vector_bytes, entry_offset, part_bytes)",
    )
    registers = code.registers("vector stream a b c d w0 w1 w2 w3 x0 x1 limit entry")
    vector, stream, a, b, c, d, w0, w1, w2, w3, x0, x1, limit, entry = registers
    at_vector, at_output, at_end, at_last, at_totals = 16, 20, 24, 28, 32
    frame = 40 if in_parts else 32
    top, end, four = code.new_label("step"), code.new_label("end"), code.new_label("four")
    part, done = code.new_label("part"), code.new_label("done")

    output, channels = code.rename(a, "output"), code.rename(b, "channels")
    arguments = code.enter(frame)
    code.strd(vector, output, SP, at_vector)
    code.add(channels, output, channels)
    code.str_(channels, SP, at_end)
    code.ldr(limit, SP, arguments)
    code.add(limit, vector, limit)
    if in_parts:
        code.str_(limit, SP, at_last)
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
    if in_parts:
        code.strd(a, c, SP, at_totals)
        code.ldr(limit, SP, arguments + 8)
        code.add(limit, vector, limit)
        code.label(part)
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
    if in_parts:
        code.ldrd(w0, w1, SP, at_totals)
        for total, both, low in ((w0, a, b), (w1, c, d)):
            code.sub(both, both, low)
            code.add(total, total, both, asr=8)
            code.mov(both, low)
        code.strd(w0, w1, SP, at_totals)
        code.ldr(w2, SP, at_last)
        code.cmp(vector, w2)
        code.branch(done, "eq")
        code.ldr(w3, SP, arguments + 8)
        code.add(limit, limit, w3)
        code.branch(part)
        code.label(done)
        code.ldrd(a, c, SP, at_totals)

    names = ("bias", "multiplier", "constant", "exponent")
    bias, multiplier, constant, exponent = (
        code.rename(register, name) for register, name in zip((w0, w1, w2, w3), names, strict=True)
    )
    for both, low in ((a, b), (c, d)):
        code.ldm(stream, (bias, multiplier, constant, exponent))
        if in_parts:
            code.add(both, bias, both, lsl=1)
        else:
            code.sub(both, both, low)
            code.add(both, bias, both, asr=7)
        emit_requantize(code, (both,), multiplier, constant, exponent, x0, form)
        code.ldm(stream, (bias, multiplier, constant, exponent))
        code.add(low, bias, low, lsl=1)
        emit_requantize(code, (low,), multiplier, constant, exponent, x0, form)
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
