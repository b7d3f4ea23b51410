"""Child processes that never outlive this one."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final

__all__ = ["OwnedProcess"]

_PR_SET_PDEATHSIG: Final = 1
_STOP_S: Final = 2.0

_alive: set[OwnedProcess] = set()
_alive_lock = threading.Lock()


class OwnedProcess:
    """A process that is killed by `stop`, when this interpreter exits, and, on Linux, when this process dies
    in whatever way (prctl(2), PR_SET_PDEATHSIG).

    It has a session of its own, so that Ctrl-C reaches the parent only, which then stops it in order. The
    kernel ties the death signal to the *thread* that starts the process: start it from one that lives as
    long as the process is needed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: int,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = tuple(argv)
        self.process = subprocess.Popen(
            self.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        with _alive_lock:
            _alive.add(self)

    def stop(self) -> None:
        """Kill and reap. May be called more than once."""
        with _alive_lock:
            _alive.discard(self)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _die_with(parent: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the fork: the child of a threaded process must not take locks.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return die_with_parent


@atexit.register
def _stop_all() -> None:
    with _alive_lock:
        left = tuple(_alive)
    for process in left:
        process.stop()
