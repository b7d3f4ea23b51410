"""The versions that are installed on a board, as the runner's `status` tells them; going back to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.failures import CANNOT_EXECUTE, NOT_FOUND, NOTHING_THERE, runner_error
from edgekit.device.ssh.hold import held
from edgekit.device.ssh.remote import (
    check_app,
    current_program,
    list_apps_command,
    rollback_command,
    status_command,
)
from edgekit.errors import DeviceError
from edgekit.text import printable

__all__ = ["InstalledVersion", "installed_versions", "parse_status", "roll_back"]

_APP: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_LINE: Final = re.compile(
    r"([a-z0-9][a-z0-9_-]{0,63}) ([0-9a-f]{16}) (current|kept) ([0-9]{1,15}) ([0-9]{1,12})"
)
_CURRENT: Final = re.compile(r"^current ([0-9a-f]{16})$", re.MULTILINE)
_MOST_APPS: Final = 200
_MOST_VERSIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """One version of a deployed model. `installed_at` is by the board's clock, in seconds since 1970."""

    app: str
    version: str
    """The first 16 hex digits of the runner's SHA-256."""
    current: bool
    size_bytes: int
    installed_at: int


def parse_status(text: str) -> tuple[InstalledVersion, ...]:
    """The lines of `status`. What a login shell says before them has another form and is passed over."""
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return tuple(
        InstalledVersion(match[1], match[2], match[3] == "current", int(match[4]), int(match[5]))
        for match in found
        if match is not None
    )[:_MOST_VERSIONS]


def installed_versions(connection: SshConnection) -> tuple[InstalledVersion, ...]:
    """All versions of all models on the board; none where edgekit never deployed to it.

    Any installed runner knows of all models, so the first that runs is asked.
    """
    doing = "listing what is installed"
    listed = connection.run(list_apps_command(), doing)
    apps = [name for name in listed.stdout.decode(errors="replace").split("\n") if _APP.fullmatch(name)]
    for app in apps[:_MOST_APPS]:
        if app == "lock":
            continue
        ended = connection.run(status_command(current_program(app)), doing)
        if ended.code == 0:
            return parse_status(ended.stdout.decode(errors="replace"))
        if ended.code not in (NOT_FOUND, CANNOT_EXECUTE):
            raise runner_error(connection.host, doing, ended)
    return ()


def roll_back(connection: SshConnection, app: str) -> str:
    """Make the version current that was so before, and return its hash. Nobody may be deploying meanwhile.

    Raises:
        DeviceError: there is none, somebody else holds the board, or it can't be reached.
    """
    program = current_program(check_app(app))
    doing = f"rolling {app} back"
    with held(connection, program, doing):
        ended = connection.run(rollback_command(program, app), doing)
    if ended.code == NOTHING_THERE:
        words = printable(ended.stderr.strip().splitlines()[-1] if ended.stderr.strip() else "")
        raise DeviceError(
            f"{connection.host.destination}: {app} can't be rolled back: "
            f"{words or 'no version was current before'}",
            hint="edgekit status shows what is installed",
        )
    found = _CURRENT.search(ended.stdout.decode(errors="replace"))
    if ended.code != 0 or found is None:
        raise runner_error(connection.host, doing, ended)
    return found[1]
