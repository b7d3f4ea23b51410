"""The command lines of the system's ssh. Pure: nothing here runs anything.

What a user's configuration says of a host (name, port, user, keys, agent, jump hosts, host key checks) holds;
only how edgekit itself uses the connection is set here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.device.ssh.host import SshHost

__all__ = [
    "LONGEST_SOCKET_PATH",
    "PROGRAM",
    "Patience",
    "config_argv",
    "control_path",
    "exit_argv",
    "session_argv",
]

PROGRAM: Final = "ssh"

LONGEST_SOCKET_PATH: Final = 104
"""sizeof sun_path with its final zero where it is smallest (the BSDs and macOS; Linux has 108)."""

_CONNECTION_HASH_CHARACTERS: Final = 40
"""What %C becomes: a SHA-1 in hex (ssh_config(5))."""
_TEMPORARY_SUFFIX_CHARACTERS: Final = 17
"""ssh binds `<path>.<16 random characters>` first and renames it (mux.c, muxserver_listen)."""

# ssh reads the option as a line of its configuration: space, quote, '%', '$' and '~' would be more than text.
_PLAIN_PATH: Final = re.compile(r"/[A-Za-z0-9._/+-]*")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long ssh itself waits, in seconds: for a connection, and for a board that has gone silent."""

    connect_s: int = 10
    alive_interval_s: int = 5
    alive_count: int = 3
    persist_s: int = 60
    """How long an idle connection stays when edgekit was killed before it could close it."""

    @property
    def silence_s(self) -> int:
        """After this long without a word from the board, ssh gives up."""
        return self.alive_interval_s * self.alive_count


def control_path(directory: Path) -> str | None:
    """The path of the shared connection's socket in `directory`, or None where it would be too long or not
    plain.
    """
    folder = os.fspath(directory)
    longest = len(os.fsencode(folder)) + 1 + _CONNECTION_HASH_CHARACTERS + _TEMPORARY_SUFFIX_CHARACTERS
    if longest + 1 > LONGEST_SOCKET_PATH or not _PLAIN_PATH.fullmatch(folder):
        return None
    return f"{folder}/%C"


def session_argv(
    host: SshHost, command: str, control: str | None, patience: Patience | None = None
) -> tuple[str, ...]:
    """One remote command, over the shared connection where `control` is one, else over one of its own."""
    waits = patience or Patience()
    shared = (
        ("-o", "ControlMaster=no", "-o", "ControlPath=none")
        if control is None
        else (
            *("-o", "ControlMaster=auto"),
            *("-o", f"ControlPath={control}"),
            *("-o", f"ControlPersist={waits.persist_s}"),
        )
    )
    return (
        PROGRAM,
        "-T",
        *("-o", "BatchMode=yes"),
        *("-o", f"ConnectTimeout={waits.connect_s}"),
        *("-o", f"ServerAliveInterval={waits.alive_interval_s}"),
        *("-o", f"ServerAliveCountMax={waits.alive_count}"),
        *shared,
        *_configuration(host),
        "--",
        host.destination,
        command,
    )


def exit_argv(host: SshHost, control: str) -> tuple[str, ...]:
    """Tell the shared connection to end."""
    return (
        PROGRAM,
        *("-O", "exit"),
        *("-o", "BatchMode=yes"),
        *("-o", f"ControlPath={control}"),
        *_configuration(host),
        "--",
        host.destination,
    )


def config_argv(host: SshHost) -> tuple[str, ...]:
    """Print what ssh's configuration says of the host, without connecting."""
    return (PROGRAM, "-G", *_configuration(host), "--", host.destination)


def _configuration(host: SshHost) -> tuple[str, ...]:
    return () if host.config is None else ("-F", str(host.config.absolute()))
