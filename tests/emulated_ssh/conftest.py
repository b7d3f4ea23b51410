"""Emulated boards for the tests, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.device.emulated_ssh import emulated_board
from edgekit.device.ssh.host import SshHost
from edgekit.target import load_target

from .boards import CROSS, FLAGS, Ran, missing_tools, run_on

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    missing = missing_tools()
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """edgekit's folder for all these tests, with a name that has to be quoted wherever it is used."""
    folder = tmp_path_factory.mktemp('it\'s $HOME, "a" b%h;#')
    before = os.environ.get("EDGEKIT_HOME")
    os.environ["EDGEKIT_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["EDGEKIT_HOME"]
    else:
        os.environ["EDGEKIT_HOME"] = before


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`programs.c` for each machine that QEMU plays here, static."""
    folder = tmp_path_factory.mktemp("programs")
    made = {}
    for user, compiler in CROSS.items():
        made[user] = folder / user
        argv = [compiler, "-O1", "-static", *FLAGS[user], "-o", str(made[user]), str(HERE / "programs.c")]
        subprocess.run(argv, check=True, timeout=120)
    return made


@pytest.fixture(scope="session")
def rpi4(world: Path, programs: dict[str, Path]) -> Iterator[SshHost]:
    """A running rpi4-emulated with `programs.c` as ~/program."""
    target = load_target("rpi4-emulated")
    with emulated_board(target) as host:
        shutil.copy2(programs["aarch64"], world / "boards" / target.name / "home" / "program")
        yield host


@pytest.fixture
def on_rpi4(rpi4: SshHost) -> Callable[..., Ran]:
    """Runs a command there."""

    def run(command: str, **options: bytes) -> Ran:
        return run_on(rpi4, command, **options)

    return run
