"""The login of an emulated board: what sshd runs, in place of the user's shell, for every command.

A program of its own, run by path with `python -I -S` and nothing but the standard library, because it starts
for each command. Its one argument is a JSON file with `BoardShell`'s fields.

A command that starts an executable of the board's machine runs it under QEMU. Everything else is given to
`/bin/sh -c` as sshd would give it: the command is the remote user's own, who has this user's rights anyway.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import stat
import sys
from dataclasses import dataclass
from typing import Final, NoReturn

__all__ = ["BoardShell", "Command", "main", "parse"]

_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_KEPT: Final = re.compile(r"SSH_(CLIENT|CONNECTION|ORIGINAL_COMMAND|TTY)|TERM")
_TICK_BYTES: Final = 4096
"""A whole page: both QEMU and the program map the file."""

# A word of plain characters and quoted parts, in which no shell would find more than text.
_TEXT: Final = r"""[A-Za-z0-9_@%+=:,./-]|'[^'\n]*'|"[^"$`\\!\n]*\""""
_WORD: Final = re.compile(rf"[ \t]*(~/(?:{_TEXT})*|(?:{_TEXT})+)(?![^ \t])")
_PART: Final = re.compile(r"""'([^']*)'|"([^"]*)"|([^'"]+)""")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_FORWARDED: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_PR_SET_PDEATHSIG: Final = 1
_LOOK_S: Final = 1.0


@dataclass(frozen=True)
class BoardShell:
    """Paths are absolute. `ticks` is the folder for the counters of running programs, empty without a plugin.
    `e_machine` and `bits` are what an ELF file of the board says (System V ABI, ELF header).
    """

    home: str
    user: str
    programs: str
    emulator: list[str]
    e_machine: int
    bits: int
    ticks: str
    banner: str


@dataclass(frozen=True)
class Command:
    """Words as a shell would hand them to a program, and the variables set for it alone."""

    words: list[str]
    variables: dict[str, str]


def parse(command: str, home: str) -> Command | None:
    """The words of a command that starts one program, or None for what only a shell understands."""
    words: list[str] = []
    variables: dict[str, str] = {}
    rest = command.strip(" \t")
    while rest:
        found = _WORD.match(rest)
        if found is None:
            return None
        rest, raw = rest[found.end() :], found[1]
        word = home + _unquoted(raw[1:]) if raw.startswith("~/") else _unquoted(raw)
        if not words and _ASSIGNMENT.match(raw):
            name, _, value = word.partition("=")
            variables[name] = value
        else:
            words.append(word)
    if words[:1] == ["exec"]:
        del words[0]
    if not words or "/" not in words[0]:
        return None
    return Command([os.path.join(home, words[0]), *words[1:]], variables)  # noqa: PTH118 - a shell's rule


def main(arguments: list[str]) -> int:
    """Runs the command that sshd names in SSH_ORIGINAL_COMMAND; its status, as a shell would give it."""
    with open(arguments[0], encoding="utf-8") as file:  # noqa: PTH123 - pathlib would double the start-up time
        shell = BoardShell(**json.load(file))
    original = os.environ.get("SSH_ORIGINAL_COMMAND")
    environment = _environment(shell)
    os.chdir(shell.home)
    if shell.banner:
        os.write(1, shell.banner.encode("latin-1"))
    if original is None:
        os.execve("/bin/sh", ["-sh"], environment)
    command = parse(original, shell.home)
    if command is None or not _runs_here(command.words[0], shell):
        os.execve("/bin/sh", ["sh", "-c", original], environment)
    environment.update(command.variables)
    argv = [*shell.emulator, *command.words]
    if not shell.ticks:
        os.execve(argv[0], argv, environment)
    return _run_counted(argv, environment, shell.ticks)


def _unquoted(raw: str) -> str:
    return "".join(single or double or plain for single, double, plain in _PART.findall(raw))


def _environment(shell: BoardShell) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    return kept | {
        "HOME": shell.home,
        "USER": shell.user,
        "LOGNAME": shell.user,
        "SHELL": "/bin/sh",
        "PATH": f"{shell.programs}:{_PATH}",
    }


def _runs_here(path: str, shell: BoardShell) -> bool:
    """Whether `path` is an executable of the board's machine; if not, sh says what is wrong with it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode) or not os.access(path, os.X_OK):
            return False
        header = os.read(file, 20)
    finally:
        os.close(file)
    return (
        header[:4] == b"\x7fELF"
        and header[4:6] == bytes((shell.bits // 32, 1))  # 32 or 64 bits, little-endian
        and int.from_bytes(header[18:20], "little") == shell.e_machine
    )


def _run_counted(argv: list[str], environment: dict[str, str], folder: str) -> int:
    """Runs the program with a tick file of its own, which is gone afterwards. Its status becomes ours."""
    ticks = f"{folder}/{os.getpid()}"
    os.close(_new_file(ticks))
    environment["EDGEKIT_TICK_FILE"] = ticks
    try:
        status = _run(argv, environment, folder)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(ticks)  # noqa: PTH108
    if os.WIFSIGNALED(status):
        _die_of(os.WTERMSIG(status))
    return os.WEXITSTATUS(status)


def _new_file(path: str) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.ftruncate(file, _TICK_BYTES)
    return file


def _run(argv: list[str], environment: dict[str, str], session: str) -> int:
    """The wait status of a child that has this process's streams, gets its signals and dies with it.

    The child is killed when the folder `session` is gone: then the board has ended, and what should have
    ended this process was killed itself.
    """
    from ctypes import CDLL

    prctl = CDLL(None).prctl
    parent = os.getpid()
    waited_for = (signal.SIGCHLD, *_FORWARDED)
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    child = os.fork()
    if child == 0:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for)
        if os.getppid() == parent:
            os.execve(argv[0], argv, environment)
        os._exit(127)
    # The program alone holds the streams, so that what it closes is closed.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    while True:
        happened = signal.sigtimedwait(waited_for, _LOOK_S)
        if happened is None and not os.path.isdir(session):  # noqa: PTH112
            os.kill(child, signal.SIGKILL)
        elif happened is not None and happened.si_signo != signal.SIGCHLD:
            os.kill(child, happened.si_signo)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status


def _die_of(number: int) -> NoReturn:
    """Ends as the program ended, so that sshd tells its client the signal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
