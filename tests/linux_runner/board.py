"""A board's home folder, and the commands with which the SDK works on it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.device.protocol import (
    FrameDecoder,
    FrameType,
    HelloReply,
    HelloRequest,
    RunFlags,
    RunReply,
    RunRequest,
    encode_request,
)
from tests.device import toy
from tests.linux_runner.build import NAME, Machine

__all__ = ["APP", "DIED", "Board", "Version"]

APP = "kws"
DIED = 99
_TOKEN = "upload00"


@dataclass(frozen=True, slots=True)
class Version:
    """A runner that answers with a name of its own."""

    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def hash(self) -> str:
        return self.sha256[:16]


@dataclass(slots=True)
class Board:
    machine: Machine
    home: Path
    runner: bytes
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.home / ".edgekit"

    @property
    def app(self) -> Path:
        return self.root / APP

    def version(self, number: int) -> Version:
        name = f"version-{number:04}"
        assert self.runner.count(NAME) == 1
        return Version(name, self.runner.replace(NAME, name.encode()))

    def upload(self, version: Version, token: str = _TOKEN) -> Path:
        """What the one shell command of the SDK does."""
        path = self.app / "incoming" / token
        for folder in (self.root, self.app, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(version.content)
        path.chmod(0o700)
        return path

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            **self.environment,
            **(extra or {}),
        }

    def run(
        self, program: Path, *arguments: str, extra: Mapping[str, str] | None = None, data: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.machine.command(program), *arguments],
            env=self.env(extra),
            input=data,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def install(
        self, version: Version, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return self.run(self.upload(version), "install", APP, version.sha256, extra=extra)

    def activate(
        self, version: Version, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        program = self.app / version.hash / "runner"
        return self.run(program, "activate", APP, version.hash, extra=extra)

    def deploy(self, version: Version) -> None:
        done = self.install(version)
        assert (done.returncode, done.stdout) == (0, f"installed {version.hash}\n".encode()), done.stderr
        done = self.activate(version)
        assert (done.returncode, done.stdout) == (0, f"current {version.hash}\n".encode()), done.stderr
        assert done.stderr == b""

    def rollback(self, extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        return self.run(self.app / "current" / "runner", "rollback", APP, extra=extra)

    def current(self) -> str | None:
        link = self.app / "current"
        return os.readlink(link) if link.is_symlink() else None  # noqa: PTH115

    def installed(self) -> set[str]:
        return {path.parent.name for path in self.app.glob("*/runner") if path.parent.name != "current"}

    def answers(self, program: Path | None = None) -> str:
        """The name that the current runner gives itself, after it has answered bit for bit."""
        data = encode_request(HelloRequest(7), 1)
        data += encode_request(RunRequest(toy.AFFINE, RunFlags.OUTPUTS, toy.AFFINE_INPUT), 2)
        done = self.run(program or self.app / "current" / "runner", "serve", data=data)
        assert done.returncode == 0, done.stderr
        frames = FrameDecoder().feed(done.stdout)
        (run,) = (frame for frame in frames if frame.type == FrameType.RUN.reply)
        assert RunReply.decode(run.payload).outputs == toy.affine_answer(toy.AFFINE_INPUT, 1)
        return HelloReply.decode(frames[0].payload).name

    def files(self) -> dict[str, str]:
        """Every path below the root, with what it is."""
        return {str(path.relative_to(self.root)): _kind(path) for path in sorted(self.root.rglob("*"))}


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link to {os.readlink(path)}"  # noqa: PTH115
    return f"{'folder' if stat.S_ISDIR(mode) else 'file'} {stat.S_IMODE(mode):03o}"
