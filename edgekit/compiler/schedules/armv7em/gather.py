"""Gathers the inputs of a block of pixels into scratch, widened to int16, in the order of `pixel_blocks`.

The inputs of one output pixel are some rows of bytes, each contiguous, at a constant distance from another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.pixel_blocks import Pixels

__all__ = ["Tail", "gather_bytes", "gather_words", "in_reach", "packed_k"]

Tail = Literal[0, 1, 2, 3]
"""Bytes of a row behind its last whole word."""

FARTHEST = 4095
"""Offset that a load can hold."""


def in_reach(row_bytes: int, rows: int, row_step: int) -> bool:
    """Whether a load's offset holds the last row's end, so that `gather_bytes` serves."""
    return row_step * (rows - 1) + row_bytes <= FARTHEST


def packed_k(row_bytes: int, rows: int) -> int:
    """k of rows packed one behind another, filled up to a multiple of 4."""
    return -(-row_bytes * rows // 4) * 4


def gather_words(pixels: Pixels, tail: Tail = 0) -> Assembler:
    """Rows of some words and `tail` bytes, each filled up to words; any number and distance of them.

    void f(const int8_t *pixel0, …, int16_t *scratch, int32_t row_words, int32_t rows, int32_t row_step)

    Reads nothing outside the rows. `row_words` (1 and more) counts whole words.
    """
    code = Assembler(
        f"edgekit_gather{pixels}{f'_tail{tail}' if tail else ''}",
        f"Widens {pixels} pixels of some rows of words{f' and {tail} bytes' if tail else ''}.\n"
        "(pixel…, scratch, row_words, rows, row_step)",
    )
    all_registers = code.registers("p0 p1 p2 p3 l0 l1 l2 l3 h0 h1 h2 h3 scratch count")
    sources, low, high = all_registers[:pixels], all_registers[4 : 4 + pixels], all_registers[8 : 8 + pixels]
    scratch, count = all_registers[12], all_registers[13]
    word, row = code.new_label("word"), code.new_label("row")
    arguments = code.enter(8)
    if pixels == 4:
        code.ldr(scratch, SP, arguments)
        arguments += 4
    else:
        code.mov(scratch, all_registers[3])
    words_at, rows_at, step_at = arguments, arguments + 4, arguments + 8
    # What remains of the distance after a row has been walked.
    step = code.rename(low[0], "step")
    code.ldr(step, SP, step_at)
    code.ldr(count, SP, words_at)
    code.sub(step, step, count, lsl=2)
    code.str_(step, SP, 0)
    code.rename(step, "l0")
    code.label(row)
    code.ldr(count, SP, words_at)
    code.label(word)
    for source, to in zip(sources, low, strict=True):
        code.ldr(to, source, post=4)
    _widen(code, low, high, scratch)
    code.subs(count, count, 1)
    code.branch(word, "ne")
    if tail:
        for source, to in zip(sources, low, strict=True):
            _load_tail(code, source, to, tail)
        _widen(code, low, high, scratch)
    step = code.rename(low[0], "step")
    code.ldr(count, SP, rows_at)
    code.ldr(step, SP, 0)
    for source in sources:
        code.add(source, source, step)
    code.rename(step, "l0")
    code.subs(count, count, 1)
    code.str_(count, SP, rows_at)
    code.branch(row, "ne")
    code.leave(8)
    return code


def gather_bytes(pixels: Pixels, row_bytes: int, rows: int, row_step: int) -> Assembler | None:
    """Rows of any length, packed one behind another and filled up to words: unrolled for one shape.

    void f(const int8_t *pixel0, …, int16_t *scratch). Reads nothing outside the rows. None where the last row
    is too far away for a load's offset.
    """
    if not in_reach(row_bytes, rows, row_step):
        return None
    code = Assembler(
        f"edgekit_gather{pixels}_{rows}x{row_bytes}_{row_step}",
        f"Widens {pixels} pixels of {rows} rows of {row_bytes} bytes, {row_step} apart.\n(pixel…, scratch)",
    )
    registers = code.registers("p0 p1 p2 p3 l0 l1 l2 l3 h0 h1 h2 h3 scratch -")
    sources, low, high = registers[:pixels], registers[4 : 4 + pixels], registers[8 : 8 + pixels]
    scratch = registers[12]
    arguments = code.enter()
    if pixels == 4:
        code.ldr(scratch, SP, arguments)
    else:
        code.mov(scratch, registers[3])
    for first in range(0, row_bytes * rows, 4):
        pieces = _pieces(first, min(first + 4, row_bytes * rows), row_bytes, row_step)
        for source, to, spare in zip(sources, low, high, strict=True):
            _assemble_word(code, source, to, spare, pieces, row_bytes)
        _widen(code, low, high, scratch)
    code.leave()
    return code


def _load_tail(code: Assembler, source: Register, to: Register, tail: Tail) -> None:
    """The bytes from `source` on, with nothing above them; there is one below."""
    if tail == 1:
        code.ldrb(to, source)
    elif tail == 2:
        code.ldrh(to, source)
    else:
        code.ldr(to, source, -1)
        code.lsr(to, to, 8)


def _widen(code: Assembler, low: Sequence[Register], high: Sequence[Register], scratch: Register) -> None:
    for even, odd in zip(low, high, strict=True):
        code.sxtb16(odd, even, ror=8)
        code.sxtb16(even, even)
    code.stm(scratch, low)
    code.stm(scratch, high)


def _pieces(first: int, end: int, row_bytes: int, row_step: int) -> list[tuple[int, int, int]]:
    """Bytes [first, end) of the packed rows as (offset from the pixel, place in its row, bytes)."""
    pieces = []
    while first < end:
        row, place = divmod(first, row_bytes)
        length = min(end - first, row_bytes - place)
        if length == 3 and row_bytes == 3:
            length = 2  # No load of four bytes stays inside the row.
        pieces.append((row * row_step + place, place, length))
        first += length
    return pieces


def _assemble_word(
    code: Assembler,
    source: Register,
    to: Register,
    spare: Register,
    pieces: Sequence[tuple[int, int, int]],
    row_bytes: int,
) -> None:
    """One word from its pieces; bytes that no piece gives are 0."""
    filled = 0
    for offset, place, length in pieces:
        piece = to if filled == 0 else spare
        if length == 4:
            code.ldr(piece, source, offset)
        elif length == 1:
            code.ldrb(piece, source, offset)
        elif length == 2:
            code.ldrh(piece, source, offset)
        elif filled and row_bytes - place >= 4:
            code.ldr(piece, source, offset)  # The fourth byte is shifted out.
        else:
            code.ldr(piece, source, offset - 1)
            code.lsr(piece, piece, 8)
        if filled:
            code.orr(to, to, spare, lsl=8 * filled)
        filled += length
