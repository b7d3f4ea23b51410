"""One ssh process and its three pipes, none of which can block the others.

A thread of its own drains stderr, so that a board which talks there cannot fill the pipe and stop ssh; what
is kept of it is bounded. Every wait has an end, and `close` leaves no process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Final

from edgekit.device.processes import OwnedProcess
from edgekit.errors import DeviceError, MissingToolError

__all__ = ["GOODBYE_S", "Channel", "ChannelEnded", "ChannelStuck", "Completed"]

_CHUNK: Final = 65536
_KEPT_STDERR_BYTES: Final = 8192
_MAX_STDOUT_BYTES: Final = 1 << 20
GOODBYE_S: Final = 2.0
_EXIT_S: Final = 10.0
_KILLED: Final = -9


class ChannelEnded(Exception):
    """The remote program's output has ended."""


class ChannelStuck(Exception):
    """Nothing moved for as long as it may take."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a channel ended: ssh's exit code (255: ssh's own, else the remote program's) and its words."""

    code: int
    stdout: bytes
    stderr: str


class Channel:
    """Starts `argv`; the remote program's stdin and stdout are this channel's."""

    def __init__(self, argv: Sequence[str]) -> None:
        try:
            self._owned = OwnedProcess(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # ssh's words are read by programs here
                environment={**os.environ, "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            raise MissingToolError(
                f"{argv[0]} is not installed; it reaches the board",
                hint="sudo apt-get install -y openssh-client",
            ) from error
        except OSError as error:
            raise DeviceError(f"{argv[0]} can't be started: {error.strerror}") from error
        process = self._owned.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._words = _Words(process.stderr)

    @property
    def alive(self) -> bool:
        return self._owned.process.poll() is None

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, at least one byte unless `timeout_s` ends first (then empty).

        Raises:
            ChannelEnded: nothing can arrive any more.
        """
        ready, _, _ = select.select([self._stdout], [], [], max(timeout_s, 0.0))
        if not ready:
            return b""
        try:
            data = os.read(self._stdout.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            raise ChannelEnded
        return data

    def write(self, data: bytes, timeout_s: float) -> None:
        """All of `data`.

        Raises:
            ChannelEnded: the remote program reads no more.
            ChannelStuck: not all was taken within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        left = memoryview(data)
        while left:
            _, ready, _ = select.select([], [self._stdin], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                raise ChannelStuck
            left = left[self._write_some(left) :]

    def complete(
        self,
        data: bytes = b"",
        *,
        silence_s: float,
        total_s: float,
        advanced: Callable[[int], None] | None = None,
    ) -> Completed:
        """Write `data`, close the remote program's input, and read until it ends.

        Args:
            silence_s: How long neither side may move a byte.
            total_s: How long all of it may take.
            advanced: Told how many bytes of `data` were taken.

        Raises:
            ChannelStuck: one of the two is over, or the output is longer than any that makes sense.
        """
        left = memoryview(data)
        said = bytearray()
        now = time.monotonic()
        deadline, moved = now + total_s, now
        open_input = True
        while True:
            if open_input and not left:
                self.close_input()
                open_input = False
            until = min(deadline, moved + silence_s)
            wait = until - time.monotonic()
            if wait <= 0 or len(said) > _MAX_STDOUT_BYTES:
                raise ChannelStuck
            ready, writable, _ = select.select([self._stdout], [self._stdin] if open_input else [], [], wait)
            if ready or writable:
                moved = time.monotonic()
            if writable:
                try:
                    left = left[self._write_some(left[:_CHUNK]) :]
                except ChannelEnded:
                    left = left[len(left) :]  # it reads no more; its exit code says why
                if advanced is not None:
                    advanced(len(data) - len(left))
            if ready:
                try:
                    said += self.read(0.0)
                except ChannelEnded:
                    return self.ended(bytes(said))

    def close_input(self) -> None:
        """The remote program reads the end of its input."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def ended(self, stdout: bytes = b"") -> Completed:
        """How a channel ended whose output has ended. A process that stays all the same is killed."""
        try:
            code = self._owned.process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            code = _KILLED
        self.close()
        return Completed(code, stdout, self._words.text())

    def close(self, goodbye_s: float = GOODBYE_S) -> None:
        """End the remote program by the end of its input, and the process in any case, with what it started
        (a jump host's ssh). Raises nothing.
        """
        self.close_input()
        try:
            self._owned.process.wait(max(goodbye_s, 0.0))
        except subprocess.TimeoutExpired:
            # it leads a process group of its own, which is there as long as nobody has waited for it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._owned.process.pid, signal.SIGKILL)
        self._owned.stop()
        self._words.join()

    def stderr(self) -> str:
        """What ssh and the remote program have said there so far; the first and the last of it."""
        return self._words.text()

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._stdin.fileno(), data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ValueError):  # ValueError: closed
            raise ChannelEnded from None


class _Words:
    """A process's stderr, drained until its end; the first and the last bytes of it are kept."""

    def __init__(self, pipe: IO[bytes]) -> None:
        # of the thread's own: a descriptor that another closes could be another file's when it is read
        self._descriptor = os.dup(pipe.fileno())
        self._first = b""
        self._last = b""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="ssh stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Waits a moment for what is still in the pipe: a process has ended before its words are read."""
        self._thread.join(GOODBYE_S / 4)
        with self._lock:
            return (self._first + self._last).decode(errors="replace")

    def join(self) -> None:
        self._thread.join(GOODBYE_S)

    def _drain(self) -> None:
        try:
            while data := os.read(self._descriptor, _CHUNK):
                with self._lock:
                    room = _KEPT_STDERR_BYTES - len(self._first)
                    self._first += data[:room]
                    self._last = (self._last + data[room:])[-_KEPT_STDERR_BYTES:]
        except OSError:
            pass
        finally:
            os.close(self._descriptor)
