"""Which machine ssh is to reach, in words that can be nothing but that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.device.board import BoardAddress
from edgekit.errors import UsageError
from edgekit.text import printable

__all__ = ["SshHost", "ssh_host"]

# No '-' in front (an option), no space, quote, '%', '$' or any other character that a shell, ssh's own
# configuration or a ProxyCommand would read as more than a letter of a name.
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_IPV6: Final = re.compile(r"(?=[^:]*:[^:]*:)[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True, slots=True)
class SshHost:
    """`destination` is `[user@]host`, where host is a name, an address or an alias of ssh's configuration.

    `config` is the configuration file to use in the place of the user's own (`ssh -F`).
    """

    destination: str
    config: Path | None = None

    def __post_init__(self) -> None:
        user, at, host = self.destination.rpartition("@")
        if (at and not _USER.fullmatch(user)) or not (_NAME.fullmatch(host) or _IPV6.fullmatch(host)):
            raise UsageError(
                f'"{printable(self.destination)}" is no name of a host', hint="a host is [user@]name"
            )

    @property
    def name(self) -> str:
        """The host without the user."""
        return self.destination.rpartition("@")[2]


def ssh_host(board: BoardAddress) -> SshHost:
    """The host of an `ssh:` address. ssh takes an IPv6 address without its brackets."""
    place = board.place.removeprefix("[").removesuffix("]")
    return SshHost(f"{board.user}@{place}" if board.user else place)
