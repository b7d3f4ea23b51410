"""Which board is meant: `serial:/dev/ttyACM0`, `serial:<usb serial number>`, `ssh:[user@]host`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from edgekit.errors import UsageError
from edgekit.text import printable

__all__ = ["BoardAddress", "parse_board"]

# Strict, since these words end up in argv and in paths: no control character, nothing that could be taken
# for a flag.
_DEVICE: Final = re.compile(r"/dev/[A-Za-z0-9._/:+-]{1,200}")
_SERIAL_NUMBER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]")

_FORMS: Final = "serial:/dev/tty…, serial:<usb serial number> or ssh:[user@]host"


@dataclass(frozen=True, slots=True)
class BoardAddress:
    """`place` is a device path, a USB serial number or a host name."""

    kind: Literal["serial_device", "serial_number", "ssh"]
    place: str
    user: str | None = None

    def __str__(self) -> str:
        if self.kind == "ssh":
            return f"ssh:{self.user}@{self.place}" if self.user else f"ssh:{self.place}"
        return f"serial:{self.place}"


def parse_board(text: str) -> BoardAddress:
    """Raises UsageError when `text` is none of the forms."""
    kind, colon, place = text.partition(":")
    if kind == "serial" and colon:
        if _DEVICE.fullmatch(place) and ".." not in place.split("/"):
            return BoardAddress("serial_device", place)
        if _SERIAL_NUMBER.fullmatch(place):
            return BoardAddress("serial_number", place)
    if kind == "ssh" and colon:
        user, at, host = place.rpartition("@")
        if _HOST.fullmatch(host) and (not at or _USER.fullmatch(user)):
            return BoardAddress("ssh", host, user or None)
    own = "; a port or a key of its own belongs into ~/.ssh/config" if kind == "ssh" else ""
    raise UsageError(f'"{printable(text)}" names no board', hint=f"a board is {_FORMS}{own}")
