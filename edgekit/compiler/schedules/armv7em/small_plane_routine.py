"""The routine behind `small_plane`: a whole image, four channels after four."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.planes import FARTHEST, FARTHEST_PAIR, Present
from edgekit.compiler.schedules.armv7em.requantize import FORM_SUFFIX, Form, emit_requantize
from edgekit.compiler.schedules.armv7em.small_plane import (
    PairTerm,
    RowGroup,
    SmallPlane,
    column_blocks,
)

__all__ = ["convolve_small_plane", "unrolled_outputs"]

STRAIGHT_COLUMNS = 6
"""Columns of an input row that are taken apart in one turn of a loop; of which fewer need none."""


def convolve_small_plane(plane: SmallPlane, *, form: Form) -> Assembler:
    """void f(const int8_t *input, const int8_t *stream, int8_t *output, int32_t *planes, int32_t zero)

    `planes` is scratch for four channels; `zero` has minus the zero point in both halves.
    """
    code = Assembler(
        f"edgekit_dw_plane_{plane.height}x{plane.width}x{plane.channels}_{plane.rows}x{plane.columns}"
        f"x{plane.output_pitch}"
        f"s{plane.stride}_{plane.top}_{plane.left}{FORM_SUFFIX[form]}",
        f"{plane.rows}x{plane.columns} outputs of {plane.height}x{plane.width} inputs, all channels.\n"
        "(input, stream, output, planes, zero)",
    )
    _Routine(code, plane, form).emit()
    return code


def unrolled_outputs(plane: SmallPlane) -> int:
    """Outputs that the routine has code for, where row groups that are alike share theirs."""
    return sum(run.group.rows * plane.columns for run in _runs(plane.groups()))


@dataclass(frozen=True, slots=True)
class _Run:
    """A group of output rows, and how often it comes again, so many pairs and rows later."""

    group: RowGroup
    count: int
    pairs: int
    rows: int


def _runs(groups: Sequence[RowGroup]) -> list[_Run]:
    runs: list[_Run] = []
    for group in groups:
        if runs:
            last = runs[-1]
            pairs = group.pair - last.group.pair - (last.count - 1) * last.pairs
            rows = group.row - last.group.row - (last.count - 1) * last.rows
            alike = last.count == 1 or (pairs, rows) == (last.pairs, last.rows)
            if alike and group.terms == last.group.terms and pairs > 0:
                runs[-1] = _Run(last.group, last.count + 1, pairs, rows)
                continue
        runs.append(_Run(group, 1, 0, 0))
    return runs


class _Routine:
    """Locals: the channel's 10 words, then what the loops keep."""

    AT_LIMIT, AT_STREAM, AT_PLANES, AT_PLANES_END, AT_INPUT, AT_INPUT_END = range(40, 64, 4)
    FRAME = 64

    def __init__(self, code: Assembler, plane: SmallPlane, form: Form) -> None:
        self.code, self.plane, self.form = code, plane, form
        registers = code.registers("source out x0 x1 s0 s1 s2 s3 P0 P1 P2 Q0 Q1 Q2")
        self.registers = registers
        self.source, self.out = registers[:2]
        self.x, self.sums = registers[2:4], registers[4:8]
        self.weights = {"P": registers[8:11], "Q": registers[11:14]}
        self.row_bytes = 4 * plane.width
        # How far the two pointers have gone in the plane and the output.
        self.moved, self.written = 0, 0

    def emit(self) -> None:
        code, plane = self.code, self.plane
        self.at_zero = code.enter(self.FRAME)
        entry = self._named(stream=self.registers[1], output=self.registers[2], planes=self.registers[3])
        end = code.rename(self.sums[0], "end")
        code.str_(self.source, SP, self.AT_INPUT)
        code.add(end, self.source, plane.channels)
        code.str_(end, SP, self.AT_INPUT_END)
        code.strd(entry["stream"], entry["planes"], SP, self.AT_STREAM)
        code.add(end, entry["planes"], 4 * plane.plane_bytes)
        code.str_(end, SP, self.AT_PLANES_END)
        code.rename(self.out, "out")
        code.mov(self.out, entry["output"])
        four, channel = code.new_label("four"), code.new_label("channel")
        code.label(four)
        self._split()
        code.ldr(self.source, SP, self.AT_PLANES)
        code.label(channel)
        self._load_channel()
        for run in _runs(plane.groups()):
            self._run(run)
        self._advance(plane.plane_bytes - self.moved, 1 - self.written)
        self.moved = self.written = 0
        self._turn(channel, self.AT_PLANES_END, self.source)
        at, end = self.x
        code.ldrd(at, end, SP, self.AT_INPUT)
        code.cmp(at, end)
        code.branch(four, "ne")
        code.leave(self.FRAME)

    def _named(self, **registers: Register) -> dict[str, Register]:
        return {name: self.code.rename(register, name) for name, register in registers.items()}

    def _restore_names(self) -> None:
        for register in self.registers:
            self.code.rename(register, register.name)

    # --- input rows to planes ---

    def _split(self) -> None:
        """Four channels of the input to their planes. `out` is kept."""
        code, plane = self.code, self.plane
        names = ["lower", "to", "zero", "u0", "u1", "l0", "l1", "p0", "p1", "x0", "x1", "end"]
        self.r = self._named(**dict(zip(names, self.registers[2:], strict=True)))
        upper = self.source
        code.ldr(upper, SP, self.AT_INPUT)
        code.add(self.r["end"], upper, 4)
        code.str_(self.r["end"], SP, self.AT_INPUT)
        code.ldr(self.r["to"], SP, self.AT_PLANES)
        code.ldr(self.r["zero"], SP, self.at_zero)
        input_row = plane.width * plane.channels
        before = -plane.first_row
        both, after = divmod(plane.height - before, 2)
        if before:
            gone = self._split_row("lower")
            if both or after:
                self._go_on(self.row_bytes - 4 * gone, input_row - gone * plane.channels)
        if both:
            code.add(self.r["lower"], upper, input_row)
            again = code.new_label("rows")
            if both > 1:
                code.add(self.r["end"], self.r["to"], both * self.row_bytes)
                code.label(again)
            gone = self._split_row("both")
            if both > 1 or after:
                self._go_on(self.row_bytes - 4 * gone, 2 * input_row - gone * plane.channels)
            if both > 1:
                code.cmp(self.r["to"], self.r["end"])
                code.branch(again, "ne")
        if after:
            self._split_row("upper")
        self._restore_names()

    def _go_on(self, to: int, rows: int) -> None:
        """Move the pointers by bytes."""
        self._add(self.r["to"], to)
        for pointer in (self.source, self.r["lower"]):
            self._add(pointer, rows, spare=self.r["x0"])

    def _split_row(self, present: Present) -> int:
        """A pair of input rows; one that is missing leaves its half undefined.

        Returns how many columns the pointers have gone.
        """
        code, plane, to = self.code, self.plane, self.r["to"]
        turns, rest = divmod(plane.width, STRAIGHT_COLUMNS)
        if turns <= 1:
            self._split_columns(present, plane.width)
            return 0
        limit = self.r["u0"]
        code.add(limit, to, 4 * turns * STRAIGHT_COLUMNS)
        code.str_(limit, SP, self.AT_LIMIT)
        again = code.new_label("columns")
        code.label(again)
        self._split_columns(present, STRAIGHT_COLUMNS)
        self._go_on(4 * STRAIGHT_COLUMNS, STRAIGHT_COLUMNS * plane.channels)
        code.ldr(limit, SP, self.AT_LIMIT)
        code.cmp(to, limit)
        code.branch(again, "ne")
        self._split_columns(present, rest)
        return turns * STRAIGHT_COLUMNS

    def _split_columns(self, present: Present, columns: int) -> None:
        code, plane, r = self.code, self.plane, self.r
        for column in range(0, columns, 2):
            pixels = min(2, columns - column)
            above, below, packed, values = (
                (r[f"{name}0"], r[f"{name}1"])[:pixels] for name in ("u", "l", "p", "x")
            )
            for at in range(pixels):
                code.ldr(above[at], self.source, (column + at) * plane.channels)
                if present == "both":
                    code.ldr(below[at], r["lower"], (column + at) * plane.channels)
            for channel in range(4):
                if present == "both":
                    words, rotation = packed, 8 * (channel % 2)
                    if channel % 2 == 0:
                        for to, u, low in zip(packed, above, below, strict=True):
                            if channel:
                                code.pkhtb(to, low, u, asr=16)
                            else:
                                code.pkhbt(to, u, low, lsl=16)
                else:  # The channel's byte to the half that is inside.
                    words, rotation = above, (8 * channel + (16 if present == "lower" else 0)) % 32
                for value, word in zip(values, words, strict=True):
                    code.sxtab16(value, r["zero"], word, ror=rotation)
                self._keep(values, channel * plane.plane_bytes + 4 * column)

    def _keep(self, values: Sequence[Register], place: int) -> None:
        code, to = self.code, self.r["to"]
        if len(values) == 2 and place <= FARTHEST_PAIR:
            code.strd(values[0], values[1], to, place)
            return
        for position, value in enumerate(values):
            code.str_(value, to, place + 4 * position)

    # --- planes to output rows ---

    def _load_channel(self) -> None:
        """The channel's words to the stack, from where one instruction loads them again for each block."""
        code = self.code
        stream = code.rename(self.x[0], "stream")
        words = [code.rename(register, f"word{i}") for i, register in enumerate(self.registers[3:13])]
        stack = code.rename(self.registers[13], "stack")
        code.ldr(stream, SP, self.AT_STREAM)
        code.mov(stack, SP)
        code.ldm(stream, words)
        code.stm(stack, words, forward=False)
        code.str_(stream, SP, self.AT_STREAM)
        self._restore_names()

    def _run(self, run: _Run) -> None:
        plane, group = self.plane, run.group
        source, out = group.pair * self.row_bytes, group.row * plane.columns * plane.output_pitch
        if run.count == 1:
            farthest = out - self.written + group.rows * plane.columns * plane.output_pitch
            if farthest > FARTHEST or source - self.moved + group.pairs * self.row_bytes > FARTHEST_PAIR:
                self._advance(source - self.moved, out - self.written)
                self.moved, self.written = source, out
            self._group(group, source - self.moved, out - self.written)
            return
        self._advance(source - self.moved, out - self.written)
        code = self.code
        limit = code.rename(self.sums[0], "limit")
        self._add(limit, run.count * run.pairs * self.row_bytes, self.source)
        code.str_(limit, SP, self.AT_LIMIT)
        self._restore_names()
        again = code.new_label("rows")
        code.label(again)
        self._group(group, 0, 0)
        self._advance(run.pairs * self.row_bytes, run.rows * plane.columns * plane.output_pitch)
        self._turn(again, self.AT_LIMIT, self.source)
        self.moved = source + run.count * run.pairs * self.row_bytes
        self.written = out + run.count * run.rows * plane.columns * plane.output_pitch

    def _group(self, group: RowGroup, source: int, out: int) -> None:
        """Output rows from `source` bytes behind that pointer, to `out` bytes behind the other."""
        for first, size in column_blocks(self.plane.columns, group.rows):
            sums = self._accumulators(size, group.rows)
            self._block(group, first, sums, source)
            self._store(first, sums, out)

    def _accumulators(self, columns: int, rows: int) -> list[tuple[Register, ...]]:
        """A register for each output row of each output column; the one that holds the bias is the last."""
        used = [*self.sums[: columns * rows - 1], self.sums[3]]
        return [tuple(used[rows * column : rows * (column + 1)]) for column in range(columns)]

    def _block(self, group: RowGroup, first: int, sums: Sequence[tuple[Register, ...]], source: int) -> None:
        code, plane = self.code, self.plane
        # The bias goes into the last sum's register, from which the first product of each sum takes it.
        code.ldm(SP, (self.sums[3], *self.weights["P"], *self.weights["Q"]), forward=False)
        taps = [
            (at, number, kernel)
            for number in range(len(sums))
            for kernel in range(3)
            if (at := plane.inside(first + number, kernel)) is not None
        ]
        needed = range(min(at for at, _, _ in taps), max(at for at, _, _ in taps) + 1)
        started: set[Register] = set()
        for pair in range(group.pairs):
            for column in needed[::2]:
                values = self.x[: min(2, needed[-1] + 1 - column)]
                place = source + pair * self.row_bytes + 4 * column
                if len(values) == 2:
                    code.ldrd(values[0], values[1], self.source, place)
                else:
                    code.ldr(values[0], self.source, place)
                for position, value in enumerate(values):
                    for at, number, kernel in taps:
                        if at == column + position:
                            for row, total in enumerate(sums[number]):
                                self._product(group.terms[row][pair], value, kernel, total, started)

    def _product(
        self, term: PairTerm, value: Register, kernel: int, total: Register, started: set[Register]
    ) -> None:
        """What a pair of one column adds to a sum."""
        plus = total if total in started else self.sums[3]
        started.add(total)
        if self.sums[3] in started and plus is self.sums[3] and total is not plus:
            raise ValueError(f"{self.code.name}: the bias is gone before {total.name} begins")
        weights = self.weights[term.word][kernel]
        if term.halves is None:
            self.code.smlad(total, value, weights, plus)
        else:
            self.code.smla(*term.halves, total, value, weights, plus)

    def _store(self, first: int, sums: Sequence[tuple[Register, ...]], out: int) -> None:
        """Requantise a block's sums and store them."""
        code, plane = self.code, self.plane
        names = self._named(
            multiplier=self.weights["P"][0],
            constant=self.weights["P"][1],
            exponent=self.weights["P"][2],
            spare=self.weights["Q"][0],
            distance=self.weights["Q"][1],
        )
        code.ldrd(names["multiplier"], names["constant"], SP, 28)
        code.ldr(names["exponent"], SP, 36)
        flat = [total for column in sums for total in column]
        emit_requantize(
            code, flat, names["multiplier"], names["constant"], names["exponent"], names["spare"], self.form
        )
        for number, column in enumerate(sums):
            for row, total in enumerate(column):
                place = out + (row * plane.columns + first + number) * plane.output_pitch
                if place <= FARTHEST:
                    code.strb(total, self.out, place)
                else:
                    code.mov_far(names["distance"], place)
                    code.strb_indexed(total, self.out, names["distance"])
        self._restore_names()

    # --- pointers ---

    def _advance(self, source: int, out: int) -> None:
        self._add(self.source, source)
        self._add(self.out, out)

    def _add(
        self, to: Register, amount: int, left: Register | None = None, *, spare: Register | None = None
    ) -> None:
        code, left, spare = self.code, left or to, spare or self.registers[12]
        move = code.add if amount >= 0 else code.sub
        if abs(amount) > FARTHEST:
            code.mov_far(spare, abs(amount))
            move(to, left, spare)
        elif amount or left is not to:
            move(to, left, abs(amount))

    def _turn(self, label: str, at_end: int, pointer: Register) -> None:
        """Back to a label until a pointer is where a local says."""
        code = self.code
        end = code.rename(self.registers[13], "end")
        code.ldr(end, SP, at_end)
        code.cmp(pointer, end)
        code.branch(label, "ne")
        self._restore_names()
