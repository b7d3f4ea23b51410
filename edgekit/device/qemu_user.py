"""QEMU for the programs of another machine's Linux, and the plugin that counts their instructions.

The plugin is compiled at first use with this machine's gcc and kept in the cache folder under a name that
changes with its source and with QEMU. It is kept only after a program of three instructions counted three, so
a plugin that is there works.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgekit.errors import DeviceError, MissingToolError
from edgekit.fsutil import sync_directory
from edgekit.resources import firmware_templates_directory
from edgekit.text import printable

__all__ = ["MACHINES", "PACKAGE", "Machine", "find_qemu", "make_plugin", "tick_plugin"]

PACKAGE: Final = "qemu-user"
_COMPILE_S: Final = 60.0
_RUN_S: Final = 20.0
_FIRST_OF_API_2: Final = 9
_WORDS_SHOWN: Final = 300
_VERSION: Final = re.compile(r"version ([0-9]{1,4})\.[0-9]")


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to know of a machine beside its core. `e_machine` is from the System V ABI's ELF header.

    `three_instructions` is a program: it puts 0 and the number of `exit` where Linux wants them and calls it.
    """

    uname: str
    bits: Literal[32, 64]
    e_machine: int
    three_instructions: bytes


MACHINES: Final[dict[str, Machine]] = {
    # mov x0, #0; mov x8, #93; svc #0
    "aarch64": Machine("aarch64", 64, 183, bytes.fromhex("000080d2 a80b80d2 010000d4")),
    # mov r0, #0; mov r7, #1; svc #0
    "arm": Machine("armv7l", 32, 40, bytes.fromhex("0000a0e3 0170a0e3 000000ef")),
}


def find_qemu(user: str) -> Path | None:
    """The emulator for `user`'s programs: the ordinary one, else the static one, which loads no plugin."""
    found = shutil.which(f"qemu-{user}") or shutil.which(f"qemu-{user}-static")
    return None if found is None else Path(found).absolute()


def tick_plugin(user: str, qemu: Path, folder: Path) -> Path:
    """The counting plugin for `qemu`, made in `folder` unless it is there.

    Raises:
        MissingToolError: there is no C compiler.
        DeviceError: it does not compile, or QEMU does not load it; the message says why.
    """
    return make_plugin("tick", qemu, folder, user, lambda workshop: _check(user, qemu, workshop))


def make_plugin(name: str, qemu: Path, folder: Path, key: str, check: Callable[[Path], None]) -> Path:
    """`firmware_templates/plugin/<name>.c` built for `qemu`, made in `folder` unless it is there.

    Args:
        key: what else the plugin depends on.
        check: raises where `<name>.so` in the given folder does not work: it is not kept then.

    Raises:
        MissingToolError: there is no C compiler.
        DeviceError: it does not compile.
    """
    source = (firmware_templates_directory() / "plugin" / f"{name}.c").read_bytes()
    plugin = folder / f"{name}-{_key(source, key, qemu)}.so"
    if plugin.is_file():
        return plugin
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise MissingToolError(
            "no C compiler is installed; it makes the plugin that counts instructions",
            hint="sudo apt-get install gcc",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as made:
        workshop = Path(made)
        (workshop / f"{name}.c").write_bytes(source)
        _compile(compiler, _api(qemu), workshop, name)
        check(workshop)
        (workshop / f"{name}.so").replace(plugin)
    sync_directory(folder)
    return plugin


def _key(source: bytes, key: str, qemu: Path) -> str:
    """Changes with all that a plugin depends on. A new version of QEMU is a new file."""
    real = qemu.resolve()
    status = real.stat()
    facts = f"{key}\0{real}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape")
    return hashlib.sha256(facts + source).hexdigest()[:32]


def _api(qemu: Path) -> int:
    """Which of the plugin's two forms this QEMU takes."""
    said = _run([str(qemu), "--version"], {}, _RUN_S)
    found = _VERSION.search(said.stdout)
    if found is None:
        raise DeviceError(f"{qemu.name} does not say its version")
    return 2 if int(found[1]) >= _FIRST_OF_API_2 else 1


def _compile(compiler: str, api: int, workshop: Path, name: str) -> None:
    argv = [
        *(compiler, "-O2", "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden"),
        *(f"-DEDGEKIT_PLUGIN_API={api}", "-D_GNU_SOURCE", "-o", f"{name}.so", f"{name}.c"),
    ]
    done = _run(argv, dict(os.environ), _COMPILE_S, workshop)
    if done.returncode != 0:
        raise DeviceError(f"the plugin that counts instructions does not compile: {_words(done.stdout)}")


def _check(user: str, qemu: Path, workshop: Path) -> None:
    """A program of three instructions has to count three."""
    program, ticks = workshop / "three", workshop / "ticks"
    program.write_bytes(_executable(MACHINES[user]))
    program.chmod(0o700)
    ticks.write_bytes(bytes(4096))
    # In QEMU's options a comma ends a value; two of them are one in it.
    argument = f"file={workshop / 'tick.so'}".replace(",", ",,")
    done = _run([str(qemu), "-plugin", argument, str(program)], {"EDGEKIT_TICK_FILE": str(ticks)}, _RUN_S)
    count = int.from_bytes(ticks.read_bytes()[:8], "little")
    if done.returncode != 0:
        raise DeviceError(f"{qemu.name} loads no plugin: {_words(done.stdout)}")
    if count != 3:
        raise DeviceError(f"{qemu.name} counted {count} where 3 instructions were executed")


def _executable(machine: Machine) -> bytes:
    """An ELF file whose only segment is itself; little-endian, loaded at 64 KiB (System V ABI, chapters 4 and
    5).
    """
    header_bytes, segment_bytes, word = (64, 56, 8) if machine.bits == 64 else (52, 32, 4)
    base = 0x1_0000
    start = header_bytes + segment_bytes
    size = start + len(machine.three_instructions)

    def numbers(*values: tuple[int, int]) -> bytes:
        return b"".join(value.to_bytes(width, "little") for value, width in values)

    identity = bytes((0x7F, 0x45, 0x4C, 0x46, machine.bits // 32, 1, 1)) + bytes(9)
    header = identity + numbers(
        *((2, 2), (machine.e_machine, 2), (1, 4), (base + start, word), (header_bytes, word), (0, word)),
        # e_flags: version 5 of Arm's own ABI, nothing on aarch64
        *((0x0500_0000 if machine.bits == 32 else 0, 4), (header_bytes, 2), (segment_bytes, 2), (1, 2)),
        *((0, 2), (0, 2), (0, 2)),
    )
    readable_executable, loaded = 5, 1
    places = numbers((0, word), (base, word), (base, word), (size, word), (size, word))
    flags = numbers((readable_executable, 4))
    segment = (
        numbers((loaded, 4)) + flags + places + numbers((0x1000, word))
        if machine.bits == 64
        else numbers((loaded, 4)) + places + flags + numbers((0x1000, word))
    )
    return header + segment + machine.three_instructions


def _run(
    argv: list[str], environment: dict[str, str], timeout_s: float, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            timeout=timeout_s,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{Path(argv[0]).name} did not end in {timeout_s:.0f} s") from None
    except OSError as error:
        raise DeviceError(f"{printable(argv[0])} cannot be started: {error.strerror}") from None


def _words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return printable("; ".join(lines[:3]), _WORDS_SHOWN) if lines else "it says nothing"
