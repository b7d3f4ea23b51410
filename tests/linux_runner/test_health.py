"""What the runner tells of a board's state, from the files of a made-up board and of this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.linux_runner.board import Board

CPU = "sys/devices/system/cpu"
PI = {
    "proc/meminfo": (
        "MemTotal:        3884360 kB\nMemFree:          131072 kB\nMemAvailable:    2097152 kB\n"
    ),
    f"{CPU}/online": "0-3\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/class/thermal/thermal_zone0/temp": "61342\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}
WORD_BITS = {"host": 64, "aarch64": 64, "armv7": 32}


def health(board: Board, root: Path | None, **environment: str) -> dict[str, str]:
    extra = {**environment, **({"EDGEKIT_HEALTH_ROOT": str(root)} if root else {})}
    done = board.run(board.upload(board.version(1)), "health", extra=extra)
    assert (done.returncode, done.stderr) == (0, b"")
    said: dict[str, str] = {}
    for line in done.stdout.decode().splitlines():
        key, _, value = line.partition(" ")
        assert key not in said
        said[key] = value
    return said


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("faulty_board", ["host", "aarch64", "armv7"], indirect=True)
def test_a_board(faulty_board: Board, tmp_path: Path) -> None:
    said = health(faulty_board, write(tmp_path / "pi", PI))
    machine = said.pop("machine")
    assert machine == {"aarch64": "aarch64", "armv7": "armv7l"}.get(
        faulty_board.machine.name, platform.machine()
    )
    assert int(said.pop("disk_free_bytes")) > 0
    assert said.pop("kernel")
    assert said == {
        "word_bits": str(WORD_BITS[faulty_board.machine.name]),
        "cores": "4",
        "memory_free_bytes": str(2 << 30),
        "governor": "ondemand",
        "frequency_khz": "1800000",
        "temperature_millicelsius": "61342",
        "throttled": "0x50005",
        "clock": "clock_monotonic_raw",
    }


@pytest.mark.parametrize("faulty_board", ["host"], indirect=True)
def test_what_is_not_there_is_left_out(faulty_board: Board, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    said = health(faulty_board, tmp_path / "bare", EDGEKIT_TICK_FILE="/somewhere")
    assert set(said) == {"machine", "word_bits", "kernel", "disk_free_bytes", "clock"}
    assert said["clock"] == "plugin"


@pytest.mark.parametrize("faulty_board", ["host"], indirect=True)
@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        (f"{CPU}/online", "0\n", "cores", "1"),
        (f"{CPU}/online", "0-1,4-5,7\n", "cores", "5"),
        (f"{CPU}/online", "\n", "cores", None),
        (f"{CPU}/online", "3-1\n", "cores", None),
        (f"{CPU}/online", "0-\n", "cores", None),
        (f"{CPU}/online", "0-99999999999999999999\n", "cores", None),
        (f"{CPU}/online", "0;1", "cores", None),
        ("proc/meminfo", "MemTotal: 1 kB\n", "memory_free_bytes", None),
        ("proc/meminfo", "a\nMemAvailable: -1 kB\n", "memory_free_bytes", None),
        ("proc/meminfo", "a\nMemAvailable: 99999999999999999999 kB\n", "memory_free_bytes", None),
        ("sys/class/thermal/thermal_zone0/temp", "-5000\n", "temperature_millicelsius", "-5000"),
        ("sys/class/thermal/thermal_zone0/temp", "-\n", "temperature_millicelsius", None),
        ("sys/class/thermal/thermal_zone0/temp", "12a\n", "temperature_millicelsius", None),
        (f"{CPU}/cpu0/cpufreq/scaling_cur_freq", "<unknown>\n", "frequency_khz", None),
        (
            f"{CPU}/cpu0/cpufreq/scaling_governor",
            "perf\x1b[2Jx\nfake_key 1\n",
            "governor",
            "perf?[2Jx",
        ),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "0\n", "throttled", "0x0"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "zero\n", "throttled", None),
    ],
)
def test_odd_contents(
    faulty_board: Board, tmp_path: Path, name: str, text: str, key: str, value: str | None
) -> None:
    said = health(faulty_board, write(tmp_path / "odd", {name: text}))
    assert said.get(key) == value
    assert set(said) <= {"machine", "word_bits", "kernel", "disk_free_bytes", "clock", key}


def test_this_machine(board: Board, tmp_path: Path) -> None:
    """The shipped runner: EDGEKIT_HEALTH_ROOT means nothing to it."""
    said = health(board, write(tmp_path / "pi", PI))
    assert said["kernel"] == platform.release()
    assert int(said["cores"]) == os.cpu_count()
    assert 0 < int(said["memory_free_bytes"]) != 2 << 30
    free = os.statvfs(board.home)
    assert abs(int(said["disk_free_bytes"]) - free.f_bavail * free.f_frsize) < 1 << 30
