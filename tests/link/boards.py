"""Boards behind a bad line: the agent as a process, over its pipes and over a pty; and in an emulator."""

from __future__ import annotations

import os
import subprocess
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.device.emulator import EmulatedBoard, EmulatorSettings
from edgekit.device.processes import OwnedProcess
from edgekit.device.transports.base import Transport
from edgekit.device.transports.pipe import PipeTransport
from edgekit.device.transports.serial import SerialTransport
from tests.link.faults import Faults
from tests.link.lossy import LinesOfABoard, LossyPort, LossyTransport

__all__ = ["SpoiledBoard", "board_in_an_emulator", "board_on_a_pipe", "board_on_a_pty"]


@dataclass(slots=True)
class SpoiledBoard:
    """A board behind a line that is bad until it is mended."""

    transport: Transport
    bad: LossyPort | LossyTransport

    @property
    def lines(self) -> LinesOfABoard:
        return self.bad.lines

    def mend(self) -> None:
        self.bad.mend()


@contextmanager
def board_on_a_pipe(runner: Path, faults: Faults, seed: int) -> Iterator[SpoiledBoard]:
    transport = LossyTransport(PipeTransport([str(runner)]), faults, seed)
    try:
        yield SpoiledBoard(transport, transport)
    finally:
        transport.close()


@contextmanager
def board_on_a_pty(runner: Path, faults: Faults, seed: int) -> Iterator[SpoiledBoard]:
    """The same process behind a serial port, through pyserial."""
    owned = OwnedProcess(
        [str(runner)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert owned.process.stdin is not None
        assert owned.process.stdout is not None
        with (
            LossyPort(owned.process.stdout.fileno(), owned.process.stdin.fileno(), faults, seed) as port,
            _serial(port) as board,
        ):
            yield board
    finally:
        owned.stop()


@contextmanager
def board_in_an_emulator(image: Path, faults: Faults, seed: int) -> Iterator[SpoiledBoard]:
    """QEMU's pty ═ bad line ═ pty, through pyserial."""
    with EmulatedBoard(EmulatorSettings("mps2-an386", 6), image) as emulated:
        uart = os.open(emulated.tty, os.O_RDWR | os.O_NOCTTY)
        try:
            tty.setraw(uart)
            with LossyPort(uart, uart, faults, seed) as port, _serial(port) as board:
                yield board
        finally:
            os.close(uart)


@contextmanager
def _serial(port: LossyPort) -> Iterator[SpoiledBoard]:
    transport = SerialTransport(port.device, 115_200)
    try:
        yield SpoiledBoard(transport, port)
    finally:
        transport.close()
