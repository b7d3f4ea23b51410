"""A deployment to a Linux board, in its order:

upload → hold → install → (serve, verify, profile: the caller's) → keep → the lock is given back

Whatever fails before `keep` leaves the board's current version as it was.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgekit.device.ssh.channel import Completed
from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.failures import NOT_FOUND, runner_error
from edgekit.device.ssh.health import free_space
from edgekit.device.ssh.hold import Hold, held
from edgekit.device.ssh.remote import (
    Program,
    activate_command,
    check_app,
    incoming_program,
    install_command,
    installed_program,
    upload_command,
)
from edgekit.errors import DeviceError, EdgekitError, VerificationError
from edgekit.text import printable

__all__ = ["SshDeployment", "deployed", "version_of"]

_VERSION_CHARACTERS: Final = 16
_STALLED_S: Final = 30.0
_SLOWEST_UPLOAD_BYTES_PER_S: Final = 10_000
_DISK_S: Final = 180.0
"""What an SD card may take to put a few megabytes on itself for good."""


class SshDeployment:
    """An installed version that is not current yet, on a board that is held. See the module."""

    def __init__(self, connection: SshConnection, hold: Hold, app: str, version: str) -> None:
        self._connection = connection
        self._hold = hold
        self._app = app
        self.version = version

    def keep(self) -> None:
        """Make the version current.

        Raises:
            DeviceError: the connection or the lock was lost. Where it broke in the middle the board may have
                done it all the same: `edgekit status` says so.
            VerificationError: the board could not write.
        """
        doing = f"making version {self.version} of {self._app} current"
        self._hold.check(doing)
        program = installed_program(self._app, self.version)
        ended = self._connection.run(
            activate_command(program, self._app, self.version), doing, total_s=_DISK_S
        )
        _expect(self._connection, doing, ended, rf"current {self.version}")


@contextmanager
def deployed(connection: SshConnection, image: Path, app: str) -> Iterator[SshDeployment]:
    """Upload and install `image` as a version of `app`, and hold the board until the end of the context.

    Raises:
        DeviceError: the board can't be reached, can't run the image, or is held by somebody else.
        VerificationError: the transfer failed, or the board could not write.
    """
    check_app(app)
    try:
        data = image.read_bytes()
    except OSError as error:
        raise DeviceError(
            f"{printable(str(image))} can't be read: {error.strerror}", hint="compile it again"
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    version = sha256[:_VERSION_CHARACTERS]
    program = _upload(connection, app, data)
    with held(connection, program, "starting the uploaded program") as hold:
        doing = f"installing version {version} of {app}"
        ended = connection.run(
            install_command(program, app, sha256), doing, silence_s=_DISK_S, total_s=_DISK_S
        )
        _expect(connection, doing, ended, rf"installed {version}")
        yield SshDeployment(connection, hold, app, version)


def version_of(image: Path) -> str:
    """The version that `deployed` installs `image` as. Raises DeviceError when it can't be read."""
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()[:_VERSION_CHARACTERS]
    except OSError as error:
        raise DeviceError(
            f"{printable(str(image))} can't be read: {error.strerror}", hint="compile it again"
        ) from error


def _upload(connection: SshConnection, app: str, data: bytes) -> Program:
    token = secrets.token_hex(8)
    ended = connection.run(
        upload_command(app, token),
        "uploading",
        data=data,
        silence_s=_STALLED_S,
        total_s=_STALLED_S + len(data) / _SLOWEST_UPLOAD_BYTES_PER_S,
    )
    if ended.code != 0:
        raise _upload_error(connection, ended)
    return incoming_program(app, token)


def _upload_error(connection: SshConnection, ended: Completed) -> EdgekitError:
    """The exit codes are those of a shell and of cat, which say why on stderr only."""
    if ended.code == NOT_FOUND:
        return runner_error(connection.host, "uploading", ended)
    words = printable("; ".join(ended.stderr.strip().splitlines()[-2:]), 300) or f"exit code {ended.code}"
    room = _free(connection)
    free = "" if room is None else f"; {room:,} B are free there"
    return VerificationError(
        f"{connection.host.destination}: the upload failed: {words}{free}",
        hint="make room on the board, and see that its home folder can be written: edgekit doctor --target …",
    )


def _expect(connection: SshConnection, doing: str, ended: Completed, line: str) -> None:
    """The command ended well and said so in a line of its own."""
    if ended.code != 0:
        raise runner_error(connection.host, doing, ended, _free(connection))
    said = ended.stdout.decode(errors="replace")
    if not re.search(rf"^{line}$", said, re.MULTILINE):
        raise VerificationError(
            f"{connection.host.destination}: {doing}: the board answered with something else "
            f"({printable(said, 100)})"
        )


def _free(connection: SshConnection) -> int | None:
    try:
        return free_space(connection)
    except DeviceError:
        return None
