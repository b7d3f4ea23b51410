"""The command lines that run on the board, and what their words may be.

The login shell there reads them, so each word is checked against the exact form it must have: nothing that
came from outside can be more than a name in them.
"""

from __future__ import annotations

import re
from typing import Final, NewType

from edgekit.artifacts import Serving
from edgekit.errors import UsageError
from edgekit.text import printable

__all__ = [
    "MAX_THREADS",
    "Program",
    "activate_command",
    "check_app",
    "current_program",
    "free_space_command",
    "governor_command",
    "health_command",
    "hold_command",
    "incoming_program",
    "install_command",
    "installed_program",
    "list_apps_command",
    "long_bits_command",
    "machine_command",
    "rollback_command",
    "serve_command",
    "serve_words",
    "status_command",
    "upload_command",
]

Program = NewType("Program", str)
"""The path of a runner on the board, made by the functions here only."""

MAX_THREADS: Final = 256
_MAX_CORE: Final = 4095

_APP: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TOKEN: Final = re.compile(r"[a-z0-9]{8,32}")
_VERSION: Final = re.compile(r"[0-9a-f]{16}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_WHO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")

_HOME: Final = "~/.edgekit"


def check_app(app: str) -> str:
    """The name of a deployed model, as a folder of the board. Raises UsageError when it can't be one."""
    return _checked(_APP, app, "name of a deployed model", "letters a to z, digits, _ and -")


def incoming_program(app: str, token: str) -> Program:
    return Program(f"{_HOME}/{check_app(app)}/incoming/{_checked(_TOKEN, token, 'upload')}")


def installed_program(app: str, version: str) -> Program:
    return Program(f"{_HOME}/{check_app(app)}/{_checked(_VERSION, version, 'version')}/runner")


def current_program(app: str) -> Program:
    return Program(f"{_HOME}/{check_app(app)}/current/runner")


def upload_command(app: str, token: str) -> str:
    """Standard input becomes the file of `incoming_program`. The only command of several steps."""
    program = incoming_program(app, token)
    folder = program.rpartition("/")[0]
    return f"umask 077 && mkdir -p {folder} && cat > {program} && chmod 700 {program}"


def hold_command(program: Program, who: str) -> str:
    return f"{program} hold {_checked(_WHO, who, 'holder')}"


def install_command(program: Program, app: str, sha256: str) -> str:
    return f"{program} install {check_app(app)} {_checked(_SHA256, sha256, 'SHA-256')}"


def activate_command(program: Program, app: str, version: str) -> str:
    return f"{program} activate {check_app(app)} {_checked(_VERSION, version, 'version')}"


def rollback_command(program: Program, app: str) -> str:
    return f"{program} rollback {check_app(app)}"


def status_command(program: Program) -> str:
    return f"{program} status"


def health_command(program: Program) -> str:
    return f"{program} health"


def serve_command(program: Program, serving: Serving) -> str:
    return " ".join((program, *serve_words(serving)))


def serve_words(serving: Serving) -> tuple[str, ...]:
    """The runner's arguments that start the agent."""
    words = ["serve"]
    if serving.threads is not None:
        words += ["--threads", _number(serving.threads, 1, MAX_THREADS, "threads")]
    if serving.core is not None:
        words += ["--core", _number(serving.core, 0, _MAX_CORE, "core")]
    return tuple(words)


def list_apps_command() -> str:
    """A line for each deployed model, the lock among them."""
    return f"ls -1 {_HOME}"


def machine_command() -> str:
    return "uname -m"


def long_bits_command() -> str:
    return "getconf LONG_BIT"


def governor_command() -> str:
    return "cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"


def free_space_command() -> str:
    """Of the home folder's file system, in KiB (POSIX df)."""
    return "df -Pk ."


def _checked(form: re.Pattern[str], text: str, what: str, rule: str | None = None) -> str:
    if not form.fullmatch(text):
        raise UsageError(
            f'"{printable(text)}" is no {what}', hint=None if rule is None else f"it is made of {rule}"
        )
    return text


def _number(value: int, low: int, high: int, what: str) -> str:
    if not low <= value <= high:
        raise UsageError(f"{what} is {low} to {high}, not {value}")
    return str(value)
