"""An OpenSSH server of edgekit's own: on 127.0.0.1, for the user that runs edgekit, while that process lives.

What stays of a board (its keys and its home) is in the board's folder. What belongs to one use of it (the
configurations, the log) is in a session's folder with a short plain name, which also holds a link to the
board's folder, so that no path of the user's has to be quoted in sshd's or ssh's configuration.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.device import board_keeper
from edgekit.errors import DeviceError, MissingToolError
from edgekit.fsutil import atomic_write
from edgekit.text import printable

__all__ = ["OpenSsh", "Session", "account", "find_openssh", "make_keys", "new_session", "serve"]

_PREFIX: Final = "edgekit-board-"
_PLAIN: Final = re.compile(r"/[A-Za-z0-9._/+-]{1,39}")
"""A folder for sessions: nothing to quote, and short enough for a socket's path below it."""
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}")
_SFTP_SERVERS: Final = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
)
_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where sshd is; an ordinary user's PATH often leaves them out."""
_ROOTS_FOLDER: Final = Path("/run/sshd")
_KEYGEN_S: Final = 30.0
_STOP_S: Final = 8.0
_LOG_SHOWN: Final = 600


@dataclass(frozen=True, slots=True)
class OpenSsh:
    """The programs."""

    sshd: Path
    ssh: Path
    keygen: Path


@dataclass(frozen=True, slots=True)
class Session:
    """One use of a board: `folder` has plain characters only. `board` is the link to the board's own folder.

    `alive` is a locked file: while it is locked, nobody sweeps the folder away.
    """

    folder: Path
    alive: int

    @property
    def board(self) -> Path:
        return self.folder / "board"

    @property
    def client_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def log(self) -> Path:
        return self.folder / "sshd.log"

    def last_words(self) -> str:
        """The end of sshd's log, fit to print."""
        with contextlib.suppress(OSError):
            words = " ".join(self.log.read_text("utf-8", "replace").split())[-_LOG_SHOWN:]
            return printable(words, _LOG_SHOWN)
        return ""


def find_openssh(missing: list[str]) -> OpenSsh | None:
    """OpenSSH's programs, or None and the names of the packages in `missing`."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    sshd = shutil.which("sshd", path=path)
    ssh, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if sshd is None:
        missing.append("openssh-server")
    if ssh is None or keygen is None:
        missing.append("openssh-client")
    if sshd is None or ssh is None or keygen is None:
        return None
    # sshd starts itself again and refuses to be started by a relative name.
    return OpenSsh(Path(sshd).absolute(), Path(ssh).absolute(), Path(keygen).absolute())


def account() -> str:
    """The user that runs edgekit, who is also the board's.

    Raises:
        DeviceError: there is no such account, or its name cannot be written into a configuration.
    """
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise DeviceError(
            f"user id {os.geteuid()} has no account here, and ssh logs in to an account",
            hint="run edgekit as a user that /etc/passwd lists",
        ) from None
    if not _ACCOUNT.fullmatch(name):
        raise DeviceError(f"the account's name {printable(name)!r} cannot stand in ssh's configuration")
    return name


def make_keys(openssh: OpenSsh, folder: Path, alias: str) -> None:
    """Host key, user key, authorized_keys and known_hosts of a board, where they are not there yet."""
    for name in ("host_key", "user_key"):
        if not (folder / name).is_file() or not (folder / f"{name}.pub").is_file():
            _make_key(openssh.keygen, folder, name)
            # What names the old key goes with it.
            (folder / ("known_hosts" if name == "host_key" else "authorized_keys")).unlink(missing_ok=True)
    if not (folder / "known_hosts").exists():
        atomic_write(folder / "known_hosts", f"{alias} ".encode() + _public(folder / "host_key.pub"))
    if not (folder / "authorized_keys").exists():
        atomic_write(folder / "authorized_keys", _public(folder / "user_key.pub"))


@contextmanager
def new_session(board: Path) -> Iterator[Session]:
    """A session's folder with the link `board`. It is removed at the end, and what a killed
    edgekit left behind is removed too.
    """
    place = _place_for_sessions()
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    alive = os.open(folder / ".alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / ".alive").rename(folder / "alive")  # from now on a sweep may look whether it is locked
        (folder / "board").symlink_to(board, target_is_directory=True)
        yield Session(folder, alive)
    finally:
        os.close(alive)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serve(openssh: OpenSsh, session: Session, *, alias: str, user: str, login: str) -> Iterator[None]:
    """The server, for as long as the context lasts. `login` is the command that runs in place of every other.

    A client finds the way with `ssh -F` and `session.client_config`, under the name `alias`.
    """
    if os.geteuid() == 0:
        # sshd gives up its rights into this folder; a container has none until a service manager makes it.
        with contextlib.suppress(OSError):
            _ROOTS_FOLDER.mkdir(mode=0o755, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server, session.log.open("ab") as log:
        port = server.getsockname()[1]
        _write(session.folder / "sshd_config", _server_config(session, user, login))
        _write(session.client_config, _client_config(session, alias, user, port))
        argv = [
            *(sys.executable, "-I", "-S", board_keeper.__file__),
            *(str(os.getpid()), str(server.fileno()), str(session.folder)),
            *(str(openssh.sshd), "-i", "-f", str(session.folder / "sshd_config")),
        ]
        keeper = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            pass_fds=(server.fileno(), session.alive),
            start_new_session=True,
        )
    try:
        yield
    finally:
        _stop(keeper)


def _stop(keeper: subprocess.Popen[bytes]) -> None:
    """The end of its input is the keeper's sign to end all and itself."""
    assert keeper.stdin is not None
    keeper.stdin.close()
    try:
        keeper.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait(_STOP_S)


