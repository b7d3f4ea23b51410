"""What compiled objects may ask of the board, and whether they agree on how floats are passed."""

from __future__ import annotations

import re
from typing import Final

from edgekit.errors import TargetError, UnsupportedError
from edgekit.firmware.elf import Elf, FileType, Machine, SectionFlag, arm_attributes
from edgekit.target import Target
from edgekit.target.flags import flag_value, float_abi
from edgekit.text import printable

__all__ = ["check_abi", "check_undefined_symbols"]

_MEMORY: Final = r"memcpy|memset|memmove"
_LIBM: Final = (
    r"(a?cosh?|a?sinh?|a?tanh?|atan2|exp|exp2|expm1|log|log2|log10|log1p|pow|sqrt|cbrt|hypot|erf|erfc|floor|ceil"
    r"|trunc|round|rint|nearbyint|fabs|fmod|fma|fmin|fmax|copysign|ldexp|roundeven)f"
)
# Run-time ABI for the Arm Architecture (IHI 0043), sections 4.2 and 4.3: integer and memory helpers.
_AEABI_INTEGER: Final = (
    r"__aeabi_mem(cpy|move|set|clr)[48]?|__aeabi_(l|ul|i|ui)div(mod)?|__aeabi_lmul|__aeabi_(ll[a-z]+|lasr)"
    r"|__aeabi_u?lcmp|__aeabi_unwind_cpp_pr[01]"
)
# Section 4.1 there: floating-point helpers, for cores that have no FPU. Double precision is never allowed.
_AEABI_FLOAT: Final = r"__aeabi_(f[a-z0-9]+|i2f|ui2f|l2f|ul2f|cf[a-z]+)"
# libgcc counts leading zeros where the core has no instruction for it (Armv6-M).
_LIBGCC_BITS: Final = r"__(clz|ctz|popcount)[sd]i2"
# libgcc's integer helpers on cores that lack wide multiplication, division or shifts.
_LIBGCC_INTEGER: Final = r"__(mul|div|mod|udiv|umod|ashl|ashr|lshr|clz|ctz|popcount)[sdt]i[23]"

_MACHINES: Final[dict[str, Machine]] = {
    "thumb": Machine.ARM,
    "arm": Machine.ARM,
    "aarch64": Machine.AARCH64,
    "x86_64": Machine.X86_64,
    "riscv": Machine.RISCV,
}

_TAG_ABI_VFP_ARGS: Final = 28
"""IHI 0045 section 3.2.4: 0 passes floats in core registers, 1 in VFP registers, 3 works with both."""
_VFP_ARGS_HARD: Final = 1
_VFP_ARGS_COMPATIBLE: Final = 3
_ARM_EABI_SOFT: Final = 0x200
_ARM_EABI_HARD: Final = 0x400
_RISCV_FLOAT_ABI: Final = 0x6
_RISCV_FLOAT_ABIS: Final = {"": 0, "f": 2, "d": 4}


def check_undefined_symbols(elf: Elf, target: Target, where: str) -> None:
    """Every symbol that `elf` leaves open must be one that libc, libm or libgcc gives on the target.

    Raises:
        UnsupportedError: names all that are not.
    """
    allowed = re.compile("|".join(_allowed(target, elf.machine)))
    refused = sorted(
        {symbol.name for symbol in elf.symbols if not symbol.defined and not allowed.fullmatch(symbol.name)}
    )
    if refused:
        names = ", ".join(printable(name) for name in refused[:16])
        raise UnsupportedError(
            f"{where} needs functions that {target.name} does not have: {names}",
            hint="report the model; an operator was compiled to a call that no board can serve",
        )


def _allowed(target: Target, machine: int) -> tuple[str, ...]:
    common = (_MEMORY, _LIBM)
    if machine == Machine.ARM:
        has_fpu = flag_value(target.toolchain.flags, "fpu") is not None or target.platform == "linux"
        integer = (*common, _AEABI_INTEGER, _LIBGCC_BITS)
        return integer if has_fpu else (*integer, _AEABI_FLOAT)
    if machine == Machine.RISCV:
        return (*common, _LIBGCC_INTEGER)
    return common


def check_abi(elf: Elf, target: Target, where: str) -> None:
    """The object or program `elf` is for the target's machine and passes floats as the target does.

    Raises:
        TargetError: it is not; the linker would take some of these mistakes without a word, and the floats
            would be wrong at run time.
    """
    expected = _expected_machine(target)
    if expected is not None and elf.machine != expected:
        raise TargetError(f"{where} is code for machine {elf.machine}, but {target.name} is {expected.name}")
    if elf.machine == Machine.ARM:
        _check_arm_floats(elf, target, where)
    elif elf.machine == Machine.RISCV:
        _check_riscv_floats(elf, target, where)


def _expected_machine(target: Target) -> Machine | None:
    """None where edgekit compiles for the machine that it runs on."""
    triple = target.compile.mtriple
    if triple is None:
        return None
    return next(machine for start, machine in _MACHINES.items() if triple.startswith(start))


def _check_arm_floats(elf: Elf, target: Target, where: str) -> None:
    hard = float_abi(target.toolchain.flags) == "hard" or (target.compile.mtriple or "").endswith("eabihf")
    wanted = "hard" if hard else "soft"
    if elf.type == FileType.EXECUTABLE and elf.flags & (_ARM_EABI_HARD if not hard else _ARM_EABI_SOFT):
        raise TargetError(f"{where} does not pass floats the {wanted} way that {target.name} does")
    has_code = any(section.has(SectionFlag.CODE) and section.size_bytes for section in elf.sections)
    passing = arm_attributes(elf).get(_TAG_ABI_VFP_ARGS, 0)
    if has_code and passing != _VFP_ARGS_COMPATIBLE and (passing == _VFP_ARGS_HARD) != hard:
        raise TargetError(
            f"{where} passes floats in {'VFP' if passing == _VFP_ARGS_HARD else 'core'} registers, but "
            f"{target.name} has the {wanted}-float ABI",
            hint="a bare-metal Arm mtriple needs four parts, and -mfloat-abi must say the same",
        )


def _check_riscv_floats(elf: Elf, target: Target, where: str) -> None:
    abi = flag_value(target.toolchain.flags, "abi") or ""
    wanted = _RISCV_FLOAT_ABIS.get(abi.removeprefix("ilp32").removeprefix("lp64"), 0)
    if elf.flags & _RISCV_FLOAT_ABI != wanted:
        raise TargetError(f"{where} passes floats another way than -mabi={abi} of {target.name}")
