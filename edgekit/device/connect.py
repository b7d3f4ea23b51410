"""From a target, an image and a board's address to a flashed board and a client that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.board import BoardAddress
from edgekit.device.client import Client, Timeouts
from edgekit.device.emulator import EmulatedBoard, EmulatorSettings
from edgekit.device.flashers import EmulatedFlasher, Flasher, NoFlasher, PyocdFlasher, run_flasher
from edgekit.device.flashers.base import find_program
from edgekit.device.transports.base import Transport
from edgekit.device.transports.pipe import PipeTransport
from edgekit.device.transports.serial import (
    SerialTransport,
    find_by_serial_number,
    find_by_usb_id,
    list_serial_ports,
)
from edgekit.errors import DeviceError, MissingToolError, TargetError
from edgekit.target import MachineEmulator

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["flash", "flashers_of", "open_board"]

_DEFAULT_BAUD = 115_200


@contextmanager
def open_board(
    target: Target, image: Path, board: BoardAddress | None, *, timeouts: Timeouts | None = None
) -> Iterator[Client]:
    """A connected client. Starts what the target needs (a process, an emulator) and ends it in every case.

    `image` is what `flash` put on a real board; for the others it is what is started.
    """
    transport = _open_transport(target, image, board)
    with Client(transport, timeouts=timeouts) as client:
        client.connect()
        yield client


def flash(target: Target, image: Path, board: BoardAddress | None) -> None:
    """Put `image` on the board by the first of the target's methods whose program is installed."""
    _check_address(target, board)
    ways = flashers_of(target)
    for flasher in ways:
        if flasher.program is None or find_program(flasher.program) is not None:
            probe = _probe(target, board) if flasher.program is not None else None
            run_flasher(flasher, image.absolute(), probe)
            return
    names = ", ".join(flasher.program for flasher in ways if flasher.program is not None)
    raise MissingToolError(
        f"nothing that can flash {target.name} is installed ({names})", hint=ways[0].install_hint
    )


def flashers_of(target: Target) -> tuple[Flasher, ...]:
    """In the order of the target file."""
    if target.emulator is not None or target.transport.kind == "pipe":
        return (EmulatedFlasher(),)
    ways: list[Flasher] = []
    for method in target.flash:
        if method.kind == "pyocd":
            ways.append(PyocdFlasher(method.target))
        else:
            ways.append(NoFlasher())
    if not ways:
        raise TargetError(f"target {target.name} has no [[flash]] method")
    return tuple(ways)


def _open_transport(target: Target, image: Path, board: BoardAddress | None) -> Transport:
    _check_address(target, board)
    if target.transport.kind == "pipe":
        return PipeTransport([str(image.absolute())])
    if target.transport.kind != "serial":
        raise DeviceError(
            f"target {target.name} is reached over {target.transport.kind}, for which this client has "
            "no transport"
        )
    baud = target.transport.baud or _DEFAULT_BAUD
    if target.emulator is None:
        return SerialTransport(_device(target, board), baud)
    if not isinstance(target.emulator, MachineEmulator):
        raise TargetError(f"target {target.name}: QEMU plays a core of linux, which has no serial port")
    settings = EmulatorSettings(target.emulator.machine, target.emulator.icount_shift)
    emulated = EmulatedBoard(settings, image)
    try:
        return SerialTransport(
            emulated.tty, baud, name=f"{emulated.tty} ({target.name} in QEMU)", on_close=emulated.stop
        )
    except BaseException:
        emulated.stop()
        raise


def _check_address(target: Target, board: BoardAddress | None) -> None:
    if board is None:
        return
    if target.emulator is not None or target.transport.kind == "pipe":
        raise DeviceError(
            f"target {target.name} runs on this machine and has no board to name ({board})",
            hint="leave --board out, or choose the target of the real board",
        )
    reached = "ssh" if board.kind == "ssh" else "serial"
    if reached != target.transport.kind:
        raise DeviceError(
            f"target {target.name} is reached over {target.transport.kind}, not {reached} ({board})"
        )


def _device(target: Target, board: BoardAddress | None) -> str:
    if board is None:
        return find_by_usb_id(target.transport.usb, list_serial_ports()).device
    if board.kind == "serial_number":
        return find_by_serial_number(board.place, list_serial_ports()).device
    return board.place


def _probe(target: Target, board: BoardAddress | None) -> str | None:
    """The debug probe's serial number: a probe on the board has that of its USB serial port."""
    if board is not None and board.kind == "serial_number":
        return board.place
    ports = list_serial_ports()
    if board is None:
        return find_by_usb_id(target.transport.usb, ports).serial_number
    return next((port.serial_number for port in ports if port.device == board.place), None)
