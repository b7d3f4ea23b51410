"""Reductions over a window of pixels, four channels at a time: sums and maxima.

A sum's halves are int16: windows of up to 256 pixels fit them. Where more is to be added up, or the window is
padded, the caller chooses the part inside the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgekit.compiler.schedules.armv7em.instructions import SP, Assembler, Register
from edgekit.compiler.schedules.armv7em.last_four import emit_last_four
from edgekit.compiler.schedules.armv7em.requantize import emit_requantize

__all__ = ["LARGEST_WINDOW", "Reduction", "reduce_window"]

LARGEST_WINDOW = 256

Reduction = Literal["average", "average_shift", "maximum", "mean"]


def reduce_window(reduction: Reduction, *, ragged: bool = False) -> Assembler:
    """The routine for one output pixel; `ragged`: the last four channels overlap those before them.

        void f(const int8_t *window, int8_t *output, int32_t channels, int32_t rows, int32_t columns,
               int32_t rest_of_row, const int32_t *parameters or int32_t elements, int32_t added)

    `rest_of_row` is the distance in bytes from behind a row of the window to its next. `average` divides the
    sum and `added` by `elements`, halves away from zero; `average_shift` the sum by a power of two, of which
    it takes the exponent and the half in their places; `mean` requantises with four parameters: twice the
    bias, multiplier, constant, exponent; `maximum` takes neither.
    """
    code = Assembler(
        f"edgekit_window_{reduction}{'_ragged' if ragged else ''}",
        f"The {reduction} over a window.\n"
        "(window, output, channels, rows, columns, rest_of_row, elements or parameters, added)",
    )
    source, output, channels, rows, columns, even, odd, value, base, end, *rest = code.registers(
        "window output channels rows columns even odd four base end s0 s1 s2 s3"
    )
    four, row, column = (code.new_label(name) for name in ("channels", "rows", "columns"))
    arguments = code.enter(8)
    at_columns, at_rest, at_divisor, at_added = (arguments + 4 * i for i in range(4))
    code.str_(rows, SP, 0)
    code.mov(base, source)
    code.add(end, output, channels)
    code.label(four)
    code.mov(source, base)
    if reduction == "maximum":
        code.mov(even, 0x8080)
        code.orr(even, even, even, lsl=16)
    else:
        code.mov(even, 0)
        code.mov(odd, 0)
    code.ldr(rows, SP, 0)
    code.label(row)
    code.ldr(columns, SP, at_columns)
    code.label(column)
    code.ldr(value, source)
    code.add(source, source, channels)
    if reduction == "maximum":
        code.ssub8(odd, even, value)
        code.sel(even, even, value)
    else:
        code.sxtab16(even, even, value)
        code.sxtab16(odd, odd, value, ror=8)
    code.subs(columns, columns, 1)
    code.branch(column, "ne")
    code.ldr(value, SP, at_rest)
    code.add(source, source, value)
    code.subs(rows, rows, 1)
    code.branch(row, "ne")
    if reduction == "maximum":
        code.str_(even, output, post=4)
    else:
        code.sxth(rest[0], even)
        code.sxth(rest[1], odd)
        code.asr(rest[2], even, 16)
        code.asr(rest[3], odd, 16)
        if reduction == "average":
            _average(code, rest, (even, odd, value, rows), at_divisor, at_added)
        elif reduction == "average_shift":
            _average_shift(code, rest, (even, odd), at_divisor)
        else:
            _mean(code, rest, (source, rows, columns, even, odd, value), at_divisor)
        for offset, total in enumerate(rest[1:], start=1):
            code.strb(total, output, offset)
        code.strb(rest[0], output, post=4)
    code.add(base, base, 4)
    if ragged:
        emit_last_four(code, output, end, rest[0], (base,))
    code.cmp(output, end)
    code.branch(four, "ne")
    code.leave(8)
    return code


def _average(
    code: Assembler,
    totals: Sequence[Register],
    spare: tuple[Register, Register, Register, Register],
    at_elements: int,
    at_added: int,
) -> None:
    """Each total and what is added, divided by the number of elements, halves away from zero."""
    elements, half, sign, added = (
        code.rename(register, name)
        for register, name in zip(spare, ("elements", "half", "sign", "added"), strict=True)
    )
    code.ldr(elements, SP, at_elements)
    code.ldr(added, SP, at_added)
    code.asr(half, elements, 1)
    for total in totals:
        code.add(total, total, added)
        # Half of the elements with the sum's sign, (half ^ sign) − sign, goes to it before the division.
        code.asr(sign, total, 31)
        code.sub(total, total, sign)
        code.eor(sign, half, sign)
        code.add(total, total, sign)
        code.sdiv(total, total, elements)
    for register in spare:
        code.rename(register, register.name)


def _average_shift(
    code: Assembler, totals: Sequence[Register], spare: tuple[Register, Register], at_exponent: int
) -> None:
    """Each total divided by a power of two from 2 up, halves away from zero."""
    exponent, half = (code.rename(each, name) for each, name in zip(spare, ("exponent", "half"), strict=True))
    code.ldrd(exponent, half, SP, at_exponent)
    for total in totals:
        code.add(total, total, total, asr=31)
        code.add(total, total, half)
        code.asr(total, total, exponent)
    for register in spare:
        code.rename(register, register.name)


def _mean(
    code: Assembler, totals: Sequence[Register], spare: tuple[Register, ...], at_parameters: int
) -> None:
    names = ("parameters", "bias", "multiplier", "constant", "exponent", "spare")
    parameters, bias, multiplier, constant, exponent, temporary = (
        code.rename(register, name) for register, name in zip(spare, names, strict=True)
    )
    code.ldr(parameters, SP, at_parameters)
    code.ldm(parameters, (bias, multiplier, constant, exponent), forward=False)
    for total in totals:
        code.add(total, bias, total, lsl=1)
    emit_requantize(code, totals, multiplier, constant, exponent, temporary)
    for register in spare:
        code.rename(register, register.name)
