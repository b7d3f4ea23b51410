"""What the instruction layer writes into: registers by name, labels, checked operands, and the listing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.compiler.schedules.kernel import Routine

__all__ = ["SP", "Listing", "Register", "rotation"]

_NAMES = (*(f"r{number}" for number in range(13)), "sp", "lr", "pc")


@dataclass(frozen=True, slots=True)
class Register:
    """A core register under the name that a routine gives it."""

    number: int
    name: str

    def __str__(self) -> str:
        return _NAMES[self.number]


SP = Register(13, "sp")


class Listing:
    """The lines of one routine and the names that its registers have at each."""

    def __init__(self, name: str, purpose: str) -> None:
        self.name = name
        self._purpose = purpose
        self._lines: list[tuple[str, str]] = []
        self._labels = 0
        self._named: dict[int, str] = {}

    def registers(self, names: str) -> tuple[Register, ...]:
        """Registers r0, r1, … r12, lr under the names given, in that order; `-` leaves one out."""
        given = names.split()
        if len(given) > 14:
            raise ValueError(f"{self.name}: there are 14 registers, not {len(given)}")
        registers = []
        for position, name in enumerate(given):
            number = position if position < 13 else 14
            if name != "-":
                self._named[number] = name
                registers.append(Register(number, name))
        return tuple(registers)

    def rename(self, register: Register, name: str) -> Register:
        """The same register under another name, from here on."""
        self._named[register.number] = name
        return Register(register.number, name)

    def new_label(self, name: str) -> str:
        self._labels += 1
        return f".L{self.name}_{name}_{self._labels}"

    def label(self, label: str) -> None:
        self._lines.append((f"{label}:", ""))

    def routine(self) -> Routine:
        """What was collected, ready to be embedded."""
        return Routine(self.name, "\n".join(line for line, _ in self._lines) + "\n")

    def listing(self) -> str:
        """The routine as a person reads it: instructions with the names of their registers."""
        head = [
            f"@ {self.name}: {line}" if not number else f"@   {line}"
            for number, line in enumerate(self._purpose.splitlines())
        ]
        body = [f"{line:<48}@ {names}".rstrip() if names else line for line, names in self._lines]
        return "\n".join([*head, *body]) + "\n"

    def _emit(self, mnemonic: str, operands: str, *registers: Register) -> None:
        for register in registers:
            known = self._named.get(register.number)
            if known is not None and known != register.name:
                raise ValueError(f"{self.name}: {register} is {known} now, not {register.name}")
        names = " ".join(register.name for register in registers)
        self._lines.append((f"    {mnemonic:<8}{operands}", names))

    def _memory(self, mnemonic: str, value: Register, base: Register, offset: int, post: int | None) -> None:
        if post is not None:
            if not -255 <= post <= 255 or offset:
                raise ValueError(f"{self.name}: {mnemonic} moves its base by up to 255 bytes, not {post}")
            self._emit(mnemonic, f"{value}, [{base}], #{post}", value, base)
            return
        if not -255 <= offset <= 4095:
            raise ValueError(f"{self.name}: {mnemonic} reaches -255 to 4095 bytes, not {offset}")
        self._emit(mnemonic, f"{value}, [{base}, #{offset}]" if offset else f"{value}, [{base}]", value, base)

    def _pair(
        self, mnemonic: str, low: Register, high: Register, base: Register, offset: int, post: int | None
    ) -> None:
        moved = offset if post is None else post
        if moved % 4 or not -1020 <= moved <= 1020:
            raise ValueError(f"{self.name}: {mnemonic} reaches 1020 bytes in words, not {moved}")
        place = f"[{base}], #{post}" if post is not None else f"[{base}, #{offset}]"
        self._emit(mnemonic, f"{low}, {high}, {place}", low, high, base)

    def _multiple(self, mnemonic: str, base: Register, registers: Sequence[Register], forward: bool) -> None:
        numbers = [register.number for register in registers]
        if numbers != sorted(set(numbers)) or len(numbers) < 2 or base.number in numbers:
            raise ValueError(f"{self.name}: {mnemonic} takes two or more registers in order, not its base")
        listed = ", ".join(str(register) for register in registers)
        self._emit(mnemonic, f"{base}{'!' if forward else ''}, {{{listed}}}", base, *registers)

    def _sum(
        self, mnemonic: str, to: Register, left: Register, right: Register | int, lsl: int, asr: int
    ) -> None:
        if isinstance(right, Register):
            shift = f", lsl #{lsl}" if lsl else f", asr #{asr}" if asr else ""
            self._emit(mnemonic, f"{to}, {left}, {right}{shift}", to, left, right)
            return
        if not 0 <= right <= 4095:
            raise ValueError(f"{self.name}: {mnemonic} takes 0 to 4095, not {right}")
        wide = mnemonic if right < 256 or mnemonic not in ("add", "sub") else f"{mnemonic}w"
        self._emit(wide, f"{to}, {left}, #{right}", to, left)

    def _shift(self, mnemonic: str, to: Register, value: Register, by: Register | int) -> None:
        if isinstance(by, Register):
            self._emit(mnemonic, f"{to}, {value}, {by}", to, value, by)
        else:
            self._emit(mnemonic, f"{to}, {value}, #{by}", to, value)


def rotation(ror: int) -> str:
    if ror not in (0, 8, 16, 24):
        raise ValueError(f"bytes rotate by 0, 8, 16 or 24 bits, not {ror}")
    return f", ror #{ror}" if ror else ""
