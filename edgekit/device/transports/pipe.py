"""The stdin and stdout of a process: the agent built for this machine."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from edgekit.device.processes import OwnedProcess
from edgekit.device.transports.base import TransportClosedError
from edgekit.errors import DeviceError
from edgekit.text import printable

__all__ = ["PipeTransport"]

_CHUNK: Final = 65536
_STDERR_SHOWN: Final = 2000
_EXIT_S: Final = 2.0


class PipeTransport:
    """Starts `argv` and talks to it; `close` kills it. See `Transport`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._name = argv[0]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the transport
        try:
            self._owned = OwnedProcess(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr
            )
        except OSError as error:
            self._stderr.close()
            raise DeviceError(f"{printable(argv[0])} can't be started: {error.strerror}") from error
        assert self._owned.process.stdin is not None
        assert self._owned.process.stdout is not None
        self._stdin = self._owned.process.stdin.fileno()
        self._stdout = self._owned.process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)

    @property
    def name(self) -> str:
        return printable(self._name)

    def read(self, timeout_s: float) -> bytes:
        ready, _, _ = select.select([self._stdout], [], [], max(timeout_s, 0.0))
        if not ready:
            return b""
        data = os.read(self._stdout, _CHUNK)
        if not data:
            raise self._ended()
        return data

    def write(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        left = memoryview(data)
        while left:
            _, ready, _ = select.select([], [self._stdin], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                raise DeviceError(f"{self.name} has taken no bytes for {timeout_s:.0f} s")
            try:
                left = left[os.write(self._stdin, left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._ended() from None

    def close(self) -> None:
        self._owned.stop()
        self._stderr.close()

    def _ended(self) -> TransportClosedError:
        try:
            code = self._owned.process.wait(_EXIT_S)
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
        except subprocess.TimeoutExpired:
            how = "closed its output"
        self._stderr.seek(0)
        words = self._stderr.read(_STDERR_SHOWN).decode(errors="replace").strip()
        return TransportClosedError(
            f"{self.name} {how}" + (f": {printable(words, _STDERR_SHOWN)}" if words else "")
        )
