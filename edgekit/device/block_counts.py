"""Which blocks of instructions an emulated board executes, and how often, operator by operator.

QEMU's clock counts instructions alike; what they would cost on the core depends on which they are. A plugin
(`firmware_templates/plugin/blocks.c`) counts the blocks between an operator's first instruction and the
agent's next look at the clock.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.device.client import Client
from edgekit.device.emulator import EmulatedBoard, EmulatorSettings
from edgekit.device.qemu_user import make_plugin
from edgekit.device.transports.serial import SerialTransport
from edgekit.errors import DeviceError, MissingToolError
from edgekit.fsutil import cache_folder

__all__ = ["MAX_OPERATORS", "BlockCount", "count_blocks"]

MAX_OPERATORS: Final = 128
_BLOCKS: Final = 16_384
_HEADER: Final = 2 + 2 * MAX_OPERATORS
_BLOCK: Final = 3 + 2 * MAX_OPERATORS
_WORD: Final = 8
_BAUD: Final = 115_200


@dataclass(frozen=True, slots=True)
class BlockCount:
    """A block of so many instructions from address `start`, executed `times`; `left` of these times the next
    instruction was not the one behind it.
    """

    start: int
    instructions: int
    times: int
    left: int


def count_blocks(
    settings: EmulatorSettings,
    image: Path,
    operators: Sequence[int],
    clock: int,
    inputs: Sequence[bytes],
) -> tuple[tuple[BlockCount, ...], ...]:
    """The blocks that each operator of an image executes in one inference.

    Args:
        operators: addresses of the operators' functions in the order of the program, all different, at most
            `MAX_OPERATORS`.
        clock: address of the function that the agent asks for the time after each operator.
        inputs: bytes of each input.

    Raises:
        MissingToolError: there is no QEMU, or no C compiler for the plugin.
        DeviceError: QEMU takes no plugin, or an operator was not executed.
    """
    qemu = shutil.which("qemu-system-arm")
    if qemu is None:
        raise MissingToolError(
            "qemu-system-arm is not installed", hint="sudo apt-get install qemu-system-arm"
        )
    plugin = make_plugin("blocks", Path(qemu).absolute(), cache_folder() / "plugins", "", lambda folder: None)
    with tempfile.TemporaryDirectory(prefix="edgekit-blocks-") as folder:
        path = Path(folder) / "counts"
        marks = [*operators, *[0] * (MAX_OPERATORS - len(operators))]
        with path.open("wb") as file:
            file.write(struct.pack(f"<{2 + MAX_OPERATORS}Q", clock, 0, *marks))
            # Sparse: only what is counted takes room.
            file.truncate(_WORD * (_HEADER + _BLOCKS * _BLOCK))
        environment = {**os.environ, "EDGEKIT_BLOCKS_FILE": str(path)}
        board = EmulatedBoard(settings, image, plugin=plugin, environment=environment)
        try:
            with Client(SerialTransport(board.tty, _BAUD)) as client:
                client.connect()
                for index, data in enumerate(inputs):
                    client.write_input(index, data)
                client.profile_operators()
        finally:
            board.stop()
        return _read(path, len(operators))


def _read(path: Path, operators: int) -> tuple[tuple[BlockCount, ...], ...]:
    found: list[list[BlockCount]] = [[] for _ in range(operators)]
    with path.open("rb") as file:
        header = struct.unpack(f"<{_HEADER}Q", file.read(_WORD * _HEADER))
        visits = header[2 + MAX_OPERATORS :][:operators]
        if header[1]:
            raise DeviceError("the program has more blocks of instructions than QEMU's plugin counts")
        if not all(visits):
            raise DeviceError("an operator was not executed where QEMU's plugin counts")
        for _ in range(_BLOCKS):
            start, _, instructions, *counted = struct.unpack(f"<{_BLOCK}Q", file.read(_WORD * _BLOCK))
            if instructions == 0:
                break
            for operator, runs in enumerate(visits):
                times, left = counted[2 * operator], counted[2 * operator + 1]
                if times:
                    # The agent runs the program anew for each frame of its answer.
                    found[operator].append(BlockCount(start, instructions, times // runs, left // runs))
    return tuple(tuple(blocks) for blocks in found)
