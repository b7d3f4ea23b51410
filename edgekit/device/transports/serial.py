"""Serial ports, through pyserial: real ones, and the pty of an emulator."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import serial
from serial.tools import list_ports

from edgekit.device.transports.base import TransportClosedError
from edgekit.errors import DeviceError
from edgekit.text import printable

__all__ = ["SerialPort", "SerialTransport", "find_by_serial_number", "find_by_usb_id", "list_serial_ports"]

_LARGEST_READ: Final = 4096


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A serial port of this machine. `usb_id` is `vendor:product` in lower-case hex, if it is a USB port."""

    device: str
    usb_id: str | None
    serial_number: str | None
    description: str


def list_serial_ports() -> tuple[SerialPort, ...]:
    return tuple(
        SerialPort(
            device=port.device,
            usb_id=None if port.vid is None or port.pid is None else f"{port.vid:04x}:{port.pid:04x}",
            serial_number=port.serial_number or None,
            description=printable(port.description or ""),
        )
        for port in sorted(list_ports.comports(), key=lambda port: port.device)
    )


def find_by_serial_number(number: str, ports: Iterable[SerialPort]) -> SerialPort:
    """The port of the USB device with this serial number. Raises DeviceError when there is none."""
    known = tuple(ports)
    for port in known:
        if port.serial_number is not None and port.serial_number.casefold() == number.casefold():
            return port
    raise DeviceError(
        f"no USB device with serial number {printable(number)} is plugged in", hint=_seen(known)
    )


def find_by_usb_id(ids: Iterable[str], ports: Iterable[SerialPort]) -> SerialPort:
    """The only port with one of the ids (`vendor:product`). Raises DeviceError when it isn't just one."""
    known = tuple(ports)
    wanted = {usb_id.lower() for usb_id in ids}
    matches = [port for port in known if port.usb_id in wanted]
    if not matches:
        raise DeviceError(
            "no board is plugged in that the target's USB ids match",
            hint=f"name it: --board serial:/dev/tty…; {_seen(known)}",
        )
    if len(matches) > 1:
        names = ", ".join(f"--board serial:{port.serial_number or port.device}" for port in matches)
        raise DeviceError("several boards match the target", hint=f"choose one: {printable(names)}")
    return matches[0]


def _seen(ports: tuple[SerialPort, ...]) -> str:
    if not ports:
        return "this machine has no serial port"
    return "serial ports here: " + ", ".join(
        f"{printable(port.device)}" + (f" ({printable(port.serial_number)})" if port.serial_number else "")
        for port in ports
    )


class SerialTransport:
    """A tty, opened for this process alone. `on_close` ends what was started for it. See `Transport`."""

    def __init__(
        self, device: str, baud: int, *, name: str | None = None, on_close: Callable[[], None] | None = None
    ) -> None:
        self._name = name or device
        self._on_close = on_close
        try:
            self._port = serial.Serial(device, baud, timeout=0, exclusive=True)
            self._port.reset_input_buffer()
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise DeviceError(
                f"{printable(device)} can't be opened: {printable(str(error))}",
                hint="is another program using it? are you in the group that owns it (dialout)?",
            ) from error

    @property
    def name(self) -> str:
        return printable(self._name)

    # pyserial opens, locks and sets the port up; its own read and write set the terminal up anew whenever a
    # timeout changes, so the bytes go past it.

    def read(self, timeout_s: float) -> bytes:
        try:
            ready, _, _ = select.select([self._port], [], [], max(timeout_s, 0.0))
            if not ready:
                return b""
            data = os.read(self._port.fileno(), _LARGEST_READ)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:  # ValueError: closed
            raise self._gone(error) from error
        if not data:
            raise self._gone()
        return data

    def write(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        left = memoryview(data)
        try:
            while left:
                _, ready, _ = select.select([], [self._port], [], max(deadline - time.monotonic(), 0.0))
                if not ready:
                    raise DeviceError(f"{self.name} has taken no bytes for {timeout_s:.0f} s")
                with contextlib.suppress(BlockingIOError):
                    left = left[os.write(self._port.fileno(), left) :]
        except (OSError, ValueError) as error:
            raise self._gone(error) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._port.close()
        if self._on_close is not None:
            self._on_close()

    def _gone(self, error: OSError | ValueError | None = None) -> TransportClosedError:
        why = "" if error is None else f": {printable(str(error))}"
        again = "is it still plugged in? `edgekit doctor` lists the ports"
        if self._on_close is not None:
            again = "QEMU has ended; run the same again"
        return TransportClosedError(f"{self.name} has gone{why}", hint=again)
