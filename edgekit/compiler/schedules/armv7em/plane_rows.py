"""Output rows of 3x3 depthwise convolutions, from the planes of `planes`."""

from __future__ import annotations

from typing import Literal

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.planes import CHANNEL_BYTES, FARTHEST, FARTHEST_PAIR, Planes
from edgekit.compiler.schedules.armv7em.requantize import FORM_SUFFIX, Form, emit_requantize

__all__ = ["convolve_rows"]


def convolve_rows(planes: Planes, *, rows: Literal[1, 2], form: Form, small: bool = False) -> Assembler:
    """Output rows of four channels, one or two (stride 1 only) at a time.

    void f(const int32_t *planes, const int8_t *stream, int8_t *output, int32_t passes)
    """
    code = Assembler(
        f"edgekit_dw{rows}_{planes.outputs}x{planes.output_pitch}_{planes.columns}s{planes.stride}"
        f"{FORM_SUFFIX[form]}{'_small' if small else ''}",
        f"{rows} output row(s) of {planes.outputs} pixels a pass, four channels.\n"
        "(planes, stream, output, passes)",
    )
    _RowRoutine(code, planes, rows, form=form, small=small).emit()
    return code


class _RowRoutine:
    """Emits `convolve_rows`. Locals: the channel's 10 words, then what the loops keep."""

    AT_LIMIT, AT_STREAM, AT_STREAM_END, AT_PLANES, AT_OUTPUT, AT_PLANES_END = range(40, 64, 4)
    FRAME = 64

    def __init__(self, code: Assembler, planes: Planes, rows: int, *, form: Form, small: bool) -> None:
        self.code, self.planes, self.rows, self.form = code, planes, rows, form
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
        alike = self.sizes.count(self.sizes[0])
        self.unrolled = alike == 1 if small else len(self.sizes) <= (3 if rows == 2 else 2)

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
            self._store(size, done * self.planes.output_pitch, 0)
            done += size
        if not direct:
            self._add(self.source, advance)
        self._add(self.out, self.rows * self.planes.outputs * self.planes.output_pitch)

    def _looped_pass(self) -> None:
        code, planes = self.code, self.planes
        size = self.sizes[0]
        whole = sum(1 for each in self.sizes if each == size)
        step, moved = 4 * size * planes.stride, size * planes.output_pitch
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
        self._add(self.out, self.rows * planes.outputs * planes.output_pitch - whole * moved)

    def _add(self, to: Register, amount: int, left: Register | None = None) -> None:
        code, left = self.code, left or to
        if 0 <= amount <= FARTHEST:
            if amount or left is not to:
                code.add(to, left, amount)
        elif amount < 0:
            code.sub(to, left, -amount)
        else:
            spare = code.rename(self.q[2], "amount")
            code.mov_far(spare, amount)
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
        spare = code.rename(self.q[0], "spare")
        code.ldrd(multiplier, constant, SP, 28)
        code.ldr(exponent, SP, 36)
        flat = [total for column in sums for total in column]
        emit_requantize(code, flat, multiplier, constant, exponent, spare, self.form)
        row_bytes = planes.outputs * planes.output_pitch
        places = [
            (distance + x * planes.output_pitch + row * row_bytes, sums[x][row])
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
                code.mov_far(index, place)
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
