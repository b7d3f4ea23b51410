"""The agent's ticks: a clock in nanoseconds, or what a file says that an emulator counts in."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.device.protocol import (
    FrameDecoder,
    FrameType,
    HelloRequest,
    RunFlags,
    RunReply,
    RunRequest,
    encode_request,
)
from tests.device import toy
from tests.linux_runner.board import Board
from tests.linux_runner.build import PLATFORM, Machine, build_program

NOTHING = 66
SOURCES = (
    Path(__file__).with_name("ticks_check.c"),
    *(PLATFORM / name for name in ("ticks.c", "say.c", "sys.c")),
)


@pytest.fixture(scope="module")
def program(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return machine.command(build_program(machine, tmp_path_factory.mktemp("ticks"), *SOURCES))


@contextmanager
def started(program: list[str], tick_file: Path | None) -> Iterator[subprocess.Popen[str]]:
    environment = {"PATH": os.environ["PATH"], "EDGEKIT_TICK_FILE": str(tick_file or "")}
    with subprocess.Popen(
        program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str]) -> int:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    ticks, bits = process.stdout.readline().split()
    assert bits == "64"
    return int(ticks)


def test_nanoseconds_of_a_clock_that_nobody_adjusts(program: list[str]) -> None:
    with started(program, None) as process:
        for _ in range(20):
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
            ticks = ask(process)
            assert before <= ticks <= time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def test_a_file_as_it_is_now(program: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    path.write_bytes(bytes(8))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page, started(program, path) as process:
        for value in (0, 1, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1, 5):
            page[:8] = struct.pack("=Q", value)
            assert ask(process) == value


def test_a_file_that_cannot_be_the_counter_is_refused(board: Board, tmp_path: Path) -> None:
    """A clock in its place would be taken for a count of instructions."""
    runner = board.upload(board.version(1))
    short = tmp_path / "short"
    short.write_bytes(bytes(7))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "missing", short, tmp_path, fifo, Path("/dev/zero")):
        done = board.run(runner, "serve", extra={"EDGEKIT_TICK_FILE": str(path)})
        assert (done.returncode, done.stdout) == (NOTHING, b""), path
        assert done.stderr.startswith(b"EDGEKIT_TICK_FILE: ")


def test_the_agent_counts_in_it(board: Board, tmp_path: Path) -> None:
    """Nobody counts here, so a run takes no tick; without the file it takes some."""
    runner = board.upload(board.version(1))
    path = tmp_path / "ticks"
    path.write_bytes(bytes(range(1, 9)))
    data = encode_request(HelloRequest(7), 1)
    data += encode_request(RunRequest(toy.AFFINE, RunFlags.OUTPUTS | RunFlags.MEASURE, toy.AFFINE_INPUT), 2)
    ticks = []
    for extra in ({"EDGEKIT_TICK_FILE": str(path)}, {"EDGEKIT_TICK_FILE": ""}, {}):
        done = board.run(runner, "serve", extra=extra, data=data)
        (run,) = (f for f in FrameDecoder().feed(done.stdout) if f.type == FrameType.RUN.reply)
        reply = RunReply.decode(run.payload)
        assert reply.outputs == toy.affine_answer(toy.AFFINE_INPUT, 1)
        ticks.append(reply.ticks)
    assert ticks[0] == 0
    assert min(ticks[1:]) > 0