def _place_for_sessions() -> Path:
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if _PLAIN.fullmatch(place) and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise DeviceError(
        "there is no folder for temporary files with a short plain name", hint="export TMPDIR=/tmp"
    )


def _sweep(place: Path) -> None:
    """Removes sessions of this user whose processes are all gone."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            alive = os.open(folder / "alive", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(alive)


def _make_key(keygen: Path, folder: Path, name: str) -> None:
    for old in (folder / name, folder / f"{name}.pub"):
        old.unlink(missing_ok=True)
    argv = [str(keygen), "-q", "-t", "ed25519", "-N", "", "-C", f"edgekit {name}", "-f", name]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            timeout=_KEYGEN_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"ssh-keygen did not end in {_KEYGEN_S:.0f} s") from None
    if done.returncode != 0:
        raise MissingToolError(
            f"ssh-keygen made no key: {printable(' '.join(done.stdout.split()))}",
            hint="sudo apt-get install --reinstall openssh-client",
        )


def _public(path: Path) -> bytes:
    """`type key` of a public key's file, without the comment, as a line."""
    return b" ".join(path.read_bytes().split()[:2]) + b"\n"


def _write(path: Path, lines: list[str]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _server_config(session: Session, user: str, login: str) -> list[str]:
    sftp = next((path for path in _SFTP_SERVERS if os.access(path, os.X_OK)), None)
    return [
        f"HostKey {session.board}/host_key",
        f"AuthorizedKeysFile {session.board}/authorized_keys",
        f"AllowUsers {user}",
        "AuthenticationMethods publickey",
        "PubkeyAuthentication yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "HostbasedAuthentication no",
        "PermitRootLogin prohibit-password",
        "UsePAM no",
        "StrictModes no",
        "PidFile none",
        "DisableForwarding yes",  # TCP, X11, the agent and sockets
        "AllowTcpForwarding no",
        "AllowAgentForwarding no",
        "AllowStreamLocalForwarding no",
        "X11Forwarding no",
        "PermitTunnel no",
        "PermitUserEnvironment no",
        "PermitUserRC no",
        "PrintMotd no",
        "PrintLastLog no",
        "UseDNS no",
        "LoginGraceTime 30",
        "ClientAliveInterval 15",
        "ClientAliveCountMax 4",
        "MaxSessions 64",
        "LogLevel INFO",
        # sshd starts the login command with the user's own shell. It is to read the start-up files of the
        # board's home, not the user's; bash reads .bashrc in a shell of level 1 that sshd has started.
        f"SetEnv HOME={session.board}/home SHLVL=1",
        f"ForceCommand {login}",
        *([] if sftp is None else [f"Subsystem sftp {sftp}"]),
    ]


def _client_config(session: Session, alias: str, user: str, port: int) -> list[str]:
    return [
        f"Host {alias}",
        "HostName 127.0.0.1",
        f"Port {port}",
        f"User {user}",
        f"HostKeyAlias {alias}",
        f"IdentityFile {session.board}/user_key",
        "IdentitiesOnly yes",
        "IdentityAgent none",
        "PreferredAuthentications publickey",
        f"UserKnownHostsFile {session.board}/known_hosts",
        "GlobalKnownHostsFile none",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "CheckHostIP no",
        "BatchMode yes",
    ]
