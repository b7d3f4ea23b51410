"""What `edgekit doctor --target T` looks at on a Linux board: the way to it, what it is, what it measures."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from edgekit.cli.checks import Check
from edgekit.errors import EdgekitError
from edgekit.target import Target, UserEmulator
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.device import BoardAddress
    from edgekit.device.ssh import BoardFacts, SshConnection

__all__ = ["architecture_check", "linux_board_checks", "ssh_check"]

_LEAST_FREE_BYTES: Final = 32 * 1024 * 1024
"""Four versions of a large model: three that are kept and one under way."""

_GOVERNORS: Final = "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_HOT_MILLICELSIUS: Final = 80_000


def ssh_check() -> Check:
    """The system's own ssh client."""
    found = shutil.which("ssh")
    if found is None:
        return Check("ssh", "missing", "not installed", "sudo apt-get install -y openssh-client")
    return Check("ssh", "ok", found)


def linux_board_checks(target: Target, address: BoardAddress | None) -> Iterator[Check]:
    """All of it, from near to far; the first that stops the others is the last."""
    ssh = ssh_check()
    yield ssh
    if isinstance(target.emulator, UserEmulator):
        yield _counter(target)
    if ssh.status != "ok":
        return

    from edgekit.device.ssh import board_facts, reached

    name = f"board of {target.name}"
    try:
        with reached(target, address) as connection:
            facts = board_facts(connection)
            yield Check(name, "ok", f"{connection.host.destination} answers; its host key is known")
            yield from _facts(target, connection, facts)
    except EdgekitError as error:
        yield Check(name, "missing", printable(error.message, 400), error.hint, about="board")


def _counter(target: Target) -> Check:
    from edgekit.device.emulated_ssh import tick_problem

    name = f"instruction counter for {target.name}"
    try:
        problem = tick_problem(target)
    except EdgekitError as error:
        problem = error.message
    if problem is None:
        return Check(name, "ok", "QEMU loads the plugin")
    return Check(
        name,
        "note",
        f"{printable(problem, 300)}; the profile will be empty",
        "sudo apt-get install -y qemu-user gcc",
    )


def _facts(target: Target, connection: SshConnection, facts: BoardFacts) -> Iterator[Check]:
    yield architecture_check(target, facts.machine, facts.word_bits)
    free = facts.health.disk_free_bytes if facts.health else facts.free_bytes
    yield _space(target, connection, free)
    yield _clock(target, facts)
    governor = facts.health.governor if facts.health else facts.governor
    yield _governor(target, connection, governor)
    health = facts.health
    if health is not None and health.temperature_millicelsius is not None:
        celsius = health.temperature_millicelsius / 1000
        hot = health.temperature_millicelsius > _HOT_MILLICELSIUS
        yield Check(
            f"temperature of {target.name}",
            "note" if hot else "ok",
            f"{celsius:.1f} °C",
            "cool it: a heat sink, a fan, a pause" if hot else None,
        )
    if health is not None and health.throttled:
        yield Check(
            f"power of {target.name}",
            "note",
            f"the firmware says throttled={health.throttled:#x}",
            "use the board's own power supply, then start it anew: sudo reboot",
        )


def architecture_check(target: Target, machine: str | None, word_bits: int | None) -> Check:
    """Whether a static program of the target's triple runs there. A 64-bit kernel may run 32-bit ones."""
    name = f"architecture of {target.name}"
    triple = target.compile.mtriple or ""
    found = f"{machine or 'unknown'}, {word_bits or '?'}-bit programs"
    if machine is None or not triple:
        return Check(name, "note", found)
    wanted = triple.split("-")[0]
    if wanted == "aarch64":
        if machine in ("aarch64", "arm64"):
            return Check(name, "ok", found)
        mend = "install a 64-bit system, or deploy with --target linux-armv7"
    elif wanted.startswith("armv7"):
        if machine in ("armv7l", "armv8l") or (machine == "aarch64" and word_bits == 32):
            return Check(name, "ok", found)
        mend = (
            "deploy with --target linux-aarch64"
            if machine == "aarch64"
            else "take a board with an Armv7 core"
        )
    elif wanted == machine:
        return Check(name, "ok", found)
    else:
        mend = "choose the target of this board: edgekit targets list"
    return Check(name, "missing", f"{found}; the target is for {wanted}", mend, about="board")


def _space(target: Target, connection: SshConnection, free: int | None) -> Check:
    name = f"free space of {target.name}"
    if free is None:
        return Check(name, "note", "the board does not tell")
    if free >= _LEAST_FREE_BYTES:
        return Check(name, "ok", f"{free:,} B")
    return Check(
        name,
        "missing",
        f"{free:,} B, and a few versions need {_LEAST_FREE_BYTES:,} B",
        f"make room; what takes it: {_on_board(connection, 'du -xh ~ | sort -h | tail')}",
        about="board",
    )


def _clock(target: Target, facts: BoardFacts) -> Check:
    name = f"clock of {target.name}"
    if facts.health is None or facts.health.clock is None:
        return Check(name, "ok", f"{target.clock.source}; the board tells after the first deployment")
    found = facts.health.clock
    expected = "plugin" if target.clock.source == "plugin" else "clock_monotonic_raw"
    if found == expected:
        return Check(name, "ok", found)
    return Check(name, "note", f"the runner counts {found}, and the target says {target.clock.source}")


def _governor(target: Target, connection: SshConnection, governor: str | None) -> Check:
    name = f"governor of {target.name}"
    if target.emulated:
        return Check(name, "ok", "instructions do not depend on it")
    if governor is None:
        return Check(name, "ok", "none: the frequency is fixed, or not told")
    if governor == "performance":
        return Check(name, "ok", governor)
    mend = _on_board(connection, f"echo performance | sudo tee {_GOVERNORS}")
    return Check(name, "note", f"{governor}: times will not be trusted", mend)


def _on_board(connection: SshConnection, command: str) -> str:
    host = connection.host
    configuration = [] if host.config is None else ["-F", str(host.config)]
    return shlex.join(["ssh", *configuration, host.destination, command])
