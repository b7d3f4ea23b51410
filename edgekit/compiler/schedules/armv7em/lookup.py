"""Tables of 256 values."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.compiler.schedules.armv7em.instructions import Assembler
from edgekit.compiler.schedules.armv7em.strips import in_strips, store_four

__all__ = ["look_up"]


def look_up() -> Assembler:
    """void f(const int8_t *from, const int8_t *table, int8_t *to, int32_t bytes)

    `table` begins with the value for −128. The output may be where the input is.
    """
    code = Assembler("edgekit_lookup", "Values by a table, from -128 up.\n(from, table, to, bytes)")
    source, table, to, count, four, sign, *values = code.registers(
        "from table to bytes four sign y0 y1 y2 y3"
    )

    def four_bytes(counted: Callable[[], None]) -> None:
        code.ldr(four, source, post=4)
        code.eor(four, four, sign)
        for position, value in enumerate(values):
            code.uxtb(value, four, ror=8 * position)
        for value in values:
            code.ldrb_indexed(value, table, value)
        counted()
        store_four(code, values, to)

    def one_byte(counted: Callable[[], None]) -> None:
        code.ldrb(four, source, post=1)
        code.eor(four, four, sign)
        code.uxtb(four, four)
        code.ldrb_indexed(four, table, four)
        code.strb(four, to, post=1)
        counted()

    code.enter()
    code.mov(sign, 0x8080)
    code.orr(sign, sign, sign, lsl=16)
    in_strips(code, count, 4, four_bytes, one_byte)
    code.leave()
    return code
