"""The instruction layer: Armv7E-M routines written in Python, one method an instruction.

A routine names its registers once and then speaks of them by name. The listing has the instruction as the
assembler takes it and, behind it, the names:

        smlad   r2, r10, r12, r2        @ first_0 weights pixel_0 first_0

What an encoding cannot hold (an immediate that is too wide, registers of a load-multiple out of order, a
register used under two names) is refused here, where the mistake is, and not by the assembler later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgekit.compiler.schedules.armv7em.listing import SP, Listing, Register, rotation

__all__ = ["SP", "Assembler", "Register"]

_CONDITIONS = ("eq", "ne", "lo", "hs", "lt", "ge", "gt", "le", "hi", "ls", "mi", "pl")
_PC = Register(15, "pc")

Half = Literal["b", "t"]
"""Bottom or top halfword of a register."""


class Assembler(Listing):
    """Collects the instructions of one routine, which follows the Arm procedure call standard (AAPCS)."""

    # --- the frame ---

    def enter(self, locals_bytes: int = 0) -> int:
        """Save what the caller keeps and make room for locals at sp.

        Returns the distance from sp to the first stack argument.
        """
        if locals_bytes % 8:
            raise ValueError(f"{self.name}: the stack stays on a boundary of 8 bytes")
        # r3 keeps the stack on a boundary of 8 bytes; it is an argument, so its value does no harm.
        self._emit("push", "{r3-r11, lr}")
        if locals_bytes:
            self._emit("sub", f"sp, sp, #{locals_bytes}")
        return locals_bytes + 40

    def leave(self, locals_bytes: int = 0) -> None:
        if locals_bytes:
            self._emit("add", f"sp, sp, #{locals_bytes}")
        self._emit("pop", "{r3-r11, pc}")

    def back(self) -> None:
        """Return from a routine that entered nothing."""
        self._emit("bx", "lr")

    # --- loads and stores ---

    def ldr(self, to: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("ldr", to, base, offset, post)

    def ldrb(self, to: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("ldrb", to, base, offset, post)

    def ldrsb(self, to: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("ldrsb", to, base, offset, post)

    def ldrh(self, to: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("ldrh", to, base, offset, post)

    def ldr_register(self, to: Register, base: Register, index: Register) -> None:
        """to = word at base + index."""
        self._emit("ldr", f"{to}, [{base}, {index}]", to, base, index)

    def ldr_indexed(self, to: Register, base: Register, index: Register) -> None:
        """to = word number `index` from base on."""
        self._emit("ldr", f"{to}, [{base}, {index}, lsl #2]", to, base, index)

    def ldrb_indexed(self, to: Register, base: Register, index: Register) -> None:
        self._emit("ldrb", f"{to}, [{base}, {index}]", to, base, index)

    def str_(self, value: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("str", value, base, offset, post)

    def strb(self, value: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("strb", value, base, offset, post)

    def strh(self, value: Register, base: Register, offset: int = 0, *, post: int | None = None) -> None:
        self._memory("strh", value, base, offset, post)

    def strh_indexed(self, value: Register, base: Register, index: Register, shift: int = 0) -> None:
        self._emit("strh", f"{value}, [{base}, {index}, lsl #{shift}]", value, base, index)

    def strb_indexed(self, value: Register, base: Register, index: Register, shift: int = 0) -> None:
        self._emit("strb", f"{value}, [{base}, {index}, lsl #{shift}]", value, base, index)

    def ldrd(
        self, low: Register, high: Register, base: Register, offset: int = 0, *, post: int | None = None
    ) -> None:
        self._pair("ldrd", low, high, base, offset, post)

    def strd(
        self, low: Register, high: Register, base: Register, offset: int = 0, *, post: int | None = None
    ) -> None:
        self._pair("strd", low, high, base, offset, post)

    def ldm(self, base: Register, to: Sequence[Register], *, forward: bool = True) -> None:
        """Load multiple; `forward` moves the base behind what was loaded."""
        self._multiple("ldm", base, to, forward)

    def stm(self, base: Register, values: Sequence[Register], *, forward: bool = True) -> None:
        self._multiple("stm", base, values, forward)

    def jump_to_address_at(self, base: Register, offset: int) -> None:
        """Go on at the address (with its Thumb bit) that lies in memory."""
        self._memory("ldr", _PC, base, offset, None)

    def jump(self, address: Register) -> None:
        """Go on at an address that has its Thumb bit."""
        self._emit("bx", str(address), address)

    # --- arithmetic ---

    def mov(self, to: Register, value: Register | int) -> None:
        if isinstance(value, Register):
            self._emit("mov", f"{to}, {value}", to, value)
        elif 0 <= value < 65536:
            self._emit("movw", f"{to}, #{value}", to)
        else:
            raise ValueError(f"{self.name}: movw takes 16 bits, not {value}")

    def mov_far(self, to: Register, value: int) -> None:
        """A distance, in as many instructions as it needs."""
        if value < 65536:
            self.mov(to, value)
        else:
            self.mov_word(to, value)

    def mov_word(self, to: Register, value: int) -> None:
        """Any 32 bits."""
        self._emit("movw", f"{to}, #{value & 0xFFFF}", to)
        self._emit("movt", f"{to}, #{value >> 16 & 0xFFFF}", to)

    def add(self, to: Register, left: Register, right: Register | int, *, lsl: int = 0, asr: int = 0) -> None:
        self._sum("add", to, left, right, lsl, asr)

    def sub(self, to: Register, left: Register, right: Register | int, *, lsl: int = 0, asr: int = 0) -> None:
        self._sum("sub", to, left, right, lsl, asr)

    def orr(self, to: Register, left: Register, right: Register | int, *, lsl: int = 0) -> None:
        self._sum("orr", to, left, right, lsl, 0)

    def adds(self, to: Register, left: Register, right: int) -> None:
        self._sum("adds", to, left, right, 0, 0)

    def subs(self, to: Register, left: Register, right: int) -> None:
        self._sum("subs", to, left, right, 0, 0)

    def asr(self, to: Register, value: Register, by: Register | int) -> None:
        self._shift("asr", to, value, by)

    def lsr(self, to: Register, value: Register, by: Register | int) -> None:
        self._shift("lsr", to, value, by)

    def lsl(self, to: Register, value: Register, by: Register | int) -> None:
        self._shift("lsl", to, value, by)

    def clz(self, to: Register, value: Register) -> None:
        """Number of zeros above the highest one."""
        self._emit("clz", f"{to}, {value}", to, value)

    def qadd(self, to: Register, left: Register, right: Register) -> None:
        """The sum, saturated to int32."""
        self._emit("qadd", f"{to}, {left}, {right}", to, left, right)

    def eor(self, to: Register, left: Register, right: Register) -> None:
        self._sum("eor", to, left, right, 0, 0)

    def sdiv(self, to: Register, dividend: Register, divisor: Register) -> None:
        """to = dividend / divisor towards zero."""
        self._emit("sdiv", f"{to}, {dividend}, {divisor}", to, dividend, divisor)

    def smlad(self, to: Register, a: Register, b: Register, plus: Register) -> None:
        """to = plus + a.bottom · b.bottom + a.top · b.top (int16 halves)."""
        self._emit("smlad", f"{to}, {a}, {b}, {plus}", to, a, b, plus)

    def smla(
        self, half_a: Half, half_b: Half, to: Register, a: Register, b: Register, plus: Register
    ) -> None:
        """to = plus + (a's half) · (b's half)."""
        self._emit(f"smla{half_a}{half_b}", f"{to}, {a}, {b}, {plus}", to, a, b, plus)

    def smul(self, half_a: Half, half_b: Half, to: Register, a: Register, b: Register) -> None:
        """to = (a's half) · (b's half)."""
        self._emit(f"smul{half_a}{half_b}", f"{to}, {a}, {b}", to, a, b)

    def sadd16(self, to: Register, left: Register, right: Register) -> None:
        """Sums of both halves."""
        self._emit("sadd16", f"{to}, {left}, {right}", to, left, right)

    def mla(self, to: Register, a: Register, b: Register, plus: Register) -> None:
        self._emit("mla", f"{to}, {a}, {b}, {plus}", to, a, b, plus)

    def smlal(self, low: Register, high: Register, a: Register, b: Register) -> None:
        """high:low = high:low + a · b, in 64 bits."""
        self._emit("smlal", f"{low}, {high}, {a}, {b}", low, high, a, b)

    def smmla(self, to: Register, a: Register, b: Register, plus: Register) -> None:
        """to = (plus · 2^32 + a · b) >> 32, rounded down."""
        self._emit("smmla", f"{to}, {a}, {b}, {plus}", to, a, b, plus)

    def smmlar(self, to: Register, a: Register, b: Register, plus: Register) -> None:
        """to = (plus · 2^32 + a · b + 2^31) >> 32."""
        self._emit("smmlar", f"{to}, {a}, {b}, {plus}", to, a, b, plus)

    def sxtb16(self, to: Register, value: Register, *, ror: int = 0) -> None:
        """Bytes 0 and 2 (1 and 3 with `ror` 8) as two int16."""
        self._emit("sxtb16", f"{to}, {value}{rotation(ror)}", to, value)

    def sxtab16(self, to: Register, plus: Register, value: Register, *, ror: int = 0) -> None:
        """The same, added to the halves of `plus`."""
        self._emit("sxtab16", f"{to}, {plus}, {value}{rotation(ror)}", to, plus, value)

    def uxtb(self, to: Register, value: Register, *, ror: int = 0) -> None:
        self._emit("uxtb", f"{to}, {value}{rotation(ror)}", to, value)

    def sxth(self, to: Register, value: Register, *, ror: int = 0) -> None:
        self._emit("sxth", f"{to}, {value}{rotation(ror)}", to, value)

    def pkhbt(self, to: Register, bottom: Register, top: Register, *, lsl: int = 0) -> None:
        """Bottom half of `bottom`, top half of `top << lsl`."""
        shift = f", lsl #{lsl}" if lsl else ""
        self._emit("pkhbt", f"{to}, {bottom}, {top}{shift}", to, bottom, top)

    def pkhtb(self, to: Register, top: Register, bottom: Register, *, asr: int = 0) -> None:
        """Top half of `top`, bottom half of `bottom >> asr`."""
        shift = f", asr #{asr}" if asr else ""
        self._emit("pkhtb", f"{to}, {top}, {bottom}{shift}", to, top, bottom)

    def ssub8(self, to: Register, left: Register, right: Register) -> None:
        """Bytewise difference; sets a GE flag for each byte where left ≥ right (signed)."""
        self._emit("ssub8", f"{to}, {left}, {right}", to, left, right)

    def sel(self, to: Register, where_set: Register, otherwise: Register) -> None:
        """Bytewise choice by the GE flags."""
        self._emit("sel", f"{to}, {where_set}, {otherwise}", to, where_set, otherwise)

    def ssat(self, to: Register, bits: int, value: Register, *, asr: int = 0) -> None:
        shift = f", asr #{asr}" if asr else ""
        self._emit("ssat", f"{to}, #{bits}, {value}{shift}", to, value)

    def bfi(self, to: Register, value: Register, low: int, width: int) -> None:
        self._emit("bfi", f"{to}, {value}, #{low}, #{width}", to, value)

    # --- control ---

    def cmp(self, left: Register, right: Register | int) -> None:
        if isinstance(right, Register):
            self._emit("cmp", f"{left}, {right}", left, right)
        else:
            self._emit("cmp", f"{left}, #{right}", left)

    def tst(self, left: Register, mask: int) -> None:
        self._emit("tst", f"{left}, #{mask}", left)

    def branch(self, label: str, condition: str | None = None) -> None:
        if condition is not None and condition not in _CONDITIONS:
            raise ValueError(f"{self.name}: there is no condition {condition}")
        self._lines.append((f"    b{condition or ''}.w {label}", ""))

    def address_of(self, to: Register, label: str) -> None:
        """The address of a label behind this instruction, at most 4 KiB away, on a boundary of 4 bytes."""
        self._emit("adr.w", f"{to}, {label}", to)

    def align(self) -> None:
        """Go on at a boundary of 4 bytes."""
        self._lines.append(("    .p2align 2", ""))
