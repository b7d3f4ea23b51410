"""Rules of the runner's C that a compiler can check: what it may call, and where."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.device import toy
from tests.linux_runner.build import AGENT, FAULTS, PLATFORM, Machine

SHELLS = {"system", "popen", "posix_spawn", "posix_spawnp", "fork", "vfork", "clone", "wordexp"}
# Static programs cannot look these up; strcpy and its like have no bound.
UNFIT = {"getpwuid", "getpwnam", "getaddrinfo", "dlopen", "gets", "strcpy", "strcat", "sprintf", "scanf"}
UNFIT |= {"malloc", "calloc", "realloc", "tmpfile", "mkstemp"}
CHANGES = {"fsync", "fdatasync", "ftruncate", "truncate", "chmod", "fchmod", "fchmodat", "link", "linkat"}
CHANGES |= {"mkdir", "mkdirat", "rename", "renameat", "renameat2", "rmdir", "symlink", "symlinkat", "unlink"}
CHANGES |= {
    "unlinkat",
    "write",
    "pwrite",
    "writev",
    "fwrite",
    "creat",
    "mknod",
    "mkfifo",
    "remove",
    "sendfile",
}


@pytest.fixture(scope="module")
def calls(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each file of the platform calls outside itself, with warnings as errors."""
    nm = machine.gcc.removesuffix("gcc") + "nm"
    if shutil.which(nm) is None:
        pytest.skip(f"not installed: {nm}")
    folder = tmp_path_factory.mktemp("objects")
    (folder / "edgekit_port.h").write_text('#define EDGEKIT_BOARD_NAME "x"\n')
    found = {}
    for source in sorted(PLATFORM.glob("*.c")):
        made = folder / f"{source.stem}.o"
        options = [*toy.STRICT, "-Os", f"-I{folder}", f"-I{AGENT}", "-c", str(source), "-o", str(made)]
        toy.run([machine.gcc, *options])
        lines = toy.run([nm, "-u", str(made)]).split("\n")
        # The names of 32-bit boards' calls with 64-bit offsets and times: __fstat64_time64, openat64.
        found[source.name] = {line.split()[-1] for line in lines if line.strip()}
    return found


def plain(name: str) -> str:
    return re.sub(r"(64)?(_time64)?$", "", name).removeprefix("__")


def test_no_shell_and_no_other_program(calls: dict[str, set[str]]) -> None:
    for source, names in calls.items():
        used = {plain(name) for name in names}
        assert not used & SHELLS, source
        assert not {name for name in used if name.startswith("exec")}, source
        assert not used & UNFIT, source


def test_the_disk_is_changed_in_one_file(calls: dict[str, set[str]]) -> None:
    """Whatever goes around it could not be stopped by the tests."""
    for source, names in calls.items():
        changes = {plain(name) for name in names} & CHANGES
        if source == "sys.c":
            assert changes >= {"fsync", "renameat", "symlinkat", "mkdirat", "unlinkat", "write"}
        elif source == "serve.c":
            assert changes == {"write"}, "the agent's line"
        else:
            assert not changes, source
    text = "".join(path.read_text() for path in PLATFORM.glob("*.c") if path.name != "sys.c")
    assert "O_CREAT" not in text
    assert "O_RDWR" not in text
    assert "O_WRONLY" not in text


def test_32_bit_boards_know_large_files_and_late_dates(machine: Machine, calls: dict[str, set[str]]) -> None:
    used = set().union(*calls.values())
    if machine.name == "armv7":
        assert {"__fstat64_time64", "__time64", "__clock_gettime64"} <= used
        assert not {"stat", "fstat", "fstatat", "time", "clock_gettime", "openat", "readdir"} & used
    else:
        assert not {name for name in used if name.endswith("time64")}


def test_a_shipped_runner_has_no_fault_injection(
    machine: Machine, runners: Callable[[Machine, bool], bytes], tmp_path: Path
) -> None:
    shipped, tested = runners(machine, False), runners(machine, True)
    for name in (b"EDGEKIT_FAULT_AT", b"EDGEKIT_FAULT_ERRNO", b"EDGEKIT_HEALTH_ROOT", b"fault injected"):
        assert name in tested, f"{FAULTS} is on"
        assert name not in shipped
    program = tmp_path / "runner"
    program.write_bytes(shipped)
    program.chmod(0o700)
    environment = {"HOME": str(tmp_path), "EDGEKIT_FAULT_AT": "1"}
    done = subprocess.run(
        [*machine.command(program), "hold", "me"],
        env=environment | {"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"held\n")
