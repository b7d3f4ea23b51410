"""The agent on a Linux board, over a channel of ssh. Banners before the hello are the client's to skip."""

from __future__ import annotations

from edgekit.device.ssh.channel import ChannelEnded, ChannelStuck
from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.failures import SSH_FAILED, NotInstalledError, connection_error, runner_error
from edgekit.device.transports.base import TransportClosedError
from edgekit.errors import DeviceError

__all__ = ["SshTransport"]

_DOING = "talking to the agent"


class SshTransport:
    """Starts `command` on the board and talks to it; `close` ends it. See `Transport`."""

    def __init__(self, connection: SshConnection, command: str) -> None:
        self._host = connection.host
        self._channel = connection.start(command)

    @property
    def name(self) -> str:
        return f"ssh:{self._host.destination}"

    def read(self, timeout_s: float) -> bytes:
        try:
            return self._channel.read(timeout_s)
        except ChannelEnded:
            raise self._ended() from None

    def write(self, data: bytes, timeout_s: float) -> None:
        try:
            self._channel.write(data, timeout_s)
        except ChannelEnded:
            raise self._ended() from None
        except ChannelStuck:
            raise DeviceError(f"{self.name} has taken no bytes for {timeout_s:.0f} s") from None

    def close(self) -> None:
        self._channel.close()

    def _ended(self) -> DeviceError:
        ended = self._channel.ended()
        if ended.code == SSH_FAILED or ended.code < 0:
            error = connection_error(self._host, _DOING, ended)
        elif ended.code == 0:
            return TransportClosedError(f"the agent at {self.name} ended in the middle of its work")
        else:
            error = runner_error(self._host, _DOING, ended)
            if isinstance(error, NotInstalledError):
                return error
        return TransportClosedError(error.message, hint=error.hint)
