"""What a fault frame becomes in words, and what helps."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from edgekit.device.faults import DeviceFaultError
from edgekit.device.protocol import FaultKind, FaultReply

FAULT = FaultReply(FaultKind.USAGE, 0, 0, 3, 0x1000A494, 0, 0, 0)


@pytest.mark.parametrize(
    "fault",
    [
        replace(FAULT, cfsr=1 << 16),
        replace(FAULT, cfsr=1 << 19),
        replace(FAULT, kind=FaultKind.SIGNAL, number=int(signal.SIGILL)),
    ],
    ids=["UNDEFINSTR", "NOCP", "SIGILL"],
)
def test_a_core_without_an_instruction_is_a_matter_of_the_target_file(fault: FaultReply) -> None:
    assert "mcpu, mattr and flags" in (DeviceFaultError("board", fault).hint or "")


@pytest.mark.parametrize(
    "fault", [replace(FAULT, cfsr=1 << 9), replace(FAULT, kind=FaultKind.SIGNAL, number=int(signal.SIGSEGV))]
)
def test_other_faults_name_the_function(fault: FaultReply) -> None:
    error = DeviceFaultError("board", fault)
    assert (error.hint or "").startswith("`addr2line")
    assert "at pc 0x1000a494 in operator 3 of program 0" in error.message
