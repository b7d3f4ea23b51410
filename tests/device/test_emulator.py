"""The emulator's command line, and that it never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgekit.device.emulator import EmulatedBoard, EmulatorSettings, emulator_argv
from edgekit.errors import DeviceError, MissingToolError, TargetError

SETTINGS = EmulatorSettings("mps2-an386", 6)


def test_the_command_line() -> None:
    assert emulator_argv("qemu-system-arm", SETTINGS, Path("/build/firmware.elf")) == (
        "qemu-system-arm",
        *("-machine", "mps2-an386"),
        *("-nodefaults", "-nographic", "-monitor", "none"),
        *("-serial", "pty"),
        *("-icount", "shift=6,sleep=off"),
        *("-kernel", "/build/firmware.elf"),
    )


@pytest.mark.parametrize("machine", ["", "-x", "mps2,foo=bar", "mps2 -s", "a" * 80, "MPS2"])
def test_a_machine_is_a_name_and_nothing_else(machine: str) -> None:
    with pytest.raises(TargetError):
        EmulatorSettings(machine, 6)


def test_the_shift_has_bounds() -> None:
    for shift in (-1, 11):
        with pytest.raises(TargetError):
            EmulatorSettings("mps2-an386", shift)


def test_a_missing_emulator_is_exit_9_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError) as caught:
        EmulatedBoard(SETTINGS, tmp_path / "firmware.elf")
    assert caught.value.exit_code == 9
    assert caught.value.hint == "sudo apt-get install qemu-system-arm"


@pytest.mark.usefixtures("emulator")
def test_a_missing_or_broken_image_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no image"):
        EmulatedBoard(SETTINGS, tmp_path / "firmware.elf")


def test_an_emulator_that_says_no_tty_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "qemu-system-arm"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho no such machine\nexec sleep 60\n")
    program.chmod(0o755)
    image = tmp_path / "firmware.elf"
    image.write_bytes(b"")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DeviceError, match="did not start: no such machine"):
        EmulatedBoard(SETTINGS, image, start_timeout_s=0.5)
    assert not alive(int((tmp_path / "pid").read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


PARENT = """
    import sys
    from pathlib import Path
    from edgekit.device.emulator import EmulatedBoard, EmulatorSettings
    board = EmulatedBoard(EmulatorSettings("mps2-an386", 6), Path(sys.argv[1]))
    print(board.pid, flush=True)
    sys.stdin.readline()
    {then}
"""


def start_parent(image: Path, then: str) -> tuple[subprocess.Popen[str], int]:
    """Another Python that starts the emulator and waits for a line, and the emulator's process id."""
    script = textwrap.dedent(PARENT).format(then=then)
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(image)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    return parent, pid


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name
)
def test_it_is_gone_after_a_signal_to_its_parent(number: signal.Signals, emulated_image: Path) -> None:
    parent, pid = start_parent(emulated_image, "raise SystemExit")
    parent.send_signal(number)
    assert parent.wait(10) == -number
    parent.communicate()
    assert gone_within(pid, 5)


@pytest.mark.parametrize(
    "then",
    ["sys.exit(3)", "raise ValueError", "import os; os._exit(1)", "pass"],
    ids=["exit", "error", "_exit", "end"],
)
def test_it_is_gone_after_its_parent_ends(then: str, emulated_image: Path) -> None:
    parent, pid = start_parent(emulated_image, then)
    parent.communicate("go on\n", timeout=10)
    assert gone_within(pid, 5)


def test_it_is_gone_after_the_context(emulated_image: Path) -> None:
    with EmulatedBoard(SETTINGS, emulated_image) as board:
        assert alive(board.pid)
        assert Path(board.tty).exists()
    assert not alive(board.pid)
    board.stop()
