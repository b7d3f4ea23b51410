"""Flashers build an exact argv; what a tool says when it fails is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device import BoardAddress, connect, flash
from edgekit.device.flashers import EmulatedFlasher, NoFlasher, PyocdFlasher, run_flasher
from edgekit.device.transports.serial import SerialPort
from edgekit.errors import DeviceError, MissingToolError, VerificationError
from edgekit.target import load_target

IMAGE = Path("/build/firmware.elf")
NUCLEO = SerialPort("/dev/ttyACM0", "0483:374b", "066BFF34", "STM32 STLink")


def test_pyocd_argv() -> None:
    assert PyocdFlasher("stm32f446re").argv(IMAGE, "066BFF34") == (
        *("pyocd", "flash", "--target", "stm32f446re"),
        *("--probe", "066BFF34", "/build/firmware.elf"),
    )
    assert PyocdFlasher("stm32f446re").argv(IMAGE, None) == (
        *("pyocd", "flash", "--target", "stm32f446re"),
        "/build/firmware.elf",
    )


def test_nothing_to_run() -> None:
    assert EmulatedFlasher().argv(IMAGE, None) is None
    assert NoFlasher().argv(IMAGE, None) is None
    run_flasher(NoFlasher(), IMAGE, None)


def tool(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `pyocd` on the PATH that does as told."""
    program = folder / "pyocd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_board_is_flashed_through_its_own_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/said', monkeypatch)
    monkeypatch.setattr(connect, "list_serial_ports", lambda: (NUCLEO,))
    expected = ["flash", "--target", "stm32f446re", "--probe", "066BFF34", str(tmp_path / "firmware.elf")]
    boards = (None, BoardAddress("serial_device", "/dev/ttyACM0"), BoardAddress("serial_number", "066BFF34"))
    for board in boards:
        flash(load_target("nucleo-f446re"), tmp_path / "firmware.elf", board)
        assert (tmp_path / "said").read_text().splitlines() == expected
        (tmp_path / "said").unlink()


def test_an_emulated_board_needs_no_flashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    flash(load_target("mps2-an386"), tmp_path / "firmware.elf", None)
    flash(load_target("host"), tmp_path / "runner", None)


def test_a_tool_that_fails_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, r'printf "no \033[31mprobe\n" >&2; exit 3', monkeypatch)
    with pytest.raises(VerificationError, match="exit code 3") as caught:
        run_flasher(PyocdFlasher("stm32f446re"), IMAGE, None)
    assert "no \\x1b[31mprobe" in caught.value.message
    assert caught.value.exit_code == 7


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "echo erasing; exec sleep 60", monkeypatch)
    with pytest.raises(DeviceError, match=r"did not end within 1 s(.|\n)*erasing"):
        run_flasher(PyocdFlasher("stm32f446re"), IMAGE, None, timeout_s=1.0)


def test_a_missing_tool_is_exit_9_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MissingToolError, match="pyocd") as caught:
        flash(load_target("nucleo-f446re"), IMAGE, BoardAddress("serial_number", "066BFF34"))
    assert caught.value.exit_code == 9
    assert "pip install pyocd" in (caught.value.hint or "")
