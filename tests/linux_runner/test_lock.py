"""One deployment at a time: the lock, who has it, and how it comes free."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.campaign import campaign_count
from tests.linux_runner.board import Board

BUSY, CREATE = 75, 73
LINE = re.compile(r"(?P<who>.*), pid (?P<pid>\d+), since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n")


@pytest.fixture
def program(board: Board) -> Path:
    return board.upload(board.version(1))


@contextmanager
def holding(board: Board, program: Path, who: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*board.machine.command(program), "hold", who]
    process = subprocess.Popen(argv, env=board.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_the_second_is_told_of_the_first(board: Board, program: Path) -> None:
    with holding(board, program, "alice@desk") as first:
        line = LINE.fullmatch((board.root / "lock").read_text())
        assert line is not None
        assert line["who"] == "alice@desk"
        if board.machine.emulator is None:
            assert int(line["pid"]) == first.pid
        started = time.monotonic()
        done = board.run(program, "hold", "bob@lap")
        assert time.monotonic() - started < 5, "it does not wait"
        assert done.returncode == BUSY
        assert done.stdout.decode() == f"busy {line[0]}"
        assert (board.root / "lock").read_text() == line[0], "the second leaves the first's name"
        assert first.poll() is None
        _, _ = first.communicate(timeout=10)  # closes its stdin
        assert first.returncode == 0
    done = board.run(program, "hold", "bob@lap")
    assert (done.returncode, done.stdout) == (0, b"held\n")


def test_what_comes_on_stdin_does_not_end_it(board: Board, program: Path) -> None:
    with holding(board, program, "me") as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * 10_000 + b"\n\4\0")
        process.stdin.flush()
        assert board.run(program, "hold", "other").returncode == BUSY
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_holder_frees_it(board: Board, program: Path, number: signal.Signals) -> None:
    with holding(board, program, "first") as process:
        process.send_signal(number)
        assert process.wait(10) == -number
        done = board.run(program, "hold", "second")
        assert (done.returncode, done.stdout) == (0, b"held\n")
        assert (board.root / "lock").read_text().startswith("second, ")


def test_it_is_kept_while_its_own_program_is_installed_and_activated(board: Board) -> None:
    version = board.version(1)
    program = board.upload(version)
    with holding(board, program, "first"):
        done = board.run(program, "install", "kws", version.sha256)
        assert done.returncode == 0
        assert board.activate(version).returncode == 0
        done = board.run(board.app / "current" / "runner", "hold", "second")
        assert (done.returncode, done.stdout[:11]) == (BUSY, b"busy first,")


@pytest.mark.parametrize(
    ("who", "shown"),
    [
        ("me\nheld\x1b[2J", "me?held?[2J"),
        ("ä", "??"),
        ("", ""),
        ("-x", "-x"),
        ("w" * 5_000, "w" * 100),
    ],
)
def test_who_is_made_printable(host_board: Board, who: str, shown: str) -> None:
    program = host_board.upload(host_board.version(1))
    with holding(host_board, program, who):
        done = host_board.run(program, "hold", "other")
        assert done.returncode == BUSY
        line = LINE.fullmatch(done.stdout.decode()[len("busy ") :])
        assert line is not None
        assert line["who"] == shown


def test_a_shorter_name_leaves_nothing_of_a_longer(host_board: Board) -> None:
    program = host_board.upload(host_board.version(1))
    for who in ("w" * 100, "v"):
        with holding(host_board, program, who):
            line = LINE.fullmatch((host_board.root / "lock").read_text())
            assert line is not None
            assert line["who"] == who


def test_what_others_wrote_into_the_lock_is_made_printable(host_board: Board) -> None:
    program = host_board.upload(host_board.version(1))
    with holding(host_board, program, "me"):
        for text, shown in [
            ("\x1b]0;owned\x07\nsecond line\n", "?]0;owned?"),
            ("no end", "someone who left no name"),
            ("", "someone who left no name"),
            ("x" * 10_000 + "\n", "someone who left no name"),
        ]:
            (host_board.root / "lock").write_text(text)
            done = host_board.run(program, "hold", "other")
            assert (done.returncode, done.stdout.decode()) == (BUSY, f"busy {shown}\n")


def test_the_folder_is_made(host_board: Board, tmp_path: Path) -> None:
    program = tmp_path / "runner"
    program.write_bytes(host_board.runner)
    program.chmod(0o700)
    assert host_board.run(program, "hold", "me").stdout == b"held\n"
    assert host_board.files() == {"lock": "file 600"}
    assert host_board.root.stat().st_mode & 0o777 == 0o700


def test_something_else_in_the_locks_place_is_refused(host_board: Board, tmp_path: Path) -> None:
    program = host_board.upload(host_board.version(1))
    lock = host_board.root / "lock"
    victim = tmp_path / "victim"
    victim.write_text("mine")
    lock.symlink_to(victim)
    assert host_board.run(program, "hold", "me").returncode == CREATE
    assert victim.read_text() == "mine"
    lock.unlink()
    lock.mkdir()
    assert host_board.run(program, "hold", "me").returncode == CREATE
    lock.rmdir()
    os.mkfifo(lock)
    assert host_board.run(program, "hold", "me").returncode == CREATE


def test_of_many_at_once_one_wins(host_board: Board) -> None:
    program = host_board.upload(host_board.version(1))
    for _ in range(campaign_count(50, 5)):
        processes = [
            subprocess.Popen(
                [program, "hold", f"user{number}"],
                env=host_board.env(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for number in range(8)
        ]
        try:
            first_lines = [process.stdout.readline() for process in processes if process.stdout is not None]
        finally:
            for process in processes:
                process.communicate(timeout=10)
        winner = first_lines.index(b"held\n")
        assert first_lines.count(b"held\n") == 1
        assert [process.returncode for process in processes].count(BUSY) == 7
        for line in first_lines[:winner] + first_lines[winner + 1 :]:
            assert re.match(rb"busy user\d, pid \d+, since ", line)
