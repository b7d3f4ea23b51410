"""Routines of 3x3 depthwise convolutions, four channels at a time.

`split_rows` takes two input rows apart into a plane a channel, whose words are vertical pairs: the value of
one row in the bottom half, that of the row below in the top half, int16. With a window's pairs P = (w0, w1)
and Q = (w1, w2) for each of its columns, and input rows y…y+3 in planes p = (y, y+1) and q = (y+2, y+3),

    output row y:       p · P  (smlad)  +  q.bottom · Q.top  (smlabt)
    output row y + 1:   p.top · P.bottom (smlatb)  +  q · Q  (smlad)

Weights are doubled, so that sums come out as requantisation takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.requantize import ChannelParameters, emit_requantize

__all__ = ["CHANNEL_BYTES", "Planes", "convolve_rows", "pack_channels", "split_rows"]

CHANNEL_BYTES = 40
"""Of the stream, for each channel: 10 words."""

FARTHEST_PAIR = 1020
FARTHEST = 4095

Present = Literal["both", "upper", "lower"]
"""Which of two rows are in the input; the other is all padding."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Shape of the planes and of the rows they come from and go to.

    In memory: [pair of rows][channel of four][column], words. `columns` is the padded width.
    """

    columns: int
    filled: int
    """Input columns that are copied; the others are padding."""
    channels: int
    """Of the tensors, that is bytes from pixel to pixel."""
    outputs: int
    """Output columns."""
    stride: int

    @property
    def channel_bytes(self) -> int:
        return 4 * self.columns

    @property
    def pair_bytes(self) -> int:
        return 16 * self.columns

    @property
    def supported(self) -> bool:
        """Whether all offsets fit their instructions."""
        return (
            self.pair_bytes <= FARTHEST
            and 3 * self.channel_bytes <= FARTHEST
            and 2 * self.channels <= FARTHEST
        )


def pack_channels(weights: NDArray[np.int8], parameters: ChannelParameters) -> NDArray[np.int8]:
    """(3, 3, C) weights and the parameters as the stream: 2b, P of three columns, Q of three, m, c, e."""
    doubled = 2 * weights.astype(np.int16)
    upper, lower = doubled[[0, 1]], doubled[[1, 2]]
    pairs = np.stack([upper, lower]).transpose(3, 0, 2, 1)  # channel, P or Q, column, half
    words = np.ascontiguousarray(pairs, "<i2").view("<i4").reshape(weights.shape[2], 6)
    rows = parameters.rows().astype("<i4")
    stream = np.concatenate([rows[:, :1], words, rows[:, 1:]], axis=1)
    return np.ascontiguousarray(stream).reshape(-1).view(np.int8)


def split_rows(planes: Planes, present: Present) -> Assembler:
    """void f(const int8_t *upper, const int8_t *lower, int32_t *to); a row that is missing: a word of four
    equal bytes in the place of its pointer.
    """
    code = Assembler(
        f"edgekit_split_{planes.filled}x{planes.channels}_{planes.columns}_{present}",
        f"Two rows of {planes.filled} pixels to planes of vertical pairs, four channels.\n(upper, lower, to)",
    )
    upper, lower, to, end, u0, u1, l0, l1, first, second, x0, x1 = code.registers(
        "upper lower to end u0 u1 l0 l1 first second x0 x1"
    )
    step = planes.channel_bytes
    code.enter()
    if present == "upper":
        code.mov(l0, lower)
        code.mov(l1, lower)
    elif present == "lower":
        code.mov(u0, upper)
        code.mov(u1, upper)

    def load(pixels: int) -> None:
        for source, values in ((upper, (u0, u1)), (lower, (l0, l1))):
            if (present == "upper" and source is lower) or (present == "lower" and source is upper):
                continue
            if pixels == 2:
                code.ldr(values[1], source, planes.channels)
            moved = pixels * planes.channels
            if moved <= 255:
                code.ldr(values[0], source, post=moved)
            else:
                code.ldr(values[0], source)
                code.add(source, source, moved)

    def store(pixels: int, channel: int) -> None:
        last = channel == 0
        if pixels == 1:
            code.str_(x0, to, channel * step)
        elif channel * step > FARTHEST_PAIR:
            code.str_(x0, to, channel * step)
            code.str_(x1, to, channel * step + 4)
        elif last:
            code.strd(x0, x1, to, post=8)
        else:
            code.strd(x0, x1, to, channel * step)

    def split(pixels: int) -> None:
        load(pixels)
        # Channels 2 and 3 before 0 and 1, whose store moves the pointer.
        for pair in (1, 0):
            for packed, u, low in ((first, u0, l0), (second, u1, l1))[:pixels]:
                if pair:
                    code.pkhtb(packed, low, u, asr=16)
                else:
                    code.pkhbt(packed, u, low, lsl=16)
            for odd in (1, 0):
                for value, packed in ((x0, first), (x1, second))[:pixels]:
                    code.sxtb16(value, packed, ror=8 * odd)
                store(pixels, 2 * pair + odd)

    turns, single = divmod(planes.filled, 2)
    unrolled = 2 if turns % 2 == 0 and turns > 2 else 1
    if turns > unrolled:
        loop = code.new_label("pair")
        code.add(end, to, 8 * turns)
        code.label(loop)
        for _ in range(unrolled):
            split(2)
        code.cmp(to, end)
        code.branch(loop, "ne")
    else:
        for _ in range(turns):
            split(2)
    if single:
        split(1)
    code.leave()
    return code


def convolve_rows(planes: Planes, *, rows: Literal[1, 2], one_sided: bool) -> Assembler:
    """Output rows of four channels, one or two (stride 1 only) at a time.

    void f(const int32_t *planes, const int8_t *stream, int8_t *output, int32_t passes)
    """
    code = Assembler(
        f"edgekit_dw{rows}_{planes.outputs}x{planes.channels}_{planes.columns}s{planes.stride}"
        f"{'_relu' if one_sided else ''}",
        f"{rows} output row(s) of {planes.outputs} pixels a pass, four channels.\n"
        "(planes, stream, output, passes)",
    )
    _RowRoutine(code, planes, rows, one_sided=one_sided).emit()
    return code


class _RowRoutine:
    """Emits `convolve_rows`. Locals: the channel's 10 words, then what the loops keep."""

    AT_LIMIT, AT_STREAM, AT_STREAM_END, AT_PLANES, AT_OUTPUT, AT_PLANES_END = range(40, 64, 4)
    FRAME = 64

    def __init__(self, code: Assembler, planes: Planes, rows: int, *, one_sided: bool) -> None:
        self.code, self.planes, self.rows, self.one_sided = code, planes, rows, one_sided
        registers = code.registers("planes out x0 x1 s0 s1 s2 s3 P0 P1 P2 Q0 Q1 Q2")
        self.source, self.out = registers[:2]
        self.x = registers[2:4]
        self.sums, self.p, self.q = registers[4:8], registers[8:11], registers[11:14]
        group = 2 if rows == 2 else 4
        blocks = -(-planes.outputs // group)
        # Blocks of nearly equal size rather than full ones and a rest.
        self.sizes = [planes.outputs // blocks + (i < planes.outputs % blocks) for i in range(blocks)]
        if rows == 2 or blocks > 2:
            self.sizes = [group] * (planes.outputs // group)
            self.sizes += [planes.outputs % group] if planes.outputs % group else []
        self.unrolled = len(self.sizes) <= (3 if rows == 2 else 2)

    def emit(self) -> None:
        code, planes = self.code, self.planes
        code.enter(self.FRAME)
        code.str_(self.source, SP, self.AT_PLANES)
        stream = code.rename(self.out, "stream")
        output, passes, bytes_ = (
            code.rename(register, name)
            for register, name in ((self.x[0], "output"), (self.x[1], "passes"), (self.sums[0], "bytes"))
        )
        code.str_(output, SP, self.AT_OUTPUT)
        code.mov(bytes_, planes.pair_bytes)
        code.mla(passes, passes, bytes_, self.source)
        code.str_(passes, SP, self.AT_PLANES_END)
        code.add(bytes_, stream, 4 * CHANNEL_BYTES)
        code.str_(bytes_, SP, self.AT_STREAM_END)
        channel, row = code.new_label("channel"), code.new_label("rows")
        code.label(channel)
        self._load_channel(stream)
        code.label(row)
        if self.unrolled:
            self._unrolled_pass()
        else:
            self._looped_pass()
        self._next_pass(row)
        self._next_channel(channel, stream)
        code.leave(self.FRAME)

    def _load_channel(self, stream: Register) -> None:
        """The channel's words to the stack, from where one instruction loads them again for each block."""
        code = self.code
        words = [self.x[1], *self.sums, *self.p, *self.q[:2]]
        words = [code.rename(register, f"word{i}") for i, register in enumerate(words)]
        stack = code.rename(self.q[2], "stack")
        code.mov(stack, SP)
        code.ldm(stream, words)
        code.stm(stack, words)
        code.str_(stream, SP, self.AT_STREAM)
        self._restore_names()
        code.ldr(self.source, SP, self.AT_PLANES)
        code.ldr(self.out, SP, self.AT_OUTPUT)

    def _restore_names(self) -> None:
        for register in (self.source, self.out, *self.x, *self.sums, *self.p, *self.q):
            self.code.rename(register, register.name)

    def _unrolled_pass(self) -> None:
        advance = self.planes.pair_bytes
        direct = advance <= 255
        done = 0
        for index, size in enumerate(self.sizes):
            column = 4 * done * self.planes.stride
            self._block(size, column, advance if direct else 0, moved=bool(index) and direct)
            self._store(size, done * self.planes.channels, 0)
            done += size
        if not direct:
            self._add(self.source, advance)
        self._add(self.out, self.rows * self.planes.outputs * self.planes.channels)

    def _looped_pass(self) -> None:
        code, planes = self.code, self.planes
        size = self.sizes[0]
        whole = sum(1 for each in self.sizes if each == size)
        step, moved = 4 * size * planes.stride, size * planes.channels
        limit = code.rename(self.q[0], "limit")
        self._add(limit, whole * step, self.source)
        code.str_(limit, SP, self.AT_LIMIT)
        code.rename(limit, self.q[0].name)
        loop = code.new_label("columns")
        code.label(loop)
        self._block(size, 0, step, moved=False)
        self._store(size, 0, moved)
        limit = code.rename(self.q[0], "limit")
        code.ldr(limit, SP, self.AT_LIMIT)
        code.cmp(self.source, limit)
        code.branch(loop, "ne")
        code.rename(limit, self.q[0].name)
        rest = self.sizes[whole:]
        for each in rest:
            self._block(each, 0, 0, moved=False)
            self._store(each, 0, 0)
        self._add(self.source, planes.pair_bytes - whole * step)
        self._add(self.out, self.rows * planes.outputs * planes.channels - whole * moved)

    def _add(self, to: Register, amount: int, left: Register | None = None) -> None:
        code, left = self.code, left or to
        if 0 <= amount <= FARTHEST:
            if amount or left is not to:
                code.add(to, left, amount)
        elif amount < 0:
            code.sub(to, left, -amount)
        else:
            spare = code.rename(self.q[2], "amount")
            code.mov(spare, amount)
            code.add(to, left, spare)
            code.rename(spare, self.q[2].name)

    def _block(self, size: int, column: int, advance: int, *, moved: bool) -> None:
        """Sums of `size` output columns.

        Args:
            column: distance in bytes from `source` to the block's first pair.
            advance: how far this pass moves `source`; the first load of the pass does it.
            moved: whether it did.
        """
        code, planes = self.code, self.planes
        sums = self._accumulators(size)
        # The bias goes into the last sum's register, from which the first product of each sum takes it.
        code.ldm(SP, (self.sums[3], *self.p, *self.q), forward=False)
        columns = (size - 1) * planes.stride + 3
        started: set[Register] = set()
        for plane in (0, planes.pair_bytes):
            distance = plane + column - (advance if moved else 0)
            for first in range(0, columns, 2):
                values = self.x[: min(2, columns - first)]
                place = distance + 4 * first
                if advance and not moved and place == 0:
                    self._load(values, 0, advance)
                    moved, distance = True, distance - advance
                else:
                    self._load(values, place, None)
                for value, at in zip(values, range(first, columns), strict=False):
                    self._products(value, at, sums, started, lower=plane > 0)

    def _load(self, values: tuple[Register, ...], place: int, post: int | None) -> None:
        code = self.code
        if len(values) == 1 and post is None:
            code.ldr(values[0], self.source, place)
        elif post is not None:
            code.ldrd(values[0], values[1], self.source, post=post)
        elif -FARTHEST_PAIR <= place <= FARTHEST_PAIR:
            code.ldrd(values[0], values[1], self.source, place)
        else:
            code.ldr(values[0], self.source, place)
            code.ldr(values[1], self.source, place + 4)

    def _products(
        self,
        value: Register,
        column: int,
        sums: list[tuple[Register, ...]],
        started: set[Register],
        *,
        lower: bool,
    ) -> None:
        """What one pair of an input column adds to each output column's sums."""
        code = self.code
        for x, (top, *bottom) in enumerate(sums):
            kernel_column = column - x * self.planes.stride
            if not 0 <= kernel_column < 3:
                continue
            for total, second in ((top, False), *((each, True) for each in bottom)):
                plus = total if total in started else self.sums[3]
                started.add(total)
                if not lower and not second:
                    code.smlad(total, value, self.p[kernel_column], plus)
                elif not lower:
                    code.smla("t", "b", total, value, self.p[kernel_column], plus)
                elif not second:
                    code.smla("b", "t", total, value, self.q[kernel_column], plus)
                else:
                    code.smlad(total, value, self.q[kernel_column], plus)

    def _accumulators(self, size: int) -> list[tuple[Register, ...]]:
        """A register for each output row of each output column; the one that holds the bias is the last."""
        count = size * self.rows
        used = [*self.sums[: count - 1], self.sums[3]]
        return [tuple(used[self.rows * x : self.rows * (x + 1)]) for x in range(size)]

    def _store(self, size: int, distance: int, advance: int) -> None:
        """Requantise the block's sums and store them `distance` bytes behind `out`, which then advances."""
        code, planes = self.code, self.planes
        sums = self._accumulators(size)
        names = ("multiplier", "constant", "exponent")
        multiplier, constant, exponent = (
            code.rename(register, name) for register, name in zip(self.p, names, strict=True)
        )
        spare = None if self.one_sided else code.rename(self.q[0], "spare")
        code.ldrd(multiplier, constant, SP, 28)
        code.ldr(exponent, SP, 36)
        flat = [total for column in sums for total in column]
        emit_requantize(code, flat, multiplier, constant, exponent, spare)
        row_bytes = planes.outputs * planes.channels
        places = [
            (distance + x * planes.channels + row * row_bytes, sums[x][row])
            for x in range(size)
            for row in range(self.rows)
        ]
        for place, total in sorted(places, reverse=True, key=lambda each: each[0]):
            if place == 0 and 0 < advance <= 255:
                code.strb(total, self.out, post=advance)
                advance = 0
            elif place <= FARTHEST:
                code.strb(total, self.out, place)
            else:
                index = code.rename(self.q[1], "distance")
                code.mov(index, place)
                code.strb_indexed(total, self.out, index)
                code.rename(index, self.q[1].name)
        if advance:
            self._add(self.out, advance)
        self._restore_names()

    def _next_pass(self, row: str) -> None:
        code = self.code
        end = code.rename(self.q[0], "end")
        code.ldr(end, SP, self.AT_PLANES_END)
        code.cmp(self.source, end)
        code.branch(row, "ne")
        code.rename(end, self.q[0].name)

    def _next_channel(self, channel: str, stream: Register) -> None:
        code, step = self.code, self.planes.channel_bytes
        start, output, end = (
            code.rename(self.sums[i], name) for i, name in enumerate(("start", "output", "end"))
        )
        code.ldrd(start, output, SP, self.AT_PLANES)
        code.ldr(end, SP, self.AT_PLANES_END)
        code.add(start, start, step)
        code.add(output, output, 1)
        code.add(end, end, step)
        code.strd(start, output, SP, self.AT_PLANES)
        code.str_(end, SP, self.AT_PLANES_END)
        code.rename(self.out, "stream")
        code.ldrd(stream, start, SP, self.AT_STREAM)
        code.cmp(stream, start)
        code.branch(channel, "ne")
