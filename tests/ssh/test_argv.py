"""The exact command lines of ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.device.ssh.argv import (
    LONGEST_SOCKET_PATH,
    Patience,
    config_argv,
    control_path,
    exit_argv,
    session_argv,
)
from edgekit.device.ssh.host import SshHost

HOST = SshHost("pi@raspberrypi.local")


def test_session() -> None:
    assert session_argv(HOST, "uname -m", "/tmp/edgekit-x/%C") == (
        "ssh", "-T",
        "-o", "BatchMode=yes",
        "-o", "ConnectTimeout=10",
        "-o", "ServerAliveInterval=5",
        "-o", "ServerAliveCountMax=3",
        "-o", "ControlMaster=auto",
        "-o", "ControlPath=/tmp/edgekit-x/%C",
        "-o", "ControlPersist=60",
        "--", "pi@raspberrypi.local", "uname -m",
    )  # fmt: skip


def test_session_with_a_configuration_and_other_waits() -> None:
    host = SshHost("board", Path("/tmp/board config"))
    assert session_argv(host, "true", None, Patience(connect_s=3, alive_interval_s=1, alive_count=2)) == (
        "ssh", "-T",
        "-o", "BatchMode=yes",
        "-o", "ConnectTimeout=3",
        "-o", "ServerAliveInterval=1",
        "-o", "ServerAliveCountMax=2",
        "-o", "ControlMaster=no",
        "-o", "ControlPath=none",
        "-F", "/tmp/board config",
        "--", "board", "true",
    )  # fmt: skip


def test_exit_and_config() -> None:
    assert exit_argv(HOST, "/tmp/e/%C") == (
        "ssh", "-O", "exit",
        "-o", "BatchMode=yes",
        "-o", "ControlPath=/tmp/e/%C",
        "--", "pi@raspberrypi.local",
    )  # fmt: skip
    assert config_argv(SshHost("rpi4")) == ("ssh", "-G", "--", "rpi4")


def test_nothing_weakens_the_checks_of_host_keys_or_replaces_the_users_settings() -> None:
    words = " ".join(session_argv(HOST, "true", "/tmp/e/%C"))
    for option in (
        "StrictHostKeyChecking",
        "UserKnownHostsFile",
        "IdentityFile",
        "ProxyJump",
        "ForwardAgent",
    ):
        assert option not in words


def test_the_socket_stays_below_the_limit() -> None:
    name, temporary = "0" * 40, "." + "x" * 16
    for length in range(2, 120):
        path = control_path(Path("/" + "a" * (length - 1)))
        whole = "/" + "a" * (length - 1) + "/" + name + temporary
        assert (path is not None) == (len(whole) < LONGEST_SOCKET_PATH)


@pytest.mark.parametrize("folder", ["/tmp/a b", "/tmp/%d", "/tmp/~", "/tmp/${HOME}", '/tmp/"', "/tmp/é"])
def test_a_folder_that_ssh_would_read_as_more_is_not_used(folder: str) -> None:
    assert control_path(Path(folder)) is None
