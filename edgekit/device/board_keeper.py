"""Keeps an emulated board: takes connections, gives each one an sshd, and leaves nothing behind.

A program of its own, run by path with `python -I -S` and nothing but the standard library. It ends when its
standard input closes, which happens in whatever way edgekit dies, or when edgekit is no longer its parent.
Then every process that came of a connection is killed, also one that has detached itself: as a subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER) it is handed all of them. At last it removes the session's folder.

    board_keeper.py PARENT LISTENER FOLDER SSHD ARGUMENT…

PARENT is edgekit's process id, LISTENER the number of an inherited listening socket.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from ctypes import CDLL
from typing import Final

__all__ = ["main"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_MOST_CONNECTIONS: Final = 64
_LOOK_MS: Final = 500
_END_S: Final = 5.0


def main(arguments: list[str]) -> int:
    """Serves until edgekit is gone."""
    parent, listener, folder, sshd = int(arguments[0]), int(arguments[1]), arguments[2], arguments[3:]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        with socket.socket(fileno=listener) as server, open(f"{folder}/sshd.log", "ab") as log:  # noqa: PTH123
            server.setblocking(False)
            _serve(server, parent, [*sshd, "-E", f"{folder}/sshd.log"], log.fileno())
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _serve(server: socket.socket, parent: int, sshd: list[str], log: int) -> None:
    waiting = select.poll()
    waiting.register(server, select.POLLIN)
    waiting.register(0, select.POLLIN | select.POLLHUP)
    running: set[int] = set()
    while os.getppid() == parent:
        ready = {number for number, _ in waiting.poll(_LOOK_MS)}
        running -= _ended()
        if 0 in ready and not os.read(0, 64):
            return
        if server.fileno() in ready:
            with contextlib.suppress(OSError):  # a client that has gone again
                connection, _ = server.accept()
                with connection:
                    if len(running) < _MOST_CONNECTIONS:
                        running.add(_start(sshd, connection, log))


def _start(sshd: list[str], connection: socket.socket, log: int) -> int:
    """The process of an sshd for one connection, started as inetd would (sshd(8), -i)."""
    stream = connection.fileno()
    process = subprocess.Popen(
        sshd, stdin=stream, stdout=stream, stderr=log, close_fds=True, preexec_fn=_die_with_us()
    )
    process.returncode = 0  # `_ended` reaps it, with those that nobody else waits for
    return process.pid


def _die_with_us() -> Callable[[], None]:
    prctl = CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _ended() -> set[int]:
    """Reaps the children that have ended."""
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while process := os.waitpid(-1, os.WNOHANG)[0]:
            ended.add(process)
    return ended


def _end_all() -> None:
    """Kills every process below this one. Orphans come to this one, so it looks again until none is left."""
    deadline = time.monotonic() + _END_S
    while time.monotonic() < deadline:
        for process in _descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _descendants(top: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # proc(5): "pid (name) state parent …"; the name may have brackets and blanks in it
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    unseen = [top]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
