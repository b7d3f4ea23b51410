"""Running commands on a board, and looking for what is left of one."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.device.ssh.host import SshHost

__all__ = [
    "CROSS",
    "FLAGS",
    "Ran",
    "missing_tools",
    "processes_with",
    "run_on",
    "ssh_argv",
    "wait_until_gone",
]

CROSS: Final = {"aarch64": "aarch64-linux-gnu-gcc", "arm": "arm-linux-gnueabihf-gcc"}
FLAGS: Final[dict[str, list[str]]] = {
    "aarch64": [],
    "arm": ["-march=armv7-a", "-mfpu=vfpv3-d16", "-mfloat-abi=hard", "-marm"],
}
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Ran:
    """What a command on a board came to; `status` as ssh gives it."""

    status: int
    output: str
    errors: str


def missing_tools() -> list[str]:
    path = "/usr/sbin:/usr/local/sbin:/sbin"
    tools = ["ssh", "scp", "ssh-keygen", "gcc", "qemu-aarch64", "qemu-arm", *CROSS.values()]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return missing if shutil.which("sshd") or shutil.which("sshd", path=path) else [*missing, "sshd"]


def ssh_argv(host: SshHost, *options: str) -> list[str]:
    return ["ssh", "-T", "-F", str(host.config), *options, "--", host.destination]


def run_on(host: SshHost, command: str, *, given: bytes = b"") -> Ran:
    done = subprocess.run(
        [*ssh_argv(host), command], input=given, capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    return Ran(
        done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )


def processes_with(word: str) -> dict[int, str]:
    """This machine's processes in whose command lines `word` stands."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if word in line:
                found[int(folder.name)] = line.strip()
    return found


def wait_until_gone(word: str, timeout_s: float = 10.0) -> dict[int, str]:
    """What is still there after the time; nothing, when all went."""
    deadline = time.monotonic() + timeout_s
    while (left := processes_with(word)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
