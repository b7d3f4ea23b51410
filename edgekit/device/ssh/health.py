"""The state of a board: what a measurement depends on and what an image needs; None where it can't tell."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.failures import runner_error
from edgekit.device.ssh.remote import (
    Program,
    free_space_command,
    governor_command,
    health_command,
    long_bits_command,
    machine_command,
)

__all__ = ["BoardHealth", "free_space", "governor", "health", "machine_and_word_bits", "parse_health"]

_Value = TypeVar("_Value")

_TEXT: Final = re.compile(r"[ -~]{1,200}")
_WORD: Final = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_COUNT: Final = re.compile(r"-?[0-9]{1,18}")
_HEX: Final = re.compile(r"0x[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True, slots=True)
class BoardHealth:
    """See the module. `throttled` has the bits of the Raspberry Pi's firmware (`vcgencmd get_throttled`)."""

    machine: str | None = None
    word_bits: int | None = None
    kernel: str | None = None
    cores: int | None = None
    memory_free_bytes: int | None = None
    disk_free_bytes: int | None = None
    governor: str | None = None
    frequency_khz: int | None = None
    temperature_millicelsius: int | None = None
    throttled: int | None = None
    clock: str | None = None


def parse_health(text: str) -> BoardHealth:
    """The `key value` lines of the runner's `health`; lines that are none of them are passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, space, value = line.partition(" ")
        if space:
            values[key] = value.strip()
    word, count = _reader(_WORD, str), _reader(_COUNT, int)
    return BoardHealth(
        machine=word(values.get("machine")),
        word_bits=count(values.get("word_bits")),
        kernel=_reader(_TEXT, str)(values.get("kernel")),
        cores=count(values.get("cores")),
        memory_free_bytes=count(values.get("memory_free_bytes")),
        disk_free_bytes=count(values.get("disk_free_bytes")),
        governor=word(values.get("governor")),
        frequency_khz=count(values.get("frequency_khz")),
        temperature_millicelsius=count(values.get("temperature_millicelsius")),
        throttled=_reader(_HEX, lambda digits: int(digits, 16))(values.get("throttled")),
        clock=word(values.get("clock")),
    )


def health(connection: SshConnection, program: Program) -> BoardHealth:
    """What an installed runner says of its board."""
    doing = "asking for the board's state"
    ended = connection.run(health_command(program), doing)
    if ended.code != 0:
        raise runner_error(connection.host, doing, ended)
    return parse_health(ended.stdout.decode(errors="replace"))


def machine_and_word_bits(connection: SshConnection) -> tuple[str | None, int | None]:
    """`uname -m` and the bits of a word of its programs, from a board on which no runner is yet."""
    machine = connection.run(machine_command(), "asking for the board's architecture")
    bits = connection.run(long_bits_command(), "asking for the board's word size")
    return (
        _reader(_WORD, str)(_last_line(machine.stdout)),
        _reader(_COUNT, int)(_last_line(bits.stdout)),
    )


def governor(connection: SshConnection) -> str | None:
    """That of the first core, from a board on which no runner is yet."""
    ended = connection.run(governor_command(), "asking for the board's governor")
    return _reader(_WORD, str)(_last_line(ended.stdout)) if ended.code == 0 else None


def free_space(connection: SshConnection) -> int | None:
    """Free bytes of the file system of the home folder, from POSIX df: the fourth of six columns, in KiB."""
    ended = connection.run(free_space_command(), "asking for the board's free space")
    columns = _last_line(ended.stdout).split()
    if ended.code != 0 or len(columns) < 6 or not columns[3].isascii() or not columns[3].isdigit():
        return None
    return int(columns[3][:15]) * 1024


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _reader(form: re.Pattern[str], convert: Callable[[str], _Value]) -> Callable[[str | None], _Value | None]:
    def read(text: str | None) -> _Value | None:
        return convert(text) if text is not None and form.fullmatch(text) else None

    return read
