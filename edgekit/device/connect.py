"""From a target, an image and a board's address to a flashed board and a client that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifacts import Serving
from edgekit.device.board import BoardAddress
from edgekit.device.client import Client, Timeouts
from edgekit.device.emulator import EmulatedBoard, EmulatorSettings
from edgekit.device.flashers import EmulatedFlasher, Flasher, NoFlasher, PyocdFlasher, run_flasher
from edgekit.device.flashers.base import find_program
from edgekit.device.ssh.agent import health_of, served
from edgekit.device.ssh.deployment import SshDeployment, deployed, version_of
from edgekit.device.ssh.health import BoardHealth
from edgekit.device.ssh.reach import reached
from edgekit.device.ssh.remote import serve_words
from edgekit.device.transports.base import Transport
from edgekit.device.transports.pipe import PipeTransport
from edgekit.device.transports.serial import (
    SerialTransport,
    find_by_serial_number,
    find_by_usb_id,
    list_serial_ports,
)
from edgekit.errors import DeviceError, EdgekitError, MissingToolError, TargetError, UsageError
from edgekit.target import MachineEmulator, UserEmulator

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["board_health", "flash", "flashed", "flashers_of", "open_board", "unmeasurable"]

_DEFAULT_BAUD = 115_200
_ANY = Serving()


@contextmanager
def open_board(
    target: Target,
    image: Path,
    board: BoardAddress | None,
    *,
    app: str = "model",
    serving: Serving = _ANY,
    timeouts: Timeouts | None = None,
) -> Iterator[Client]:
    """A connected client. Starts what the target needs (a process, an emulator, the agent on a Linux board)
    and ends it in every case.

    `image` is what `flash` put on a real board; for the others it is what is started. On a Linux board it
    names the version of `app`.
    """
    _check_address(target, board)
    if target.transport.kind == "ssh":
        with (
            reached(target, board) as connection,
            served(connection, app, version_of(image), serving, timeouts) as client,
        ):
            yield client
        return
    transport = _open_transport(target, image, board, serving)
    with Client(transport, timeouts=timeouts) as client:
        client.connect()
        yield client


@contextmanager
def flashed(
    target: Target, image: Path, board: BoardAddress | None, *, app: str = "model"
) -> Iterator[SshDeployment | None]:
    """Put `image` on the board.

    A Linux board is held until the end of the context, and goes on with the version it had unless `keep` of
    what this yields is called. Any other board has one image: None, it runs the new one already.
    """
    _check_address(target, board)
    if target.transport.kind == "ssh":
        with reached(target, board) as connection, deployed(connection, image, app) as deployment:
            yield deployment
        return
    flash(target, image, board)
    yield None


def board_health(
    target: Target, image: Path, board: BoardAddress | None, *, app: str = "model"
) -> BoardHealth | None:
    """The state of a Linux board on which `image` is installed; None where a target has none to tell."""
    if target.transport.kind != "ssh":
        return None
    with reached(target, board) as connection:
        return health_of(connection, app, version_of(image))


def unmeasurable(target: Target, serving: Serving) -> EdgekitError | None:
    """Why nothing can be measured on this target; None where it can."""
    if not isinstance(target.emulator, UserEmulator):
        return None
    if (serving.threads or 1) > 1:
        # all threads add to one counter without a lock: it would say less than was run
        return UsageError(
            f"{target.name} is emulated and its instructions are counted right for one thread only",
            hint="leave --threads out; a real board measures the time of several",
        )
    from edgekit.device.emulated_ssh import tick_problem

    problem = tick_problem(target)
    if problem is None:
        return None
    return MissingToolError(
        f"instructions can't be counted on {target.name}: {problem}",
        hint=f"edgekit doctor --target {target.name}",
    )


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


def _open_transport(target: Target, image: Path, board: BoardAddress | None, serving: Serving) -> Transport:
    if target.transport.kind == "pipe":
        return PipeTransport([str(image.absolute()), *serve_words(serving)])
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
