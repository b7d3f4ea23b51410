"""One shared connection to a board: channels over it, and its orderly end.

The first ssh opens the connection and leaves a master process in the background; the others go through its
socket, which lies in a folder that only this user can enter. `close` tells the master to end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from edgekit.device.ssh.argv import Patience, control_path, exit_argv, session_argv
from edgekit.device.ssh.channel import GOODBYE_S, Channel, ChannelStuck, Completed
from edgekit.device.ssh.failures import SSH_FAILED, connection_error, silence_error
from edgekit.device.ssh.host import SshHost

__all__ = ["SshConnection"]

_COMMAND_S: Final = 60.0
_EXIT_S: Final = 5.0


class SshConnection:
    """See the module. Made without connecting: the first channel does."""

    def __init__(self, host: SshHost, *, patience: Patience | None = None) -> None:
        self.host = host
        self.patience = patience or Patience()
        self._folder, self._control = _private_folder()
        self._channels: list[Channel] = []

    def __enter__(self) -> SshConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, command: str) -> Channel:
        """A channel to `command` on the board. Close it, or it is closed with the connection."""
        channel = Channel(session_argv(self.host, command, self._control, self.patience))
        self._channels = [known for known in self._channels if known.alive]
        self._channels.append(channel)
        return channel

    def run(
        self,
        command: str,
        doing: str,
        *,
        data: bytes = b"",
        silence_s: float = _COMMAND_S,
        total_s: float = 2 * _COMMAND_S,
        advanced: Callable[[int], None] | None = None,
    ) -> Completed:
        """Run `command` to its end, whatever its exit code. `doing` says in a message what it was for.

        Raises:
            DeviceError: the connection failed, or nothing moved for `silence_s`.
        """
        channel = self.start(command)
        try:
            ended = channel.complete(data, silence_s=silence_s, total_s=total_s, advanced=advanced)
        except ChannelStuck:
            raise silence_error(self.host, doing, silence_s) from None
        finally:
            channel.close()
        if ended.code == SSH_FAILED or ended.code < 0:
            raise connection_error(self.host, doing, ended)
        return ended

    def close(self) -> None:
        """End all channels and the connection. May be called more than once; raises nothing."""
        for channel in self._channels:
            channel.close_input()
        deadline = time.monotonic() + GOODBYE_S
        for channel in self._channels:
            channel.close(deadline - time.monotonic())
        self._channels.clear()
        if self._folder is None or self._control is None:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if any(self._folder.iterdir()):
                subprocess.run(
                    exit_argv(self.host, self._control),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_EXIT_S,
                    check=False,
                )
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._control = None


def _private_folder() -> tuple[Path | None, str | None]:
    """A new folder (mode 0700) whose path a socket's may start with, and the socket's path; none where no
    place is short enough. Every command then has a connection of its own.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    for place in (*([runtime] if runtime else []), tempfile.gettempdir(), "/tmp"):
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="edgekit-", dir=Path(place).resolve()))
            control = control_path(folder)
            if control is not None:
                return folder, control
            folder.rmdir()
    return None, None
