"""The agent with threads and on a core, and the whole runner under the sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.device import toy
from tests.linux_runner.board import APP, Board
from tests.linux_runner.build import Machine, build_runner

USAGE, NOTHING = 64, 66


@pytest.mark.parametrize(
    "options",
    [
        ["--threads"],
        ["--threads", ""],
        ["--threads", "0"],
        ["--threads", "-1"],
        ["--threads", "257"],
        ["--threads", "2x"],
        ["--threads", " 2"],
        ["--threads", "0x2"],
        ["--threads", "99999999999999999999"],
        ["--core", "-1"],
        ["--core", "10000"],
        ["--core=0"],
        ["--help"],
        ["2"],
        ["--threads", "2", "--core"],
    ],
)
def test_other_options_are_refused(host_board: Board, options: list[str]) -> None:
    done = host_board.run(host_board.upload(host_board.version(1)), "serve", *options)
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert done.stderr == b"serve takes --threads with 1 to 256, and --core\n"


def test_cores_that_are_not_there_are_refused(board: Board) -> None:
    runner = board.upload(board.version(1))
    last = max(os.sched_getaffinity(0))
    for core, threads in ((last + 1, 1), (last, 2), (9999, 1), (1023, 2)):
        done = board.run(runner, "serve", "--core", str(core), "--threads", str(threads))
        assert (done.returncode, done.stdout) == (NOTHING, b"")
        assert done.stderr == f"{threads} of the cores from {core} on cannot be used here\n".encode()


def test_it_answers_with_threads_and_on_a_core(board: Board) -> None:
    board.deploy(board.version(1))
    runner = board.app / "current" / "runner"
    core = str(min(os.sched_getaffinity(0)))
    for options in ([], ["--threads", "1"], ["--threads", "4"], ["--core", core]):
        done = board.run(runner, "serve", *options)
        assert done.returncode == 0
        assert board.version(1).name.encode() in done.stdout


def test_it_keeps_to_its_core(host_board: Board) -> None:
    runner = host_board.upload(host_board.version(1))
    core = max(os.sched_getaffinity(0))
    argv = [str(runner), "serve", "--core", str(core)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\0"  # the agent's thread is there
        threads = [int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()]
        assert len(threads) == 2
        assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({core})}
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("faulty", [False, True])
def test_sanitizers_find_nothing_in_the_commands(host: Machine, tmp_path: Path, faulty: bool) -> None:
    flags = [*toy.SANITIZE, *(["-DEDGEKIT_FAULT_INJECTION"] if faulty else [])]
    image = build_runner(host, tmp_path, *flags, link=("-pthread",))
    home = tmp_path / "home"
    home.mkdir()
    board = Board(host, home, image.read_bytes())
    versions = [board.version(number) for number in range(4)]
    for version in versions:
        board.deploy(version)
        assert board.answers() == version.name
    for expected in (0, 0, NOTHING):
        assert board.rollback().returncode == expected
    upload = board.upload(versions[3])
    codes = {
        ("status",): 0,
        ("health",): 0,
        ("hold", "w" * 200 + "\n"): 0,
        ("hold", ""): 0,
        ("install", "k" * 10_000, "0" * 64): USAGE,
        ("install", APP, "0" * 63): USAGE,
        ("install", APP, "0" * 64): 65,
        ("activate", APP, "\xff" * 16): USAGE,
        ("rollback", "../" * 2_000): USAGE,
        ("serve", "--threads", "9" * 5_000): USAGE,
    }
    for command, code in codes.items():
        if not upload.exists():
            board.upload(versions[3])
        done = board.run(upload, *command)
        assert (done.returncode, b"Sanitizer" in done.stderr) == (code, False), done.stderr
    if faulty:
        for at in range(1, 9):
            done = board.install(versions[3], {"EDGEKIT_FAULT_AT": str(at), "EDGEKIT_FAULT_ERRNO": "28"})
            assert b"Sanitizer" not in done.stderr
            assert done.returncode in (73, 74)
