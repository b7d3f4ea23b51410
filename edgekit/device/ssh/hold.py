"""The board's lock: one deployment at a time, kept by a channel that stays open."""

from __future__ import annotations

import getpass
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edgekit.device.ssh.channel import Channel, ChannelEnded
from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.failures import SSH_FAILED, busy_error, connection_error, runner_error, silence_error
from edgekit.device.ssh.remote import Program, hold_command
from edgekit.errors import DeviceError

__all__ = ["Hold", "held", "who_am_i"]

_ANSWER_S: Final = 30.0
_MAX_ANSWER_BYTES: Final = 65536
_OUTSIDE: Final = re.compile(r"[^A-Za-z0-9._@-]+")


class Hold:
    """A lock that is ours for as long as its channel lives."""

    def __init__(self, connection: SshConnection, channel: Channel) -> None:
        self._connection = connection
        self._channel = channel

    def check(self, doing: str) -> None:
        """Raises DeviceError when the lock was lost: the channel has ended, and somebody else may hold it."""
        if not self._channel.alive:
            raise connection_error(self._connection.host, doing, self._channel.ended())


@contextmanager
def held(connection: SshConnection, program: Program, doing: str) -> Iterator[Hold]:
    """Hold the board until the end of the context; `program` is any runner on it.

    Raises:
        DeviceError: somebody else holds it; the message says who and since when.
    """
    channel = connection.start(hold_command(program, who_am_i()))
    try:
        _wait_until_held(connection, channel, doing)
        yield Hold(connection, channel)
    finally:
        channel.close()


def who_am_i() -> str:
    """`user@machine` in the characters that the runner's command line may have."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        user = "someone"
    name = _OUTSIDE.sub("_", f"{user}@{socket.gethostname()}")[:63].lstrip("._@-")
    return name or "someone"


def _wait_until_held(connection: SshConnection, channel: Channel, doing: str) -> None:
    said = b""
    deadline = time.monotonic() + _ANSWER_S
    while len(said) <= _MAX_ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            said += channel.read(left)
        except ChannelEnded:
            raise _refusal(connection, channel, said, doing) from None
        # a login shell may have said something before
        if any(line == b"held" for line in said.split(b"\n")[:-1]):
            return
    raise silence_error(connection.host, doing, _ANSWER_S)


def _refusal(connection: SshConnection, channel: Channel, said: bytes, doing: str) -> Exception:
    ended = channel.ended(said)
    if ended.code == SSH_FAILED or ended.code < 0:
        return connection_error(connection.host, doing, ended)
    if b"\nbusy " in b"\n" + said:
        return busy_error(connection.host, said.decode(errors="replace"))
    if ended.code == 0:
        return DeviceError(f"{connection.host.destination}: the lock was given back at once: {doing}")
    return runner_error(connection.host, doing, ended)
