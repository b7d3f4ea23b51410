"""A bad line in front of a good one: as a `Transport`, and as a serial port.

    Client ── LossyTransport ── PipeTransport ── agent
    Client ── SerialTransport ── /dev/pts/n ═ LossyPort ═ a process's pipes, or an emulator's pty ── agent

Both do to the bytes what tests.link.faults says, in both directions, from one seed.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import tty
from collections import Counter
from types import TracebackType
from typing import Final

from edgekit.device.transports.base import Transport, TransportClosedError
from tests.link.faults import Faults, Line

__all__ = ["LinesOfABoard", "LossyPort", "LossyTransport"]

_WRITE_S: Final = 8.0
_CHUNK: Final = 4096
_OTHER_WAY: Final = 0x9E3779B9


class LinesOfABoard:
    """Both directions."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.out, self.back = Line(faults, seed), Line(faults, seed ^ _OTHER_WAY)

    @property
    def happened(self) -> Counter[str]:
        return self.out.happened + self.back.happened

    @property
    def pieces(self) -> int:
        return self.out.pieces + self.back.pieces

    def next_s(self) -> float | None:
        return min((at for at in (self.out.next_s(), self.back.next_s()) if at is not None), default=None)

    def mend(self) -> None:
        self.out.mend()
        self.back.mend()


class LossyTransport:
    """A `Transport` that spoils what passes; time goes by only inside `read` and `write`."""

    def __init__(self, inner: Transport, faults: Faults, seed: int) -> None:
        self.lines = LinesOfABoard(faults, seed)
        self._inner = inner
        self._ended: TransportClosedError | None = None

    @property
    def name(self) -> str:
        return f"{self._inner.name} (lossy)"

    def read(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            self._pass_on(now)
            data = self.lines.back.arrived(now)
            if data:
                return data
            if self._ended is not None and self.lines.back.next_s() is None:
                raise self._ended
            if now >= deadline:
                return b""
            until = min(deadline, self.lines.next_s() or deadline)
            self._fetch(max(until - now, 0.0))

    def write(self, data: bytes, timeout_s: float) -> None:
        now = time.monotonic()
        self.lines.out.send(data, now)
        self._pass_on(now)

    def close(self) -> None:
        self._inner.close()

    def mend(self) -> None:
        """The line is good from now on, and nothing of before is under way."""
        while self._inner.read(0.2):
            pass
        self.lines.mend()

    def _pass_on(self, now: float) -> None:
        data = self.lines.out.arrived(now)
        if data:
            self._inner.write(data, _WRITE_S)

    def _fetch(self, timeout_s: float) -> None:
        if self._ended is not None:
            time.sleep(timeout_s)
            return
        try:
            data = self._inner.read(timeout_s)
        except TransportClosedError as error:
            self._ended = error
            return
        self.lines.back.send(data, time.monotonic())


class LossyPort:
    """A serial port (`device`) whose cable is bad; the board's end are two file descriptors, which stay open.

    A thread moves the bytes; `close` ends it. When the board's end closes, so does the port.
    """

    def __init__(self, board_read: int, board_write: int, faults: Faults, seed: int) -> None:
        self.lines = LinesOfABoard(faults, seed)
        self._board_read, self._board_write = board_read, board_write
        # The host's end stays open here: a pty whose other end nobody holds reports an error to its reader.
        self._near, self._held = os.openpty()
        tty.setraw(self._held)
        self.device = os.ttyname(self._held)
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="lossy port", daemon=True)
        self._thread.start()

    def __enter__(self) -> LossyPort:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        os.write(self._wake_write, b"!")
        self._thread.join(5.0)
        for descriptor in (self._near, self._held, self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def mend(self) -> None:
        """The line is good from now on, and nothing of before is under way."""
        time.sleep(0.2)
        with self._lock:
            self.lines.mend()

    def _serve(self) -> None:
        sources = [self._near, self._board_read, self._wake_read]
        with contextlib.suppress(OSError):  # an end has gone
            while not self._stopping:
                with self._lock:
                    next_s = self.lines.next_s()
                wait = 1.0 if next_s is None else min(max(next_s - time.monotonic(), 0.0), 1.0)
                ready, _, _ = select.select(sources, [], [], wait)
                now = time.monotonic()
                with self._lock:
                    if self._near in ready:
                        self.lines.out.send(os.read(self._near, _CHUNK), now)
                    if self._board_read in ready:
                        data = os.read(self._board_read, _CHUNK)
                        if not data:
                            return
                        self.lines.back.send(data, now)
                    out, back = self.lines.out.arrived(now), self.lines.back.arrived(now)
                _write_all(self._board_write, out)
                _write_all(self._near, back)


def _write_all(descriptor: int, data: bytes) -> None:
    """Bytes that nobody takes for `_WRITE_S` are lost, as on a real line."""
    left = memoryview(data)
    while left:
        _, ready, _ = select.select([], [descriptor], [], _WRITE_S)
        if not ready:
            return
        left = left[os.write(descriptor, left) :]
