"""What the client asks of a byte stream."""

from __future__ import annotations

from typing import Protocol

from edgekit.errors import DeviceError

__all__ = ["Transport", "TransportClosedError"]


class TransportClosedError(DeviceError):
    """The other end has gone: a process ended, a cable was pulled."""


class Transport(Protocol):
    """An ordered byte stream in both directions that may lose or damage bytes.

    Life cycle: a transport is open once it is made; `close` may be called any number of times and nothing
    else after it.
    """

    @property
    def name(self) -> str:
        """What it leads to, for messages: `/dev/ttyACM0`, `build/runner`."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at least one byte unless `timeout_s` ends first (then empty).

        Raises TransportClosedError when nothing can arrive any more.
        """
        ...

    def write(self, data: bytes, timeout_s: float) -> None:
        """All of `data`. Raises DeviceError when the line takes no more for `timeout_s`, or is closed."""
        ...

    def close(self) -> None:
        """Give the line and what was started for it back. Raises nothing."""
        ...
