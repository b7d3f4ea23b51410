"""Cycles that a Cortex-M4 would take by Arm's documented timing, from what QEMU logs of an inference.

`edgekit.profile.cycles` has the timing, by which `edgekit tune` chooses; here it is applied to a log of whole
inferences.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edgekit.device import Client
from edgekit.device.emulator import EmulatorSettings, emulator_argv
from edgekit.device.processes import OwnedProcess
from edgekit.device.transports.serial import SerialTransport
from edgekit.profile.cycles import REFILL, Instruction, block_cycles, read_disassembly

__all__ = ["cycles_of_trace", "disassemble", "trace_inference"]

_TTY = re.compile(rb"char device redirected to (/dev/pts/[0-9]+)")
_TRACE = re.compile(r"^Trace \d+: 0x[0-9a-f]+ \[[0-9a-f]+/([0-9a-f]+)/")


def disassemble(image: Path) -> dict[int, Instruction]:
    """Every instruction of an image, by address."""
    done = subprocess.run(
        ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", str(image)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return read_disassembly(done.stdout)


def cycles_of_trace(addresses: Iterable[int], code: dict[int, Instruction]) -> tuple[int, int]:
    """Instructions and cycles of a run whose blocks began at these addresses, in order.

    A block goes on to its first branch, or to where the next one began.
    """
    order = sorted(code)
    following = dict(itertools.pairwise(order))
    counts: Counter[tuple[int, int]] = Counter()
    previous: int | None = None
    for address in addresses:
        if previous is not None:
            counts[previous, address] += 1
        previous = address
    instructions = cycles = 0
    for (start, after), times in counts.items():
        block = _block(start, after, code, following)
        taken = following.get(block[-1].address) != after
        instructions += times * len(block)
        cycles += times * (block_cycles(block) + REFILL * taken)
    return instructions, cycles


def _block(
    start: int, after: int, code: dict[int, Instruction], following: dict[int, int]
) -> list[Instruction]:
    """The instructions from `start` to the branch, or to `after` where QEMU cut the block in two."""
    block = [code[start]]
    while not block[-1].ends_block and block[-1].address in following:
        block.append(code[following[block[-1].address]])
    successors = {block[-1].target, following.get(block[-1].address)}
    inside = next((i for i, each in enumerate(block) if i and each.address == after), None)
    return block if after in successors or inside is None else block[:inside]


def trace_inference(image: Path, settings: EmulatorSettings, inputs: list[bytes]) -> list[int]:
    """Addresses of the blocks that QEMU executed in one inference between the two marks, in order."""
    marks = _symbols(image)
    model = [value for name, value in marks.items() if name.startswith(("edgekit_", "operator_", "run"))]
    pipe = image.with_suffix(".trace")
    os.mkfifo(pipe)
    collected: list[int] = []

    def collect() -> None:
        inside = False
        start, stop = marks["edgekit_mark_start"], marks["edgekit_mark_stop"]
        with pipe.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                match = _TRACE.match(line)
                if match is None:
                    if line.startswith("Stopped") and collected:
                        collected.pop()  # What was logged last is not executed yet.
                    continue
                address = int(match[1], 16)
                if address == start:
                    inside = True
                    collected.clear()
                if inside:
                    collected.append(address)
                inside = inside and address != stop

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    logged = f"{min(model):#x}+{max(model) - min(model) + 4096:#x}"
    argv = [*emulator_argv("qemu-system-arm", settings, image), "-d", "exec,nochain", "-D", str(pipe)]
    argv += ["-dfilter", logged]
    board = OwnedProcess(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output = board.process.stdout
        assert output is not None
        match = _TTY.search(output.readline())
        assert match is not None, "QEMU did not start"
        with Client(SerialTransport(match[1].decode(), 115_200)) as client:
            client.connect()
            for index, data in enumerate(inputs):
                client.write_input(index, data)
            client.profile_run()
    finally:
        board.stop()
        thread.join(timeout=60)
        pipe.unlink()
    return collected


def _symbols(image: Path) -> dict[str, int]:
    done = subprocess.run(
        ["arm-none-eabi-nm", str(image)], capture_output=True, text=True, timeout=60, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[2]: int(row[0], 16) & ~1 for row in rows if len(row) == 3 and row[1] in "tTW"}
