"""Serial ports: how they are found, and the transport over a pty."""

from __future__ import annotations

import contextlib
import os
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.device import BoardAddress, connect, open_board
from edgekit.device.transports.base import TransportClosedError
from edgekit.device.transports.serial import (
    SerialPort,
    SerialTransport,
    find_by_serial_number,
    find_by_usb_id,
    list_serial_ports,
)
from edgekit.errors import DeviceError
from edgekit.target import load_target

ONE = SerialPort("/dev/ttyACM0", "0483:374b", "066BFF34", "STM32 STLink")
TWO = SerialPort("/dev/ttyACM1", "0483:374b", "0670FF51", "STM32 STLink")
OTHER = SerialPort("/dev/ttyUSB0", "0403:6001", None, "FT232R")
PLAIN = SerialPort("/dev/ttyS0", None, None, "")


def test_a_board_is_found_by_its_serial_number() -> None:
    assert find_by_serial_number("0670ff51", [ONE, TWO, OTHER, PLAIN]) is TWO
    with pytest.raises(DeviceError, match="serial number 99 is plugged in") as caught:
        find_by_serial_number("99", [ONE, PLAIN])
    assert caught.value.hint == "serial ports here: /dev/ttyACM0 (066BFF34), /dev/ttyS0"


def test_the_only_match_of_the_usb_id_is_the_board() -> None:
    assert find_by_usb_id(["0483:374B"], [OTHER, ONE, PLAIN]) is ONE
    with pytest.raises(DeviceError, match="several boards") as caught:
        find_by_usb_id(["0483:374b"], [ONE, TWO])
    assert "--board serial:066BFF34, --board serial:0670FF51" in (caught.value.hint or "")
    with pytest.raises(DeviceError, match="no board is plugged in") as caught:
        find_by_usb_id(["0483:374b"], [])
    assert "--board serial:" in (caught.value.hint or "")
    assert caught.value.exit_code == 6


def test_ports_can_be_listed() -> None:
    assert all(port.device.startswith("/dev/") for port in list_serial_ports())


@pytest.mark.parametrize(
    ("target", "board", "message"),
    [
        ("nucleo-f446re", BoardAddress("ssh", "pi"), "reached over serial, not ssh"),
        ("mps2-an386", BoardAddress("serial_device", "/dev/ttyACM0"), "runs on this machine"),
        ("host", BoardAddress("ssh", "pi"), "runs on this machine"),
    ],
)
def test_an_address_that_does_not_fit_the_target_is_refused(
    target: str, board: BoardAddress, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match=message), open_board(load_target(target), tmp_path / "x", board):
        pass


def test_a_board_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "list_serial_ports", lambda: (OTHER,))
    target = load_target("nucleo-f446re")
    with pytest.raises(DeviceError, match="no board is plugged in"), open_board(target, tmp_path / "x", None):
        pass
    missing = BoardAddress("serial_device", "/dev/ttyEDGEKIT9")
    with (
        pytest.raises(DeviceError, match="can't be opened") as caught,
        open_board(target, tmp_path / "x", missing),
    ):
        pass
    assert "dialout" in (caught.value.hint or "")


# --- over a pty -----------------------------------------------------------------------------------------


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """The board's end as a file descriptor, the host's as a path."""
    board, host = os.openpty()
    tty.setraw(host)
    yield board, os.ttyname(host)
    for descriptor in (board, host):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_bytes_pass_unchanged_both_ways(line: tuple[int, str]) -> None:
    board, path = line
    transport = SerialTransport(path, 115_200)
    data = bytes(range(256))
    transport.write(data, 1.0)
    assert os.read(board, 1000) == data
    os.write(board, data)
    got = b""
    while len(got) < 256:
        got += transport.read(1.0)
    assert got == data
    transport.close()


def test_a_read_ends_at_its_timeout(line: tuple[int, str]) -> None:
    transport = SerialTransport(line[1], 115_200)
    began = time.monotonic()
    assert transport.read(0.1) == b""
    assert 0.09 < time.monotonic() - began < 2.0
    transport.close()


def test_a_line_that_takes_nothing_is_given_up(line: tuple[int, str]) -> None:
    transport = SerialTransport(line[1], 115_200)
    with pytest.raises(DeviceError, match="taken no bytes"):
        transport.write(bytes(1 << 20), 0.2)
    transport.close()


def test_a_port_is_opened_by_one_program_at_a_time(line: tuple[int, str]) -> None:
    transport = SerialTransport(line[1], 115_200)
    with pytest.raises(DeviceError, match="can't be opened"):
        SerialTransport(line[1], 115_200)
    transport.close()
    SerialTransport(line[1], 115_200).close()


def test_a_pulled_cable_is_said(line: tuple[int, str]) -> None:
    board, path = line
    transport = SerialTransport(path, 115_200)
    os.close(board)
    with pytest.raises(TransportClosedError, match="has gone"):
        transport.read(1.0)
    transport.close()
    transport.close()
