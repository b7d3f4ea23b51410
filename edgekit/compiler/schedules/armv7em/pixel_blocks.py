"""Inner products of a block of three or four pixels with all output channels, two channels at a time.

The weights of two channels A and B lie in one halfword, h = 256 · wA + wB. With SA and SB their sums over k,

    sum of h · x                   = 256 · SA + SB       (`smlad`)
    sum of (h's low byte) · x      = SB                  (`sxtb16`, `smlad`)

and the difference is 256 · SA, exactly, while it fits 32 bits. The pixels were widened to int16 once for all
channels by a gather routine, as words of two k for each pixel in turn: [k / 2][pixels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.requantize import (
    FORM_NOTE,
    FORM_SUFFIX,
    ChannelParameters,
    Form,
    emit_requantize,
)

__all__ = [
    "FEW_STEPS",
    "LARGEST_SUM",
    "PIXELS",
    "STEPS",
    "Pixels",
    "entry_offset",
    "pack_channel_pairs",
    "pixel_block",
    "scratch_bytes",
]

Pixels = Literal[3, 4]
PIXELS: tuple[Pixels, ...] = (3, 4)

STEPS = 16
"""Steps of four k in the unrolled loop; the first pass enters it behind those it does not need."""

FEW_STEPS = 4
"""The same where code is to be small."""

LARGEST_SUM = 65536
"""256 times a sum of inputs, up to 128, by weights whose magnitudes add up to less than this fits 32 bits."""

K_ORDER = (0, 2, 1, 3)
"""Order in which `sxtb16` takes four bytes apart: 0 and 2, then 1 and 3."""


def step_bytes(pixels: Pixels) -> int:
    """Code size of one step; all its instructions have four bytes."""
    return 4 * (24 if pixels == 4 else 17)


def entry_offset(pixels: Pixels, k: int, unrolled: int = STEPS) -> int:
    """How far before the loop's end the first pass begins, where the loop has `unrolled` steps."""
    return ((k // 4 - 1) % unrolled + 1) * step_bytes(pixels)


def scratch_bytes(pixels: Pixels, k: int) -> int:
    """Size of a block of widened pixels."""
    return 2 * k * pixels


def pack_channel_pairs(weights: NDArray[np.int8], parameters: ChannelParameters) -> NDArray[np.int8] | None:
    """(C, K) weights and the parameters of C channels as the stream that `pixel_block` reads in order.

    Two channels after two: K halfwords h in the order of the widened pixels, then the four parameters of
    either; an odd last channel has one of zeros beside it. None where the two sums could not be told apart,
    or where K is no multiple of 4.
    """
    if len(weights) % 2:
        weights, parameters = np.pad(weights, ((0, 1), (0, 0))), parameters.filled(len(weights) + 1)
    channels, k = weights.shape
    if k % 4:
        return None
    first, second = weights[0::2].astype(np.int64), weights[1::2].astype(np.int64)
    halfwords = 256 * first + second
    if np.abs(first).sum(axis=1).max() >= LARGEST_SUM or halfwords.min() < -32768:
        return None
    ordered = halfwords.reshape(channels // 2, k // 4, 4)[:, :, K_ORDER].astype("<i2")
    rows = parameters.rows().reshape(channels // 2, 8).astype("<i4")
    return np.concatenate(
        [
            np.ascontiguousarray(ordered).reshape(channels // 2, -1).view(np.int8),
            np.ascontiguousarray(rows).view(np.int8),
        ],
        axis=1,
    ).reshape(-1)


def pixel_block(
    pixels: Pixels, *, form: Form, unrolled: int = STEPS, odd: bool = False, spread: bool = False
) -> Assembler:
    """The routine for blocks of that many pixels and an even or `odd` number of channels.

        void f(const int16_t *widened, const int8_t *stream, int8_t *output, int32_t channels,
               int32_t scratch_bytes, int32_t entry_offset, int32_t pitch)

    `output` is the block's first pixel; pixels are `channels` bytes apart, or, with `spread`, `pitch` bytes;
    without it there is no such argument. The loop has `unrolled` steps.
    """
    kind = f"{'_odd' if odd else ''}{'_spread' if spread else ''}"
    code = Assembler(
        f"edgekit_pixels{pixels}x{unrolled}{FORM_SUFFIX[form]}{kind}",
        f"{pixels} pixels by all output channels{FORM_NOTE[form]}.\n"
        f"(widened, stream, output, channels, scratch_bytes, entry_offset{', pitch' if spread else ''})",
    )
    zeros = 8 * pixels
    at_widened, at_output, at_end, at_limit, at_entry, at_stride = (zeros + 4 * i for i in range(6))
    frame = zeros + 24
    registers = code.registers(
        "widened stream a0 a1 a2 a3 b0 b1 b2 b3 w wb x0 x1"
        if pixels == 4
        else "widened stream a0 a1 a2 b0 b1 b2 x0 x1 x2 w w_next wb"
    )
    widened, stream = registers[:2]
    first, second = registers[2 : 2 + pixels], registers[2 + pixels : 2 + 2 * pixels]
    sums = (*first, *second)
    rest = registers[2 + 2 * pixels :]
    top, end, pair = code.new_label("step"), code.new_label("end"), code.new_label("pair")
    last = code.new_label("last")

    output, channels = code.rename(registers[2], "output"), code.rename(registers[3], "channels")
    zero = code.rename(registers[4], "zero")
    spare = code.rename(registers[5], "spare")
    arguments = code.enter(frame)
    code.str_(widened, SP, at_widened)
    code.str_(output, SP, at_output)
    code.add(spare, output, channels)
    code.str_(spare, SP, at_end)
    if spread:
        code.ldr(channels, SP, arguments + 8)
    code.str_(channels, SP, at_stride)
    code.ldr(spare, SP, arguments)
    code.add(spare, widened, spare)
    code.str_(spare, SP, at_limit)
    code.ldr(spare, SP, arguments + 4)
    code.address_of(zero, end)
    code.sub(zero, zero, spare)
    code.orr(zero, zero, 1)
    code.str_(zero, SP, at_entry)
    code.mov(zero, 0)
    for offset in range(0, zeros, 4):
        code.str_(zero, SP, offset)
    for register in registers[2:6]:
        code.rename(register, register.name)

    code.label(pair)
    code.ldm(SP, sums, forward=False)
    code.jump_to_address_at(SP, at_entry)
    code.align()
    code.label(top)
    for _ in range(unrolled):
        _step(code, widened, stream, first, second, rest)
    code.label(end)
    limit = code.rename(rest[0], "limit")
    code.ldr(limit, SP, at_limit)
    code.cmp(widened, limit)
    code.branch(top, "ne")
    _finish(code, stream, first, second, registers, form=form)

    out, stride, more = (
        code.rename(registers[i], name) for i, name in ((0, "out"), (10, "stride"), (11, "x"))
    )
    code.ldr(out, SP, at_output)
    code.ldr(stride, SP, at_stride)
    for a, b in zip(first, second, strict=True):
        code.bfi(a, b, 8, 8)
    if odd:
        code.ldr(more, SP, at_end)
        code.sub(more, more, 1)
        code.cmp(out, more)
        code.branch(last, "eq")
    _store(code.strh, code.strh_indexed, code, first, out, stride)
    if not odd:
        code.ldr(more, SP, at_end)
    code.add(out, out, 2)
    code.str_(out, SP, at_output)
    if not odd:
        code.cmp(out, more)
    code.rename(out, "widened")
    code.ldr(widened, SP, at_widened)
    code.branch(pair, None if odd else "ne")
    if odd:
        code.label(last)
        code.rename(widened, "out")
        _store(code.strb, code.strb_indexed, code, first, out, stride)
    code.leave(frame)
    return code


def _store(
    store: Callable[[Register, Register], None],
    store_indexed: Callable[[Register, Register, Register, int], None],
    code: Assembler,
    values: tuple[Register, ...],
    out: Register,
    stride: Register,
) -> None:
    """A value for each pixel; changes `stride`."""
    store(values[0], out)
    store_indexed(values[1], out, stride, 0)
    store_indexed(values[2], out, stride, 1)
    if len(values) == 4:
        code.add(stride, stride, stride, lsl=1)
        store_indexed(values[3], out, stride, 0)


def _step(
    code: Assembler,
    widened: Register,
    stream: Register,
    first: tuple[Register, ...],
    second: tuple[Register, ...],
    rest: tuple[Register, ...],
) -> None:
    """Four k for all pixels and both channels."""
    for register in rest:
        code.rename(register, register.name)
    if len(first) == 4:
        w, wb, *x = rest
        for _ in range(2):
            code.ldr(w, stream, post=4)
            code.sxtb16(wb, w)
            for half in (0, 2):
                code.ldrd(x[0], x[1], widened, post=8)
                for position in (0, 1):
                    pixel = half + position
                    code.smlad(first[pixel], w, x[position], first[pixel])
                    code.smlad(second[pixel], wb, x[position], second[pixel])
        return
    *x, w, w_next, wb = rest
    code.ldrd(w, w_next, stream, post=8)
    for word in (w, w_next):
        code.ldm(widened, x)
        code.sxtb16(wb, word)
        for pixel in range(3):
            code.smlad(first[pixel], word, x[pixel], first[pixel])
            code.smlad(second[pixel], wb, x[pixel], second[pixel])


def _finish(
    code: Assembler,
    stream: Register,
    first: tuple[Register, ...],
    second: tuple[Register, ...],
    registers: tuple[Register, ...],
    *,
    form: Form,
) -> None:
    """From sums to outputs, channel A and then channel B."""
    names = ("bias", "multiplier", "constant", "exponent")
    bias, multiplier, constant, exponent = (
        code.rename(registers[10 + position], name) for position, name in enumerate(names)
    )
    spare = code.rename(registers[0], "spare")
    code.ldm(stream, (bias, multiplier, constant, exponent))
    for a, b in zip(first, second, strict=True):
        code.sub(a, a, b)
        code.add(a, bias, a, asr=7)
    emit_requantize(code, first, multiplier, constant, exponent, spare, form)
    code.ldm(stream, (bias, multiplier, constant, exponent))
    for b in second:
        code.add(b, bias, b, lsl=1)
    emit_requantize(code, second, multiplier, constant, exponent, spare, form)
