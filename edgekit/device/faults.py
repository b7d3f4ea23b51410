"""What a fault frame says, in words."""

from __future__ import annotations

import signal
from typing import Final

from edgekit.device.protocol import FaultKind, FaultReply
from edgekit.errors import DeviceError

__all__ = ["DeviceFaultError", "describe_fault"]

# Armv7-M ARM B3.2.15, Configurable Fault Status Register: bit number to name.
_CFSR: Final[dict[int, str]] = {
    0: "IACCVIOL",
    1: "DACCVIOL",
    3: "MUNSTKERR",
    4: "MSTKERR",
    5: "MLSPERR",
    8: "IBUSERR",
    9: "PRECISERR",
    10: "IMPRECISERR",
    11: "UNSTKERR",
    12: "STKERR",
    13: "LSPERR",
    16: "UNDEFINSTR",
    17: "INVSTATE",
    18: "INVPC",
    19: "NOCP",
    20: "STKOF",
    24: "UNALIGNED",
    25: "DIVBYZERO",
}
_UNKNOWN_INSTRUCTION: Final = 1 << 16 | 1 << 19
"""UNDEFINSTR, and NOCP: an instruction of a coprocessor, such as the FPU, that is not there."""

_KINDS: Final[dict[FaultKind, str]] = {
    FaultKind.HARD: "HardFault",
    FaultKind.MEMORY: "MemManage fault",
    FaultKind.BUS: "BusFault",
    FaultKind.USAGE: "UsageFault",
}


class DeviceFaultError(DeviceError):
    """The board's processor stopped the program. `fault` has the registers."""

    def __init__(self, board: str, fault: FaultReply) -> None:
        super().__init__(f"{board} crashed: {describe_fault(fault)}", hint=_advice(fault))
        self.fault = fault


def _advice(fault: FaultReply) -> str:
    function = "`addr2line -e firmware.elf <pc>` (of the target's toolchain) names the function"
    unknown = fault.cfsr & _UNKNOWN_INSTRUCTION or (
        fault.kind is FaultKind.SIGNAL and fault.number == signal.SIGILL
    )
    if not unknown:
        return function
    return (
        "the core has not all instructions of the target file's mcpu, mattr and flags (a variant without "
        f"FPU or DSP?): correct them; {function}"
    )


def describe_fault(fault: FaultReply) -> str:
    """`SIGSEGV at pc 0x401a2c (address 0x10) in operator 1 of program 2`."""
    parts = [f"{_kind(fault)} at pc {hex(fault.pc) if fault.pc else 'unknown'}"]
    if fault.address:
        parts.append(f"(address {fault.address:#x})")
    parts.append(_where(fault))
    if fault.cfsr or fault.hfsr:
        flags = " ".join(name for bit, name in _CFSR.items() if fault.cfsr >> bit & 1)
        parts.append(f"[CFSR {fault.cfsr:#010x}{' ' + flags if flags else ''}, HFSR {fault.hfsr:#010x}]")
    return " ".join(parts)


def _kind(fault: FaultReply) -> str:
    if fault.kind is FaultKind.SIGNAL:
        try:
            return signal.Signals(fault.number).name
        except ValueError:
            return f"signal {fault.number}"
    if fault.kind is None or fault.kind is FaultKind.UNEXPECTED:
        return f"unexpected exception {fault.number}"
    return _KINDS[fault.kind]


def _where(fault: FaultReply) -> str:
    if fault.program is None:
        return "outside any program"
    if fault.operator is None:
        return f"in program {fault.program} (operator unknown)"
    return f"in operator {fault.operator} of program {fault.program}"
