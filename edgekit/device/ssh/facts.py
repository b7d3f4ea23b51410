"""What a board is, asked without deploying to it: of its own programs, and of a runner where there is one."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.device.ssh.connection import SshConnection
from edgekit.device.ssh.health import BoardHealth, free_space, governor, health, machine_and_word_bits
from edgekit.device.ssh.remote import current_program
from edgekit.device.ssh.versions import installed_versions

__all__ = ["BoardFacts", "board_facts"]


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """None is what the board does not tell. `health` is there after the first deployment."""

    machine: str | None
    word_bits: int | None
    free_bytes: int | None
    governor: str | None
    health: BoardHealth | None


def board_facts(connection: SshConnection) -> BoardFacts:
    """Raises DeviceError when the board can't be reached; the message says what to do."""
    machine, word_bits = machine_and_word_bits(connection)
    current = next((one for one in installed_versions(connection) if one.current), None)
    return BoardFacts(
        machine=machine,
        word_bits=word_bits,
        free_bytes=free_space(connection),
        governor=governor(connection),
        health=None if current is None else health(connection, current_program(current.app)),
    )
