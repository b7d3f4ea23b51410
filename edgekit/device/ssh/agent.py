"""The agent of an installed version: a session with it, and what it says of the state of its board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.artifacts import Serving
from edgekit.device.client import Client, Timeouts
from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.failures import NotInstalledError
from edgekit.device.ssh.health import BoardHealth, health
from edgekit.device.ssh.remote import Program, current_program, installed_program, serve_command
from edgekit.device.transports.ssh import SshTransport

__all__ = ["health_of", "served"]


@contextmanager
def served(
    connection: SshConnection, app: str, version: str, serving: Serving, timeouts: Timeouts | None = None
) -> Iterator[Client]:
    """A connected client of the agent in `version` of `app`; where that is not installed, of the current one.
    The caller checks which model it has.

    Raises:
        DeviceError: neither is there, or the connection failed.
    """
    with _first_installed(connection, app, version, serving, timeouts) as client:
        yield client


def _first_installed(
    connection: SshConnection, app: str, version: str, serving: Serving, timeouts: Timeouts | None
) -> Client:
    try:
        return _started(connection, installed_program(app, version), serving, timeouts)
    except NotInstalledError:
        return _started(connection, current_program(app), serving, timeouts)


def _started(
    connection: SshConnection, program: Program, serving: Serving, timeouts: Timeouts | None
) -> Client:
    client = Client(SshTransport(connection, serve_command(program, serving)), timeouts=timeouts)
    try:
        client.connect()
    except BaseException:
        client.close()
        raise
    return client


def health_of(connection: SshConnection, app: str, version: str) -> BoardHealth:
    """From the runner that `served` starts."""
    try:
        return health(connection, installed_program(app, version))
    except NotInstalledError:
        return health(connection, current_program(app))
