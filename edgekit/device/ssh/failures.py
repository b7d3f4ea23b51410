"""What ssh and the runner say when something goes wrong, as errors with the command that mends it.

ssh ends with 255 for reasons of its own; every other exit code is the remote program's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final

from edgekit.device.ssh.channel import Completed
from edgekit.device.ssh.host import SshHost
from edgekit.errors import DeviceError, EdgekitError, VerificationError
from edgekit.text import printable

__all__ = [
    "SSH_FAILED",
    "NotInstalledError",
    "accept_command",
    "busy_error",
    "connection_error",
    "runner_error",
    "silence_error",
]

SSH_FAILED: Final = 255

USAGE: Final = 64
HASH_MISMATCH: Final = 65
NOTHING_THERE: Final = 66
CANNOT_CREATE: Final = 73
IO_ERROR: Final = 74
BUSY: Final = 75
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127

_SHOWN: Final = 300
_KNOWN_NAME: Final = re.compile(r"Host key for (\[?[A-Za-z0-9._:-]+\]?(?::\d+)?) has changed")
_KNOWN_FILE: Final = re.compile(r"Offending \S+ key in (\S.*):\d+")
# what ssh says on every connection and what is no reason of a failure
_NOISE: Final = re.compile(r"Warning: Permanently added |\*\* |@{10}|Pseudo-terminal ")


class NotInstalledError(DeviceError):
    """The program is not on the board."""


def connection_error(host: SshHost, doing: str, ended: Completed) -> EdgekitError:
    """The connection to `host` failed or broke while edgekit was `doing` something: exit 6."""
    said = ended.stderr
    for pattern, describe in _REASONS:
        if pattern.search(said):
            return describe(host, doing, said)
    return _gone(host, doing, said)


def runner_error(host: SshHost, doing: str, ended: Completed, free_bytes: int | None = None) -> EdgekitError:
    """A remote program ended with an exit code of its own.

    Args:
        free_bytes: Free space of the board, where it could be asked.
    """
    where, words = f"{host.destination}: {doing}", _quoted(ended.stderr)
    if ended.code == BUSY:
        return busy_error(host, ended.stdout.decode(errors="replace"))
    if ended.code == HASH_MISMATCH:
        return VerificationError(
            f"{where}: the file on the board is not the one that was sent{words}",
            hint="run the command again; if it happens twice, check the board's SD card",
        )
    if ended.code in (CANNOT_CREATE, IO_ERROR) or "No space left" in ended.stderr:
        room = "" if free_bytes is None else f"; {free_bytes:,} B are free there"
        return VerificationError(
            f"{where}: the board could not write it{words}{room}",
            hint=f"make room on the board; see {_command(host, 'df -h .')}",
        )
    if ended.code == NOTHING_THERE:
        return DeviceError(f"{where}: there is nothing to do it with{words}", hint="edgekit status")
    if ended.code == CANNOT_EXECUTE:
        return DeviceError(
            f"{where}: the board can't run the program{words}",
            hint="is it another kind of board than the target says? edgekit doctor --target TARGET",
        )
    if ended.code == NOT_FOUND:
        return NotInstalledError(
            f"{where}: it is not on the board{words}",
            hint="put it there: edgekit flash DIR, or edgekit deploy",
        )
    return DeviceError(f"{where}: the remote program ended with exit code {ended.code}{words}")


def busy_error(host: SshHost, line: str) -> DeviceError:
    """Somebody else deploys to the board; `line` is what the runner said of the holder."""
    found = re.search(r"^busy ?(.*)$", line, re.MULTILINE)
    holder = found[1].strip() if found else ""
    by = f"by {printable(holder)}" if holder else "by another deployment"
    return DeviceError(
        f"{host.destination} is held {by}",
        hint="wait until that deployment is over, then run the command again",
    )


def silence_error(host: SshHost, doing: str, seconds: float) -> DeviceError:
    return DeviceError(
        f"{host.destination} went silent for {seconds:.0f} s: {doing}",
        hint=f"is the board alive? {_command(host, 'true')}",
    )


def accept_command(host: SshHost) -> str:
    """Shows an unknown host key's fingerprint and asks whether to accept it."""
    return _command(host, "true", "-o", "StrictHostKeyChecking=ask")


