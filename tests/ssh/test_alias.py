"""What the system's own ssh prints for names that its configuration knows, and for others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.device.ssh import SshHost
from edgekit.device.ssh.alias import says_something_of
from edgekit.device.ssh.argv import config_argv

NOBODY = "edgekit-0123456789abcdef"


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ("", False),
        ("Host *\n  User pi\n  ServerAliveInterval 7\n", False),
        ("Host *\n  HostName %h.local\n", False),
        ("Host other\n  HostName 10.0.0.7\n", False),
        ("Host rpi4\n  HostName 10.0.0.7\n", True),
        ("Host rpi4\n  User pi\n", True),
        ("Host rpi*\n  User pi\n", True),
        ("Host rpi4\n  ProxyJump bastion\n", True),
        ("Host rpi4\n  Port 2222\nHost *\n  User me\n", True),
        ("Match host rpi4\n  User pi\n", True),
    ],
)
def test_a_name_is_an_alias_where_a_block_is_for_it(tmp_path: Path, config: str, known: bool) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("not installed: ssh")
    (tmp_path / "config").write_text(config)

    def settings(name: str) -> str:
        argv = config_argv(SshHost(name, tmp_path / "config"))
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout

    assert says_something_of("rpi4", settings("rpi4"), NOBODY, settings(NOBODY)) is known
