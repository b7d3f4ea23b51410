"""Emulated Linux boards: a real sshd on this machine, whose programs run under QEMU.

To a client they are boards like any other: an ssh destination and a configuration (`ssh -F`) that says where
it is, who logs in and which host key it has. The home folder stays between uses, so that what was deployed is
there for the next command; several edgekit processes may use one board at once, each through an sshd of its
own.

Nothing is a sandbox here: the board is this machine, and its user is the one who runs edgekit.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgekit.device import board_shell
from edgekit.device.board_shell import BoardShell
from edgekit.device.qemu_user import MACHINES, PACKAGE, find_qemu, tick_plugin
from edgekit.device.ssh.host import SshHost
from edgekit.device.sshd import OpenSsh, Session, account, find_openssh, make_keys, new_session, serve
from edgekit.errors import DeviceError, MissingToolError, TargetError, UsageError
from edgekit.fsutil import atomic_write, cache_folder
from edgekit.target import UserEmulator
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["board_folder", "emulated_board", "tick_problem"]

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
_CPU: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_LOGIN_S: Final = 30.0


def board_folder(target: Target) -> Path:
    """Where an emulated board's home and keys stay: `boards/<target>` in edgekit's cache folder."""
    _emulator(target)
    return cache_folder() / "boards" / target.name


def tick_problem(target: Target) -> str | None:
    """Why the instructions of this emulated board cannot be counted; None when they can."""
    emulator = _emulator(target)
    qemu = find_qemu(emulator.user)
    if qemu is None:
        return f"qemu-{emulator.user} is not installed"
    return _ticks(emulator, qemu)[1]


@contextmanager
def emulated_board(target: Target, *, banner: str = "", root: Path | None = None) -> Iterator[SshHost]:
    """The board, reachable for as long as the context lasts.

    Args:
        banner: Printed before each command's own output, as a board's login scripts may do.
        root: A folder laid over the board's root for what its programs read (`qemu -L`), such as a `/sys`
            that says what a test wants.

    Raises:
        TargetError: the target is not an emulated Linux board.
        MissingToolError: OpenSSH's server or client, or QEMU, is not installed.
        DeviceError: nobody can log in; the message has sshd's own words.
    """
    emulator = _emulator(target)
    missing: list[str] = []
    openssh, qemu = find_openssh(missing), find_qemu(emulator.user)
    if openssh is None or qemu is None:
        packages = [*missing, *([] if qemu is not None else [PACKAGE])]
        raise MissingToolError(
            f"{target.name} is emulated with programs that are not installed ({', '.join(packages)})",
            hint=f"sudo apt-get install -y {' '.join(packages)}",
        )
    user = account()
    folder = _prepared(target, openssh)
    plugin, _ = _ticks(emulator, qemu)
    machine = MACHINES[emulator.user]
    with new_session(folder) as session:
        (session.folder / "ticks").mkdir(mode=0o700)
        argv = [str(qemu), "-cpu", emulator.cpu]
        if root is not None:
            argv += ["-L", str(root.absolute())]
        if plugin is not None:
            (session.folder / "tick.so").symlink_to(plugin)
            argv += ["-plugin", f"file={session.folder}/tick.so"]
        shell = BoardShell(
            home=str(folder / "home"),
            user=user,
            programs=str(session.folder / "programs"),
            emulator=argv,
            e_machine=machine.e_machine,
            bits=machine.bits,
            ticks="" if plugin is None else str(session.folder / "ticks"),
            banner=banner,
        )
        login = _login(session, shell)
        _add_programs(session, machine.uname, machine.bits)
        with serve(openssh, session, alias=target.name, user=user, login=login):
            host = SshHost(target.name, session.client_config)
            if not (folder / "login-works").exists():
                _try_login(openssh, session, host)
                atomic_write(folder / "login-works", b"")
            yield host


def _emulator(target: Target) -> UserEmulator:
    """The target's emulator, its words checked again: a target may be made without its schema."""
    emulator = target.emulator
    if not isinstance(emulator, UserEmulator):
        raise TargetError(f"target {printable(target.name)} is no emulated linux board")
    if not _NAME.fullmatch(target.name):
        raise TargetError(f"{printable(target.name)} is no name of a board")
    if emulator.user not in MACHINES or not _CPU.fullmatch(emulator.cpu):
        raise TargetError(f"QEMU plays no {printable(emulator.user)} with a {printable(emulator.cpu)}")
    return emulator


def _ticks(emulator: UserEmulator, qemu: Path) -> tuple[Path | None, str | None]:
    """The counting plugin, or why there is none."""
    try:
        return tick_plugin(emulator.user, qemu, cache_folder() / "plugins"), None
    except (DeviceError, MissingToolError, UsageError) as error:
        return None, error.message if error.hint is None else f"{error.message} ({error.hint})"
    except OSError as error:
        return None, f"the plugin that counts instructions cannot be kept: {error.strerror}"


def _prepared(target: Target, openssh: OpenSsh) -> Path:
    """The board's folder with a home and keys in it. One process at a time makes them."""
    folder = board_folder(target)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "home").mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held for the milliseconds of ssh-keygen, which has a timeout
            make_keys(openssh, folder, target.name)
        finally:
            os.close(lock)
    except OSError as error:
        raise DeviceError(
            f"{printable(str(folder))}: {error.strerror}",
            hint="export EDGEKIT_HOME=FOLDER, one you can write to",
        ) from None
    return folder


def _login(session: Session, shell: BoardShell) -> str:
    """The line for the user's shell, of plain words only."""
    settings = session.folder / "board.json"
    settings.write_text(json.dumps(asdict(shell)), encoding="utf-8")
    python, script = session.folder / "python", session.folder / "shell.py"
    python.symlink_to(Path(sys.executable).absolute())
    script.symlink_to(Path(board_shell.__file__).absolute())
    return f"exec {python} -I -S {script} {settings}"


def _add_programs(session: Session, uname: str, bits: int) -> None:
    """The two programs of this machine that would tell of it where a client asks for the board."""
    folder = session.folder / "programs"
    folder.mkdir(mode=0o700)
    for name, question, answer in (
        ("uname", "-m|--machine|-p|-i", uname),
        ("getconf", "LONG_BIT", str(bits)),
    ):
        real = shutil.which(name, path="/usr/bin:/bin") or f"/usr/bin/{name}"
        script = folder / name
        script.write_text(
            "#!/bin/sh\n"
            f'case "$*" in\n{question}) echo {answer} ;;\n*) exec {shlex.quote(real)} "$@" ;;\nesac\n'
        )
        script.chmod(0o700)


def _try_login(openssh: OpenSsh, session: Session, host: SshHost) -> None:
    """Once for a board: what could keep its user out does not change from one use to the next."""
    argv = [str(openssh.ssh), "-T", "-n", "-F", str(host.config), "--", host.destination, "true"]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_LOGIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{host.destination}: its sshd did not answer in {_LOGIN_S:.0f} s") from None
    if done.returncode != 0:
        said = printable(" ".join(done.stderr.decode(errors="replace").split()), 400)
        raise DeviceError(
            f"{host.destination}: nobody can log in: {said}; its sshd says: {session.last_words()}",
            hint="an account needs a login shell, and root's must not be locked; "
            "run edgekit as an ordinary user, or `sudo usermod -p '*' root`",
        )
