"""Copies and fills. The C library's are made for size (newlib-nano moves byte after byte)."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.compiler.schedules.armv7em.instructions import Assembler
from edgekit.compiler.schedules.armv7em.strips import in_strips

__all__ = ["clamp_bytes", "copy_bytes", "fill_bytes"]


def copy_bytes() -> Assembler:
    """void f(int8_t *to, const int8_t *from, int32_t bytes): any alignment; forward, so that `to` may lie
    below what it overlaps.
    """
    code = Assembler("edgekit_copy", "Copies bytes.\n(to, from, bytes)")
    to, source, count, a, b, c, d, e = code.registers("to from bytes a b c d e")
    aligned, unaligned, words = (code.new_label(name) for name in ("aligned", "unaligned", "words"))

    def word(counted: Callable[[], None]) -> None:
        code.ldr(a, source, post=4)
        counted()
        code.str_(a, to, post=4)

    def byte(counted: Callable[[], None]) -> None:
        code.ldrb(a, source, post=1)
        counted()
        code.strb(a, to, post=1)

    code.enter()
    code.orr(a, to, source)
    code.tst(a, 3)
    code.branch(unaligned, "ne")
    code.subs(count, count, 16)
    code.branch(words, "lo")
    code.label(aligned)
    code.ldm(source, (b, c, d, e))
    code.subs(count, count, 16)
    code.stm(to, (b, c, d, e))
    code.branch(aligned, "hs")
    code.label(words)
    code.add(count, count, 16)
    code.label(unaligned)
    in_strips(code, count, 4, word, byte)
    code.leave()
    return code


def fill_bytes() -> Assembler:
    """void f(int8_t *to, int32_t word, int32_t bytes): `word` has the byte four times; any alignment."""
    code = Assembler("edgekit_fill", "Fills bytes.\n(to, word, bytes)")
    to, word, count = code.registers("to word bytes")

    def two_words(counted: Callable[[], None]) -> None:
        code.str_(word, to, post=4)
        code.str_(word, to, post=4)
        counted()

    def byte(counted: Callable[[], None]) -> None:
        code.strb(word, to, post=1)
        counted()

    in_strips(code, count, 8, two_words, byte)
    code.back()
    return code


def clamp_bytes() -> Assembler:
    """void f(int8_t *data, int32_t bytes, int32_t low, int32_t high): bounds as words of four equal bytes."""
    code = Assembler("edgekit_clamp", "Clamps int8 values in place.\n(data, bytes, low, high)")
    data, count, low, high, value, spare = code.registers("data bytes low high value spare")

    def clamp() -> None:
        code.ssub8(spare, value, low)
        code.sel(value, value, low)
        code.ssub8(spare, high, value)
        code.sel(value, value, high)

    def word(counted: Callable[[], None]) -> None:
        code.ldr(value, data)
        clamp()
        code.str_(value, data, post=4)
        counted()

    def byte(counted: Callable[[], None]) -> None:
        code.ldrb(value, data)
        clamp()
        code.strb(value, data, post=1)
        counted()

    code.enter()
    in_strips(code, count, 4, word, byte)
    code.leave()
    return code
