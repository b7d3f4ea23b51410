"""A row of gemmlowp's fixed-point softmax: largest value, sum of exponentials, its reciprocal, outputs.

With r the reciprocal of the sum (Q0.31), t an exponential (Q0.31) and e = 35 − clz(sum), an output is

    ((r · t + 2^30 >> 31) + 2^(e−1) >> e) − 128 = (r · t + 2^30 + 2^(30+e) >> 31 + e) − 128

since floors of floors are one floor: a product added to a constant of 64 bits, and a shift of its high word.
"""

from __future__ import annotations

from edgekit.compiler.schedules.armv7em.instructions import Assembler, Register

__all__ = ["softmax_row"]

FORTY_EIGHT_SEVENTEENTHS, THIRTY_TWO_SEVENTEENTHS = 1515870810, 1010580540
"""Of the first estimate of a reciprocal, Q2.29 (gemmlowp fixedpoint.h, one_over_one_plus_x_for_x_in_0_1)."""

LEAST_HEADROOM = 4
"""clz of a sum of less than 512; of a greater one nothing is left after rounding."""


def softmax_row() -> Assembler:
    """void f(const int8_t *from, const int32_t *table, int8_t *to, int32_t classes)

    `table[d]` is the exponential of the distance d from the largest value. 1 to 4095 classes; the output may
    be where the input is.
    """
    code = Assembler("edgekit_softmax", "Softmax of one row.\n(from, table, to, classes)")
    source, table, to, classes, largest, total, x, *rest = code.registers(
        "from table to classes largest total x end d r low high half e"
    )
    end, d, r, low, high, half, e = rest
    code.enter()
    code.add(end, source, classes)
    _largest(code, source, end, classes, largest, x, d)
    code.sub(source, end, classes)
    _sum(code, source, end, table, largest, total, x)
    code.sub(source, end, classes)

    code.mov_word(half, 1 << 30)
    code.clz(e, total)
    code.lsl(d, total, e)
    code.lsr(d, d, 1)
    _reciprocal(code, d, r, (low, high), half, x, total)
    nothing, ready = code.new_label("nothing"), code.new_label("ready")
    exponent, added = code.rename(e, "shift"), code.rename(total, "added")
    code.cmp(exponent, LEAST_HEADROOM)
    code.branch(nothing, "lo")
    # e − 1, and 2^(e−2) to be added to the high word.
    code.mov(x, 34)
    code.sub(exponent, x, exponent)
    code.mov(added, 1)
    code.lsl(added, added, exponent)
    code.lsr(added, added, 1)
    code.branch(ready)
    code.label(nothing)
    code.mov(r, 0)
    code.mov(added, 0)
    code.mov(exponent, 30)
    code.label(ready)

    value = code.new_label("value")
    code.label(value)
    code.ldrsb(x, source, post=1)
    code.mov(low, half)
    code.mov(high, added)
    code.sub(x, largest, x)
    code.ldr_indexed(x, table, x)
    code.smlal(low, high, r, x)
    code.lsr(high, high, exponent)
    code.sub(high, high, 128)
    code.ssat(high, 8, high)
    code.cmp(source, end)
    code.strb(high, to, post=1)
    code.branch(value, "ne")
    code.leave()
    return code


def _largest(
    code: Assembler,
    source: Register,
    end: Register,
    classes: Register,
    largest: Register,
    x: Register,
    spare: Register,
) -> None:
    """The largest byte: of words, the last of which overlaps the one before it, or of a few bytes."""
    few, word, last, fold, done = (code.new_label(name) for name in ("few", "word", "last", "fold", "done"))

    def keep_larger(other: Register) -> None:
        code.ssub8(spare, largest, other)
        code.sel(largest, largest, other)

    code.cmp(classes, 4)
    code.branch(few, "lo")
    code.ldr(largest, source, post=4)
    code.label(word)
    code.sub(spare, end, source)
    code.cmp(spare, 4)
    code.branch(last, "lo")
    code.ldr(x, source, post=4)
    keep_larger(x)
    code.branch(word)
    code.label(last)
    code.ldr(x, end, -4)
    keep_larger(x)
    for bits in (16, 8):
        code.lsr(x, largest, bits)
        keep_larger(x)
    code.branch(done)
    code.label(few)
    code.ldrb(largest, source)
    code.label(fold)
    code.ldrb(x, source, post=1)
    keep_larger(x)
    code.cmp(source, end)
    code.branch(fold, "ne")
    code.label(done)
    code.sxtb16(largest, largest)
    code.sxth(largest, largest)


def _sum(
    code: Assembler,
    source: Register,
    end: Register,
    table: Register,
    largest: Register,
    total: Register,
    x: Register,
) -> None:
    """The sum of exponentials, Q12.19, each rounded."""
    add = code.new_label("add")
    code.mov(total, 0)
    code.label(add)
    code.ldrsb(x, source, post=1)
    code.sub(x, largest, x)
    code.ldr_indexed(x, table, x)
    code.add(x, x, 1 << 11)
    code.lsr(x, x, 12)
    code.add(total, total, x)
    code.cmp(source, end)
    code.branch(add, "ne")


def _reciprocal(
    code: Assembler,
    denominator: Register,
    estimate: Register,
    product: tuple[Register, Register],
    half: Register,
    error: Register,
    spare: Register,
) -> None:
    """1 / (1 + a), Q0.31, from (1 + a) / 2: three Newton steps. `half` is 2^30."""
    low, high = product

    def multiply(to: Register, a: Register, b: Register) -> None:
        """(a · b + 2^30) >> 31"""
        code.mov(low, half)
        code.mov(high, 0)
        code.smlal(low, high, a, b)
        code.lsr(low, low, 31)
        code.orr(to, low, high, lsl=1)

    code.mov_word(spare, -THIRTY_TWO_SEVENTEENTHS)
    multiply(error, denominator, spare)
    code.mov_word(spare, FORTY_EIGHT_SEVENTEENTHS)
    code.add(estimate, spare, error)
    for _ in range(3):
        multiply(error, denominator, estimate)
        code.lsr(spare, half, 1)
        code.sub(error, spare, error)
        multiply(error, estimate, error)
        code.add(estimate, estimate, error, lsl=2)
    code.qadd(estimate, estimate, estimate)
