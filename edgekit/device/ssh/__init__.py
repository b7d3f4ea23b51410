"""Linux boards through the system's ssh: a shared connection, the runner's commands, versions, health."""

from __future__ import annotations

from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.facts import BoardFacts, board_facts
from edgekit.device.ssh.host import SshHost, ssh_host
from edgekit.device.ssh.reach import find_host, reached
from edgekit.device.ssh.remote import check_app
from edgekit.device.ssh.versions import InstalledVersion, installed_versions, roll_back

__all__ = [
    "BoardFacts",
    "InstalledVersion",
    "SshConnection",
    "SshHost",
    "board_facts",
    "check_app",
    "find_host",
    "installed_versions",
    "reached",
    "roll_back",
    "ssh_host",
]
