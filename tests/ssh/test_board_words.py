"""What a board says: the lines of `status` and `health`, between whatever a login shell says."""

from __future__ import annotations

from hypothesis import given, strategies as st

from edgekit.device.ssh.health import BoardHealth, parse_health
from edgekit.device.ssh.versions import InstalledVersion, parse_status


def test_status() -> None:
    text = (
        "Welcome to Debian\nkws 0123456789abcdef current 941280 1795313078\n"
        "kws fedcba9876543210 kept 7 0\nkws x\n"
    )
    assert parse_status(text) == (
        InstalledVersion("kws", "0123456789abcdef", True, 941280, 1795313078),
        InstalledVersion("kws", "fedcba9876543210", False, 7, 0),
    )


def test_health() -> None:
    text = (
        "Last login: today\nmachine aarch64\nword_bits 64\nkernel 6.6.31+rpt-rpi-v8\ncores 4\n"
        "memory_free_bytes 3500000000\ndisk_free_bytes 25000000000\ngovernor ondemand\n"
        "frequency_khz 1800000\ntemperature_millicelsius -1234\nthrottled 0x50000\n"
        "clock clock_monotonic_raw\n"
    )
    assert parse_health(text) == BoardHealth(
        machine="aarch64",
        word_bits=64,
        kernel="6.6.31+rpt-rpi-v8",
        cores=4,
        memory_free_bytes=3_500_000_000,
        disk_free_bytes=25_000_000_000,
        governor="ondemand",
        frequency_khz=1_800_000,
        temperature_millicelsius=-1234,
        throttled=0x50000,
        clock="clock_monotonic_raw",
    )


def test_what_a_board_does_not_tell_is_none() -> None:
    assert parse_health("") == BoardHealth()
    assert parse_health("cores many\ngovernor \x1b[2J\nthrottled 50000\nmachine\n") == BoardHealth()


@given(st.text(max_size=300))
def test_no_words_of_a_board_break_the_reading(text: str) -> None:
    parse_status(text)
    found = parse_health(text)
    assert found.governor is None or found.governor.isascii()