def _command(host: SshHost, remote: str, *options: str) -> str:
    configuration = [] if host.config is None else ["-F", str(host.config)]
    return shlex.join(["ssh", *configuration, *options, host.destination, remote])


# --- reasons: each is one sentence and one command ------------------------------------------------------


def _unknown_key(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"the host key of {host.destination} is not known on this machine",
        hint=f"compare the fingerprint and accept it once: {accept_command(host)}",
    )


def _changed_key(host: SshHost, doing: str, said: str) -> DeviceError:
    name = found[1] if (found := _KNOWN_NAME.search(said)) else host.name
    file = ["-f", found[1]] if (found := _KNOWN_FILE.search(said)) else []
    forget = printable(shlex.join(["ssh-keygen", *file, "-R", name]), 500)
    return DeviceError(
        f"the host key of {host.destination} HAS CHANGED: the board was set up anew, or another machine "
        "answers in its place",
        hint=f"if you set the board up anew: {forget}; then accept the new key: {accept_command(host)}",
    )


def _revoked_key(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"the host key of {host.destination} is revoked on this machine{_quoted(said)}",
        hint="do not connect to it; ask whoever revoked the key",
    )


def _refused_login(host: SshHost, doing: str, said: str) -> DeviceError:
    ways = found[1] if (found := re.search(r"Permission denied \(([a-z0-9,.@-]+)\)", said)) else ""
    way = f" (it takes: {ways})" if ways else ""
    return DeviceError(
        f"{host.destination} refused the login: neither a key of yours nor one of the agent is accepted{way}",
        hint=f"put a key there: ssh-copy-id {host.destination}; a key with a passphrase must be in the "
        "agent: ssh-add",
    )


def _unknown_name(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"no machine is called {host.name}{_quoted(said)}",
        hint="is the board on, and in the same network? by its address: --board ssh:user@192.168.1.23",
    )


def _nobody_answers(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"{host.destination} did not answer in time{_quoted(said)}",
        hint=f"is the board on, and in the same network? ping {host.name}",
    )


def _no_server(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"{host.destination} refused the connection: no ssh server listens there{_quoted(said)}",
        hint="on a Raspberry Pi: sudo raspi-config nonint do_ssh 0; else: sudo systemctl enable --now ssh",
    )


def _no_route(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"there is no way to {host.destination}{_quoted(said)}",
        hint="is this machine in the board's network?",
    )


def _configuration(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"ssh can't use its configuration{_quoted(said)}",
        hint=shlex.join(
            ["ssh", *([] if host.config is None else ["-F", str(host.config)]), "-G", host.destination]
        ),
    )


def _gone(host: SshHost, doing: str, said: str) -> DeviceError:
    return DeviceError(
        f"the connection to {host.destination} was lost: {doing}{_quoted(said)}",
        hint=f"run the command again; to see more: {_command(host, 'true', '-v')}",
    )


_REASONS: Final[tuple[tuple[re.Pattern[str], Callable[[SshHost, str, str], DeviceError]], ...]] = (
    (re.compile(r"REVOKED HOST KEY|host key .* revoked", re.IGNORECASE), _revoked_key),
    # the key warnings end in the words of an unknown one, so they come first
    (re.compile(r"HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed"), _changed_key),
    (re.compile(r"Host key verification failed|host key is known for"), _unknown_key),
    (
        re.compile(r"Permission denied \(|Too many authentication failures|No more authentication"),
        _refused_login,
    ),
    (
        re.compile(r"Could not resolve hostname|Name or service not known|nodename nor servname"),
        _unknown_name,
    ),
    (re.compile(r"Bad configuration option|Bad owner or permissions|terminating, \d+ bad"), _configuration),
    (re.compile(r"Cannot execute command-line and remote command"), _configuration),
    (
        re.compile(r"connect to .*(timed out)|Connection timed out during|Operation timed out"),
        _nobody_answers,
    ),
    (re.compile(r"connect to .*Connection refused"), _no_server),
    (re.compile(r"No route to host|Network is unreachable"), _no_route),
)


def _quoted(said: str) -> str:
    """The last words of a program, in brackets; empty where it said nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _NOISE.match(line.strip())]
    return f" ({printable('; '.join(lines[-3:]), _SHOWN)})" if lines else ""
