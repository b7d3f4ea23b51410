"""Names of boards, read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from edgekit.device import BoardAddress, parse_board
from edgekit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("serial:/dev/ttyACM0", BoardAddress("serial_device", "/dev/ttyACM0")),
        (
            "serial:/dev/serial/by-id/usb-ST_1-if02",
            BoardAddress("serial_device", "/dev/serial/by-id/usb-ST_1-if02"),
        ),
        ("serial:066BFF343633464257254156", BoardAddress("serial_number", "066BFF343633464257254156")),
        ("ssh:raspberrypi.local", BoardAddress("ssh", "raspberrypi.local")),
        ("ssh:pi@10.0.0.7", BoardAddress("ssh", "10.0.0.7", "pi")),
        ("ssh:pi@[fe80::1]", BoardAddress("ssh", "[fe80::1]", "pi")),
    ],
)
def test_the_forms(text: str, address: BoardAddress) -> None:
    assert parse_board(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "serial",
        "serial:",
        "serial:-x",
        "serial:--probe=1",
        "serial:/etc/passwd",
        "serial:/dev/../etc/passwd",
        "serial:/dev/tty ACM0",
        "serial:/dev/tty\n",
        "serial:12\x1b[2J",
        "ssh:",
        "ssh:-oProxyCommand=touch${IFS}x",
        "ssh:pi@-oProxyCommand=x",
        "ssh:-l@host",
        "ssh:a b",
        "ssh:@host",
        "ssh:host\x00",
        "usb:1234",
        "SSH:host",
    ],
)
def test_anything_else_is_refused_and_shown_safely(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_board(text)
    assert caught.value.exit_code == 2
    assert all(character.isprintable() for character in caught.value.message)


@given(st.text(max_size=60), st.sampled_from(["", "serial:", "serial:/dev/", "ssh:", "ssh:u@"]))
def test_nothing_that_is_accepted_can_be_taken_for_a_flag(text: str, start: str) -> None:
    try:
        address = parse_board(start + text)
    except UsageError:
        return
    for word in (address.place, address.user or "u"):
        assert word
        assert not word.startswith("-")
        assert word.isascii()
        assert word.isprintable()
        assert " " not in word


def test_a_port_belongs_into_the_configuration_of_ssh() -> None:
    with pytest.raises(UsageError, match="names no board") as raised:
        parse_board("ssh:pi@board:2222")
    assert "~/.ssh/config" in (raised.value.hint or "")
