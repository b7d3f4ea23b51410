"""Products and extrema of two tensors, four elements at a time; the second may be one byte for all."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.requantize import FORM_NOTE, FORM_SUFFIX, Form, emit_requantize
from edgekit.compiler.schedules.armv7em.strips import in_strips, store_four

__all__ = ["extremum", "multiply"]


def multiply(form: Form, *, scalar: bool = False) -> Assembler:
    """void f(const int8_t *a, const int8_t *b, int8_t *output, int32_t bytes, const int32_t *parameters)

    Parameters: the zero points of a and b, negated, in both halves of a word each; multiplier, constant and
    exponent. The output may be where a or b is.
    """
    code = Assembler(
        f"edgekit_multiply{FORM_SUFFIX[form]}{'_scalar' if scalar else ''}",
        f"Products of two tensors{FORM_NOTE[form]}.\n(a, b, output, bytes, parameters)",
    )
    a, b, output, count, zero_a, zero_b, *settings, x0, x1, x2, x3, x4 = code.registers(
        "a b output bytes zero_a zero_b multiplier constant exponent x0 x1 x2 x3 x4"
    )
    multiplier, constant, exponent = settings

    def requantize(*values: Register) -> None:
        emit_requantize(code, values, multiplier, constant, exponent, x3, form)

    def four(counted: Callable[[], None]) -> None:
        code.ldr(x0, a, post=4)
        code.sxtab16(x1, zero_a, x0, ror=8)
        code.sxtab16(x0, zero_a, x0)
        if scalar:
            code.smul("b", "b", x4, x0, zero_b)
            code.smul("t", "b", x0, x0, zero_b)
            code.smul("b", "b", x2, x1, zero_b)
            code.smul("t", "b", x1, x1, zero_b)
        else:
            code.ldr(x2, b, post=4)
            code.sadd16(x1, x1, x1)
            code.sadd16(x0, x0, x0)
            code.sxtab16(x3, zero_b, x2, ror=8)
            code.sxtab16(x2, zero_b, x2)
            code.smul("b", "b", x4, x0, x2)
            code.smul("t", "t", x0, x0, x2)
            code.smul("b", "b", x2, x1, x3)
            code.smul("t", "t", x1, x1, x3)
        requantize(x4, x2, x0, x1)
        counted()
        store_four(code, (x4, x2, x0, x1), output)

    def one(counted: Callable[[], None]) -> None:
        code.ldrb(x0, a, post=1)
        code.sxtab16(x0, zero_a, x0)
        if scalar:
            code.smul("b", "b", x0, x0, zero_b)
        else:
            code.ldrb(x2, b, post=1)
            code.sxtab16(x2, zero_b, x2)
            code.sadd16(x0, x0, x0)
            code.smul("b", "b", x0, x0, x2)
        requantize(x0)
        code.strb(x0, output, post=1)
        counted()

    arguments = code.enter()
    code.ldr(x0, SP, arguments)
    code.ldm(x0, (zero_a, zero_b, *settings), forward=False)
    if scalar:
        # b less its zero point, in its zero point's place; twice that, as requantisation takes the product.
        code.ldrsb(x0, b)
        code.sxtab16(zero_b, zero_b, x0)
        code.sadd16(zero_b, zero_b, zero_b)
    in_strips(code, count, 4, four, one)
    code.leave()
    return code


def extremum(*, larger: bool, scalar: bool = False) -> Assembler:
    """void f(const int8_t *a, const int8_t *b, int8_t *output, int32_t bytes): any alignment.

    The output may be where a or b is.
    """
    code = Assembler(
        f"edgekit_{'maximum' if larger else 'minimum'}{'_scalar' if scalar else ''}",
        f"The {'larger' if larger else 'smaller'} of two bytes each.\n(a, b, output, bytes)",
    )
    a, b, output, count, x, y, spare = code.registers("a b output bytes x y spare")

    def choose(load_a: Callable[[], None], load_b: Callable[[], None]) -> None:
        load_a()
        if not scalar:
            load_b()
        code.ssub8(spare, x, y)
        code.sel(x, *((x, y) if larger else (y, x)))

    def four(counted: Callable[[], None]) -> None:
        choose(lambda: code.ldr(x, a, post=4), lambda: code.ldr(y, b, post=4))
        code.str_(x, output, post=4)
        counted()

    def one(counted: Callable[[], None]) -> None:
        choose(lambda: code.ldrb(x, a, post=1), lambda: code.ldrb(y, b, post=1))
        code.strb(x, output, post=1)
        counted()

    code.enter()
    if scalar:
        code.ldrb(y, b)
        code.orr(y, y, y, lsl=8)
        code.orr(y, y, y, lsl=16)
    in_strips(code, count, 4, four, one)
    code.leave()
    return code
