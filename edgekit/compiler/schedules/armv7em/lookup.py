"""Tables of 256 values."""

from __future__ import annotations

from edgekit.compiler.schedules.armv7em.instructions import Assembler

__all__ = ["look_up"]


def look_up() -> Assembler:
    """void f(const int8_t *from, const int8_t *table, int8_t *to, int32_t bytes)

    `table` begins with the value for −128. The output may be where the input is.
    """
    code = Assembler("edgekit_lookup", "Values by a table, from -128 up.\n(from, table, to, bytes)")
    source, table, to, count, four, sign, *values = code.registers(
        "from table to bytes four sign y0 y1 y2 y3"
    )
    loop, tail, one, done = (code.new_label(name) for name in ("four", "tail", "one", "done"))
    code.enter()
    code.mov(sign, 0x8080)
    code.orr(sign, sign, sign, lsl=16)
    code.subs(count, count, 4)
    code.branch(tail, "lo")
    code.label(loop)
    code.ldr(four, source, post=4)
    code.eor(four, four, sign)
    for position, value in enumerate(values):
        code.uxtb(value, four, ror=8 * position)
    for value in values:
        code.ldrb_indexed(value, table, value)
    code.subs(count, count, 4)
    for offset, value in enumerate(values[1:], start=1):
        code.strb(value, to, offset)
    code.strb(values[0], to, post=4)
    code.branch(loop, "hs")
    code.label(tail)
    code.adds(count, count, 4)
    code.branch(done, "eq")
    code.label(one)
    code.ldrb(four, source, post=1)
    code.eor(four, four, sign)
    code.uxtb(four, four)
    code.ldrb_indexed(four, table, four)
    code.strb(four, to, post=1)
    code.subs(count, count, 1)
    code.branch(one, "ne")
    code.label(done)
    code.leave()
    return code
