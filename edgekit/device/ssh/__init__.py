"""Linux boards through the system's ssh: a shared connection, the runner's commands, versions, health."""

from __future__ import annotations

from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.host import SshHost, ssh_host

__all__ = ["SshConnection", "SshHost", "ssh_host"]
