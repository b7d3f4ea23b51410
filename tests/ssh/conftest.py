"""A fake ssh at the head of PATH, and connections through it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.device.ssh import SshConnection, SshHost

FAKE = Path(__file__).with_name("fake_ssh.py")


@dataclass(frozen=True)
class FakeSsh:
    """See `fake_ssh.py`."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def argv(self) -> list[list[str]]:
        """The arguments of every ssh that was started, in order."""
        path = self.folder / "argv.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def commands(self) -> list[str]:
        """What was to run on the board."""
        return [one[-1] for one in self.argv() if "-O" not in one and "-G" not in one]

    def play(self, match: str, **play: object) -> None:
        """From now on a command that `match` is found in is answered so. The first that matches counts."""
        path = self.folder / "plays.json"
        known = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*known, {"match": match, **play}]))

    def play_nothing(self) -> None:
        (self.folder / "plays.json").unlink(missing_ok=True)

    def config(self, text: str) -> None:
        """What `ssh -G` prints; %h is the host."""
        (self.folder / "config.txt").write_text(text)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    folder = tmp_path / "fake_ssh"
    folder.mkdir()
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -IS\n" + FAKE.read_text())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH", str(folder))
    (folder / "home").mkdir()
    return FakeSsh(folder)


@pytest.fixture
def connection(ssh: FakeSsh) -> Iterator[SshConnection]:
    with SshConnection(SshHost("pi@board")) as connection:
        yield connection
