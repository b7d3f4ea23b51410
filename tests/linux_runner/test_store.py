"""Install, activate, roll back, status, prune: what they leave on the disk, and what they refuse."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.campaign import campaign_count
from tests.linux_runner.board import APP, Board

USAGE, MISMATCH, NOTHING, CREATE, BUSY = 64, 65, 66, 73, 75
DAY_S = 24 * 60 * 60


def rolled_back(board: Board) -> str | None:
    """The version that it went to, or None when there was none before."""
    done = board.rollback()
    if done.returncode == NOTHING:
        assert (done.stdout, done.stderr) == (b"", b"kws: no version was current before\n")
        return None
    assert done.returncode == 0, done.stderr
    word, version = done.stdout.decode().split()
    assert (word, version) == ("current", board.current())
    return version


def test_a_deployment(board: Board) -> None:
    version = board.version(1)
    before = time.time() - 2
    board.deploy(version)
    assert board.files() == {
        "kws": "folder 700",
        "kws/current": f"link to {version.hash}",
        "kws/incoming": "folder 700",
        f"kws/{version.hash}": "folder 700",
        f"kws/{version.hash}/history": "file 600",
        f"kws/{version.hash}/runner": "file 700",
    }
    assert (board.app / version.hash / "runner").read_bytes() == version.content
    assert board.answers() == version.name
    done = board.run(board.app / "current" / "runner", "status")
    app, hash_, state, size, installed = done.stdout.decode().split()
    assert (app, hash_, state, int(size)) == (APP, version.hash, "current", len(version.content))
    assert before < int(installed) < time.time() + 2


def test_a_runner_without_arguments_serves(board: Board) -> None:
    version = board.version(1)
    board.deploy(version)
    done = board.run(board.app / "current" / "runner")
    assert done.returncode == 0
    assert version.name.encode() in done.stdout


def test_rollback_goes_back_twice_and_the_next_activation_follows_from_there(board: Board) -> None:
    a, b, c, d, e = versions = [board.version(number) for number in range(5)]
    for version in versions[:4]:
        board.deploy(version)
    assert board.installed() == {b.hash, c.hash, d.hash}, "a has been pruned"
    assert rolled_back(board) == c.hash
    assert board.answers() == c.name
    assert rolled_back(board) == b.hash
    assert rolled_back(board) is None
    assert board.answers() == b.name
    assert board.installed() == {b.hash, c.hash, d.hash}, "going back removes nothing"
    board.deploy(e)
    assert board.installed() == {b.hash, e.hash}, "what was left is pruned"
    assert rolled_back(board) == b.hash
    assert rolled_back(board) is None
    assert a.hash not in board.installed()


def test_a_version_that_was_left_can_be_activated_again(board: Board) -> None:
    a, b, c = (board.version(number) for number in range(3))
    for version in (a, b, c):
        board.deploy(version)
    assert rolled_back(board) == b.hash
    assert board.activate(c).returncode == 0
    assert [rolled_back(board) for _ in range(3)] == [b.hash, a.hash, None]


def test_an_earlier_version_moves_to_the_end_of_the_line(board: Board) -> None:
    a, b, c = (board.version(number) for number in range(3))
    for version in (a, b, c, b):
        board.deploy(version)
    assert board.installed() == {a.hash, b.hash, c.hash}
    assert [rolled_back(board) for _ in range(3)] == [c.hash, a.hash, None]
    for version in (b, c, a, b):
        board.deploy(version)
    assert [rolled_back(board) for _ in range(3)] == [a.hash, c.hash, None]


def test_the_current_version_again_changes_nothing(board: Board) -> None:
    a, b = board.version(1), board.version(2)
    board.deploy(a)
    board.deploy(b)
    before = board.files()
    board.deploy(b)
    assert board.files() == before
    assert board.answers() == b.name
    assert [rolled_back(board), rolled_back(board)] == [a.hash, None]


def test_a_damaged_version_is_replaced_when_it_is_installed_again(host_board: Board) -> None:
    version = host_board.version(1)
    host_board.deploy(version)
    (host_board.app / version.hash / "runner").write_bytes(b"cut")
    host_board.deploy(version)
    assert host_board.answers() == version.name


def test_status_has_a_line_a_version(host_board: Board) -> None:
    versions = [host_board.version(number) for number in range(3)]
    for version in versions:
        host_board.deploy(version)
    (host_board.root / "lock").write_text("somebody\n")
    (host_board.root / "Not an app").mkdir()
    (host_board.root / "empty").mkdir()
    other = host_board.root / "other" / "0123456789abcdef"
    other.mkdir(parents=True)
    (other / "runner").write_bytes(bytes(5))
    done = host_board.run(host_board.app / "current" / "runner", "status")
    lines = [line.split()[:4] for line in done.stdout.decode().splitlines()]
    size = str(len(host_board.runner))
    expected = [
        [APP, version.hash, "current" if version is versions[-1] else "kept", size] for version in versions
    ]
    assert lines == [*sorted(expected), ["other", other.name, "kept", "5"]]


def test_prune_removes_versions_that_were_never_current_and_old_uploads(host_board: Board) -> None:
    a, b, c = (host_board.version(number) for number in range(3))
    host_board.deploy(a)
    assert host_board.install(b).returncode == 0
    unfinished = host_board.app / "00000000000000ff"
    unfinished.mkdir()
    ages = {"old00000": DAY_S + 60, "older000": 90 * DAY_S, "fresh000": DAY_S - 60, "UPPER000": 90 * DAY_S}
    for token, age_s in ages.items():
        path = host_board.upload(b, token)
        os.utime(path, (time.time() - age_s,) * 2)
    host_board.deploy(c)
    assert host_board.installed() == {a.hash, c.hash}
    assert not unfinished.exists()
    incoming = sorted(path.name for path in (host_board.app / "incoming").iterdir())
    assert incoming == ["UPPER000", "fresh000"], "what is not an upload's name is not edgekit's"


def test_what_prune_cannot_remove_stays_and_does_not_fail_the_switch(host_board: Board) -> None:
    a, b = host_board.version(1), host_board.version(2)
    stranger = host_board.app / "00000000000000ff"
    host_board.deploy(a)
    stranger.mkdir()
    (stranger / "notes").write_text("mine")
    assert host_board.install(b).returncode == 0
    done = host_board.activate(b)
    assert (done.returncode, done.stdout) == (0, f"current {b.hash}\n".encode())
    assert b"could not be removed" in done.stderr
    assert (stranger / "notes").read_text() == "mine"


def test_another_hash_is_refused_and_the_upload_removed(board: Board) -> None:
    a, b = board.version(1), board.version(2)
    board.deploy(a)
    before = board.files()
    done = board.run(board.upload(b), "install", APP, a.sha256)
    assert done.returncode == MISMATCH
    assert b.sha256.encode() in done.stderr
    assert board.files() == before


def test_a_damaged_upload_is_refused(board: Board) -> None:
    version = board.version(1)
    path = board.upload(version)
    path.write_bytes(version.content + b"\0")
    assert board.run(path, "install", APP, version.sha256).returncode == MISMATCH
    assert not (board.app / version.hash).exists()


def test_only_an_upload_installs_itself(host_board: Board, tmp_path: Path) -> None:
    version = host_board.version(1)
    host_board.upload(version)
    elsewhere = tmp_path / "upload00"
    elsewhere.write_bytes(version.content)
    elsewhere.chmod(0o700)
    done = host_board.run(elsewhere, "install", APP, version.sha256)
    assert (done.returncode, done.stderr) == (NOTHING, b"this program is not an upload to kws\n")
    assert not (host_board.app / version.hash).exists()


def test_an_upload_to_another_application_is_refused(host_board: Board) -> None:
    version = host_board.version(1)
    path = host_board.upload(version)
    (host_board.root / "ic" / "incoming").mkdir(parents=True)
    assert host_board.run(path, "install", "ic", version.sha256).returncode == NOTHING
    assert host_board.run(path, "install", "missing", version.sha256).returncode == NOTHING
    assert not (host_board.root / "missing").exists()


def test_what_is_not_installed_is_not_activated(board: Board) -> None:
    version = board.version(1)
    board.deploy(version)
    before = board.files()
    runner = board.app / "current" / "runner"
    for hash_ in ("0" * 16, board.version(2).hash):
        done = board.run(runner, "activate", APP, hash_)
        assert (done.returncode, done.stderr) == (NOTHING, f"{hash_} is not installed\n".encode())
    (board.app / ("1" * 16)).mkdir()
    assert board.run(runner, "activate", APP, "1" * 16).returncode == NOTHING, "without a runner in it"
    (board.app / ("1" * 16)).rmdir()
    assert board.files() == before


HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "../../x",
    "/tmp/x",
    "a/b",
    "kws/",
    "-rf",
    "--help",
    "_x",
    "Kws",
    "k ws",
    "kws\n",
    "kws\nic",
    "kws\t",
    "$(touch x)",
    "`touch x`",
    "k;touch x",
    "k*",
    "ÄÖ",
    "\x1b[31m",
    "k" * 65,
    "k" * 10_000,
    "lock",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_and_nothing_is_made(host_board: Board, name: str) -> None:
    version = host_board.version(1)
    host_board.deploy(version)
    upload = host_board.upload(host_board.version(2))
    before = host_board.files()
    commands = [
        ("install", name, host_board.version(2).sha256),
        ("install", APP, name),
        ("activate", name, version.hash),
        ("activate", APP, name),
        ("rollback", name),
    ]
    for command in commands:
        done = host_board.run(upload, *command)
        assert done.returncode == USAGE, (command, done.stderr)
        assert done.stdout == b""
        assert done.stderr.startswith(b"'")
        assert done.stderr.count(b"\n") == 1
        assert done.stderr[:-1].isascii()
        assert done.stderr[:-1].decode().isprintable()
        assert len(done.stderr) < 120
    assert host_board.files() == before
    assert sorted(path.name for path in host_board.home.iterdir()) == [".edgekit"]
    assert host_board.answers() == version.name


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        ("--help",),
        ("-c",),
        ("Serve",),
        ("install",),
        ("install", APP),
        ("install", APP, "0" * 64, "more"),
        ("activate", APP),
        ("activate", APP, "0" * 16, "more"),
        ("rollback",),
        ("status", APP),
        ("health", "now"),
        ("hold",),
        ("hold", "me", "you"),
        ("serve", "a", "b", "c", "d", "e"),
        ("serve\n",),
    ],
)
def test_other_command_lines_are_refused(host_board: Board, arguments: tuple[str, ...]) -> None:
    done = host_board.run(host_board.upload(host_board.version(1)), *arguments)
    assert (done.returncode, done.stdout) == (USAGE, b"")
    assert done.stderr.startswith(b"usage: ")


def test_home_must_be_named(board: Board) -> None:
    version = board.version(1)
    upload = board.upload(version)
    commands = [("install", APP, version.sha256), ("rollback", APP), ("status",), ("hold", "me")]
    for home in ("", "relative", None):
        board.environment = {} if home is None else {"HOME": home}
        environment = board.env()
        if home is None:
            environment.pop("HOME")
        for command in commands:
            done = _run_in(board, environment, upload, *command)
            assert (done[0], done[1]) == (USAGE, b""), command
            assert b"HOME must name the home folder" in done[2]
    board.environment = {"HOME": "/nonexistent/home"}
    assert board.run(upload, "status").returncode == NOTHING


def _run_in(
    board: Board, environment: dict[str, str], program: Path, *arguments: str
) -> tuple[int, bytes, bytes]:
    argv = [*board.machine.command(program), *arguments]
    done = subprocess.run(argv, env=environment, input=b"", capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("place", [".edgekit", "kws", "incoming", "version"])
def test_symbolic_links_in_the_place_of_folders_are_refused(
    host_board: Board, tmp_path: Path, place: str
) -> None:
    version = host_board.version(1)
    upload = host_board.upload(version)
    folder = {
        ".edgekit": host_board.root,
        "kws": host_board.app,
        "incoming": host_board.app / "incoming",
        "version": host_board.app / version.hash,
    }[place]
    elsewhere = tmp_path / "elsewhere"
    if place == "version":
        elsewhere.mkdir()
    else:
        folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    done = host_board.run(upload, "install", APP, version.sha256)
    assert done.returncode == CREATE, done.stderr
    assert b"Not a directory" in done.stderr
    assert sorted(elsewhere.rglob("*")) == before
    if place in (".edgekit", "kws"):
        assert host_board.run(upload, "rollback", APP).returncode == CREATE
    if place == "version":
        (elsewhere / "runner").write_bytes(version.content)
        done = host_board.run(upload, "activate", APP, version.hash)
        assert done.returncode == NOTHING, "through a symbolic link there is no version"


def test_a_link_in_the_place_of_a_runner_is_no_version(host_board: Board, tmp_path: Path) -> None:
    version = host_board.version(1)
    upload = host_board.upload(version)
    (host_board.app / version.hash).mkdir()
    (host_board.app / version.hash / "runner").symlink_to("/bin/true")
    assert host_board.run(upload, "activate", APP, version.hash).returncode == NOTHING


def test_current_that_is_something_else_is_left_alone(host_board: Board) -> None:
    version = host_board.version(1)
    assert host_board.install(version).returncode == 0
    current = host_board.app / "current"
    runner = host_board.app / version.hash / "runner"
    current.mkdir()
    assert host_board.run(runner, "activate", APP, version.hash).returncode == CREATE
    assert host_board.run(runner, "rollback", APP).returncode == CREATE
    current.rmdir()
    current.symlink_to("/etc")
    done = host_board.run(runner, "activate", APP, version.hash)
    assert (done.returncode, done.stderr) == (
        CREATE,
        b"current: a symbolic link to something else than a version\n",
    )
    current.unlink()
    assert host_board.activate(version).returncode == 0


@pytest.mark.parametrize(
    "text", ["", "nonsense", "../../../../etc/x\n", "f" * 16, "F" * 16 + "\n", "\0" * 64, "x" * 10_000]
)
def test_a_damaged_history_is_no_history(host_board: Board, text: str) -> None:
    a, b = host_board.version(1), host_board.version(2)
    host_board.deploy(a)
    host_board.deploy(b)
    (host_board.app / b.hash / "history").write_text(text)
    assert rolled_back(host_board) is None
    assert host_board.answers() == b.name


def test_commands_on_one_application_wait_for_each_other(host_board: Board) -> None:
    a, b = host_board.version(1), host_board.version(2)
    host_board.deploy(a)
    assert host_board.install(b).returncode == 0
    folder = os.open(host_board.app, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    held_s = 0.6
    timer = threading.Timer(held_s, os.close, [folder])
    started = time.monotonic()
    timer.start()
    try:
        assert host_board.activate(b).returncode == 0
        took_s = time.monotonic() - started
    finally:
        timer.join()
    assert took_s >= held_s


def test_many_cycles_leave_nothing_behind(board: Board) -> None:
    first, second, third = (board.version(number) for number in range(3))
    for version in (first, second, third):
        board.deploy(version)
    before = board.files()
    for _ in range(campaign_count(100, 100 if board.machine.emulator is None else 5)):
        assert rolled_back(board) == second.hash
        board.deploy(third)
    assert board.answers() == third.name
    assert board.files() == before
    assert _programs_below(board.root) == []


def _programs_below(folder: Path) -> list[str]:
    """Command lines of processes that have a file below `folder` on them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found
