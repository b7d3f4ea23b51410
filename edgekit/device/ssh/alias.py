"""Does ssh's own configuration know a host by some name?"""

from __future__ import annotations

import re
import secrets
import subprocess
from typing import Final

from edgekit.device.ssh.argv import PROGRAM, config_argv
from edgekit.device.ssh.host import SshHost
from edgekit.errors import DeviceError, MissingToolError

__all__ = ["is_configured", "says_something_of"]

_TIMEOUT_S: Final = 15.0


def is_configured(name: str) -> bool:
    """True when the configuration says something of `name` that it does not say of any other host: a Host
    block for it, with or without a HostName.

    Raises:
        MissingToolError: ssh is not installed.
        DeviceError: it can't read its configuration.
    """
    nobody = f"edgekit-{secrets.token_hex(8)}"
    return says_something_of(name, _settings(name), nobody, _settings(nobody))


def says_something_of(name: str, settings: str, other_name: str, other_settings: str) -> bool:
    """Compare what `ssh -G` printed for two names, the names themselves apart."""
    return _without(name, settings) != _without(other_name, other_settings)


def _without(name: str, settings: str) -> list[str]:
    itself = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    return [
        itself.sub("*", line) if line.startswith(("host ", "hostname ")) else line
        for line in settings.splitlines()
    ]


def _settings(name: str) -> str:
    host = SshHost(name)
    try:
        done = subprocess.run(
            config_argv(host),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingToolError(
            f"{PROGRAM} is not installed; it reaches the board",
            hint="sudo apt-get install -y openssh-client",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"ssh has been reading its configuration for {_TIMEOUT_S:.0f} s", hint=f"ssh -v -G {name}"
        ) from error
    if done.returncode != 0:
        raise DeviceError("ssh can't read its configuration", hint=f"ssh -G {name}")
    return done.stdout.decode(errors="replace")
