"""What ssh and the runner say, as errors: the class, what it names, and the command that mends it. The texts
are OpenSSH 9.2's own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device.ssh import SshHost
from edgekit.device.ssh.channel import Completed
from edgekit.device.ssh.failures import NotInstalledError, busy_error, connection_error, runner_error
from edgekit.errors import DeviceError, VerificationError

HOST = SshHost("pi@board")

UNKNOWN = "No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.\r\n"
VERIFICATION_FAILED = "Host key verification failed.\r\n"
CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r
Add correct host key in /h/my hosts to get rid of this message.\r
Offending ED25519 key in /h/my hosts:3\r
Host key for [10.0.0.7]:2222 has changed and you have requested strict checking.\r
Host key verification failed.\r
"""


def ended(stderr: str, code: int = 255, stdout: bytes = b"") -> Completed:
    return Completed(code, stdout, stderr)


@pytest.mark.parametrize(
    ("stderr", "message", "hint"),
    [
        (
            UNKNOWN + VERIFICATION_FAILED,
            "host key of pi@board is not known",
            "StrictHostKeyChecking=ask pi@b",
        ),
        (
            VERIFICATION_FAILED,
            "host key of pi@board is not known",
            "ssh -o StrictHostKeyChecking=ask pi@board",
        ),
        (CHANGED, "HAS CHANGED", "ssh-keygen -f '/h/my hosts' -R '[10.0.0.7]:2222'"),
        (
            "pi@board: Permission denied (publickey,password).\r\n",
            "neither a key of yours nor one of the agent",
            "ssh-copy-id pi@board",
        ),
        (
            "Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures\r\n",
            "refused the login",
            "ssh-add",
        ),
        (
            "ssh: Could not resolve hostname board: Name or service not known\r\n",
            "no machine is called board",
            "--board ssh:",
        ),
        (
            "ssh: connect to host board port 22: Connection timed out\r\n",
            "did not answer in time",
            "ping board",
        ),
        (
            "Connection timed out during banner exchange\r\nConnection to 10.0.0.7 port 22 timed out\r\n",
            "did not answer in time",
            "ping board",
        ),
        (
            "ssh: connect to host board port 22: Connection refused\r\n",
            "no ssh server listens there",
            "systemctl enable --now ssh",
        ),
        ("ssh: connect to host board port 22: No route to host\r\n", "no way to pi@board", "network"),
        (
            "/h/.ssh/config: terminating, 1 bad configuration options\r\n",
            "can't use its configuration",
            "ssh -G pi@board",
        ),
        ("client_loop: send disconnect: Broken pipe\r\n", "was lost: uploading", "run the command again"),
        ("Timeout, server board not responding.\r\n", "was lost: uploading", "run the command again"),
        ("", "was lost: uploading", "run the command again"),
    ],
)
def test_ssh_itself_failed(stderr: str, message: str, hint: str) -> None:
    error = connection_error(HOST, "uploading", ended(stderr))
    assert isinstance(error, DeviceError)
    assert error.exit_code == 6
    assert message in error.message
    assert hint in (error.hint or "")


def test_a_changed_key_is_never_accepted_by_the_first_command_of_the_hint() -> None:
    hint = connection_error(HOST, "x", ended(CHANGED)).hint or ""
    assert hint.index("ssh-keygen") < hint.index("StrictHostKeyChecking=ask")
    assert "StrictHostKeyChecking=no" not in hint


def test_commands_name_the_configuration() -> None:
    host = SshHost("board", Path("/tmp/a b"))
    assert "ssh -F '/tmp/a b' -o StrictHostKeyChecking=ask board true" in (
        connection_error(host, "x", ended(VERIFICATION_FAILED)).hint or ""
    )


def test_words_of_a_board_can_not_steer_a_terminal_or_fill_it() -> None:
    error = connection_error(HOST, "x", ended("\x1b[2J\x07\u202eevil\r\n" + "y" * 100_000))
    assert len(error.message) < 1000
    assert all(character.isprintable() for character in error.message)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (64, DeviceError, "exit code 64"),
        (65, VerificationError, "not the one that was sent"),
        (66, DeviceError, "nothing to do it with"),
        (73, VerificationError, "could not write"),
        (74, VerificationError, "1,234 B are free"),
        (126, DeviceError, "can't run the program"),
        (127, NotInstalledError, "not on the board"),
        (1, DeviceError, "exit code 1"),
    ],
)
def test_the_runner_failed(code: int, kind: type[Exception], message: str) -> None:
    error = runner_error(HOST, "installing", ended("runner: why\n", code), 1234)
    assert type(error) is kind
    assert message in error.message
    assert "why" in error.message
    assert "pi@board" in error.message


def test_busy_names_the_holder() -> None:
    error = runner_error(HOST, "x", ended("", 75, b"busy ada@laptop, pid 7, since 2026-11-22T01:00:00Z\n"))
    assert isinstance(error, DeviceError)
    assert error.exit_code == 6
    assert "held by ada@laptop, pid 7, since 2026-11-22T01:00:00Z" in error.message


def test_a_holders_name_is_made_safe() -> None:
    assert "\x1b" not in busy_error(HOST, "Welcome!\nbusy \x1b[2Jx\n").message
