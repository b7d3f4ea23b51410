"""The runner stopped, or told that the disk is full or broken, at every call that changes the disk."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaign import campaign_count, is_campaign
from tests.linux_runner.board import APP, DIED, Board, Version

CREATE, IO = 73, 74
MODES = {"killed": None, "disk full": errno.ENOSPC, "input/output error": errno.EIO}
UPLOADED = "faulted0"


@dataclass(frozen=True, slots=True)
class Scene:
    """v1, v2 and v3 have been deployed and v4 uploaded; `command` is the one that is disturbed."""

    board: Board
    versions: tuple[Version, ...]
    template: Path

    def restore(self) -> None:
        shutil.rmtree(self.board.home)
        shutil.copytree(self.template, self.board.home, symlinks=True)

    def check_next(self) -> None:
        """The next deployment succeeds, and leaves no trace of what happened before."""
        current, fifth = self.board.current(), self.versions[4]
        before = {version.hash for version in self.versions[:4]}
        self.board.deploy(fifth)
        assert self.board.answers() == fifth.name
        kept = {fifth.hash} | ({current} if current else set())
        assert kept <= self.board.installed() <= kept | before
        assert len(self.board.installed()) <= 3
        uploads = f"{APP}/incoming/{UPLOADED}"
        expected = {APP, f"{APP}/current", f"{APP}/incoming"}
        for hash_ in self.board.installed():
            expected |= {f"{APP}/{hash_}", f"{APP}/{hash_}/runner", f"{APP}/{hash_}/history"}
        assert set(self.board.files()) - {uploads} == expected


def scene(board: Board, template: Path, *, deployed: int, installed: bool) -> Scene:
    versions = tuple(board.version(number) for number in range(5))
    for version in versions[4 - 1 - deployed : 3]:
        board.deploy(version)
    if installed:
        assert board.install(versions[3]).returncode == 0
    else:
        board.upload(versions[3], UPLOADED)
    shutil.copytree(board.home, template, symlinks=True)
    return Scene(board, versions, template)


def disturbed(
    command: Callable[[dict[str, str]], subprocess.CompletedProcess[bytes]], error: int | None
) -> Iterator[subprocess.CompletedProcess[bytes]]:
    """The command stopped at its first call, its second, and so on, until it has no more."""
    for at in range(1, 100):
        environment = {"EDGEKIT_FAULT_AT": str(at)}
        if error is not None:
            environment["EDGEKIT_FAULT_ERRNO"] = str(error)
        done = command(environment)
        if f"fault injected at call {at}:".encode() not in done.stderr:
            assert done.returncode == 0, done.stderr
            return
        if error is None:
            assert done.returncode == DIED
        else:
            assert done.returncode in (0, CREATE, IO), done.stderr
        yield done
    raise AssertionError("the command makes more than a hundred calls")


@pytest.fixture
def error(request: pytest.FixtureRequest) -> int | None:
    return MODES[request.param]


def everywhere(name: str, values: list[int]) -> pytest.MarkDecorator:
    """Each mode and value on this machine; where programs are slow, all of them in a campaign only."""
    cases = [("host", mode, value) for mode in MODES for value in values]
    for machine in ("aarch64", "armv7"):
        all_ = [(machine, mode, value) for mode in MODES for value in values]
        cases += all_ if is_campaign() else [(machine, "killed", values[-1])]
    return pytest.mark.parametrize(("faulty_board", "error", name), cases, indirect=["faulty_board", "error"])


@everywhere("deployed", [0, 1, 3])
def test_install(faulty_board: Board, tmp_path: Path, error: int | None, deployed: int) -> None:
    board = faulty_board
    stage = scene(board, tmp_path / "template", deployed=deployed, installed=False)
    third, fourth = stage.versions[2:4]
    current = third.hash if deployed else None
    upload = board.app / "incoming" / UPLOADED
    seen = 0

    def command(environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        stage.restore()
        return board.run(upload, "install", APP, fourth.sha256, extra=environment)

    for done in disturbed(command, error):
        seen += 1
        assert board.current() == current
        if current:
            assert board.answers() == third.name
        if done.returncode == 0:
            assert fourth.hash in board.installed()
        stage.check_next()
    assert seen >= 8


@everywhere("deployed", [0, 1, 3])
def test_activate(faulty_board: Board, tmp_path: Path, error: int | None, deployed: int) -> None:
    board = faulty_board
    stage = scene(board, tmp_path / "template", deployed=deployed, installed=True)
    second, third, fourth = stage.versions[1:4]
    before = third.hash if deployed else None
    seen, switched = 0, False

    def command(environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        stage.restore()
        return board.activate(fourth, environment)

    for done in disturbed(command, error):
        seen += 1
        now = board.current()
        if error is None:
            assert now in (before, fourth.hash)
            assert not switched or now == fourth.hash, "one call switches, and none after it takes that back"
            switched = now == fourth.hash
        elif done.returncode == 0 or done.stdout:
            # Switched: only pruning failed, or the answer, of which a part came.
            assert now == fourth.hash
            switched = True
        else:
            assert now == before, "a switch that is told to have failed has not happened"
        if now:
            assert board.answers() == (fourth.name if switched else third.name)
        if deployed == 3:
            done = board.rollback()
            assert done.returncode == 0, done.stderr
            assert board.current() == (third.hash if switched else second.hash), "its history is whole"
        stage.check_next()
    assert seen >= 11
    assert switched


@everywhere("deployed", [3])
def test_rollback(faulty_board: Board, tmp_path: Path, error: int | None, deployed: int) -> None:
    board = faulty_board
    stage = scene(board, tmp_path / "template", deployed=deployed, installed=True)
    first, second, third = stage.versions[:3]
    seen, switched = 0, False

    def command(environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        stage.restore()
        return board.rollback(environment)

    for done in disturbed(command, error):
        seen += 1
        now = board.current()
        if error is None:
            assert now in (third.hash, second.hash)
            assert not switched or now == second.hash
        else:
            assert (now == second.hash) == bool(done.stdout)
        switched = now == second.hash
        assert board.answers() == (second.name if switched else third.name)
        assert board.rollback().returncode == 0
        assert board.current() == (first.hash if switched else second.hash)
        stage.check_next()
    assert seen >= 11
    assert switched


@everywhere("again", [2])
def test_hold(faulty_board: Board, tmp_path: Path, error: int | None, again: int) -> None:
    board = faulty_board
    upload = board.upload(board.version(1))
    program = tmp_path / "runner"
    shutil.copy(upload, program)
    seen = 0

    def command(environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
        shutil.rmtree(board.root)
        return board.run(program, "hold", "me", extra=environment)

    for done in disturbed(command, error):
        seen += 1
        assert b"held\n" not in done.stdout
        for _ in range(again):
            assert board.run(program, "hold", "me").stdout == b"held\n"
        assert (board.root / "lock").read_text().startswith("me, pid ")
    assert seen >= 5


def test_an_upload_that_is_cut_off_changes_nothing(board: Board) -> None:
    old, new = board.version(1), board.version(2)
    board.deploy(old)
    before = board.files()
    draw = random.Random(3)
    whole = len(new.content)
    for size in [0, 1, 4, 64, whole - 1, *(draw.randrange(whole) for _ in range(campaign_count(200, 6)))]:
        path = board.upload(new)
        path.write_bytes(new.content[:size])
        try:
            done = board.run(path, "install", APP, new.sha256)
        except OSError:
            pass  # not even a program
        else:
            assert done.returncode != 0
            assert not done.stdout
        assert board.answers() == old.name
        path.unlink(missing_ok=True)
        assert board.files() == before
    board.deploy(new)


def test_killed_at_any_moment(board: Board) -> None:
    """Not at chosen calls but in time: the loader, a page that is written, the kernel's own work."""
    a, b = board.version(1), board.version(2)
    board.deploy(a)
    board.deploy(b)
    draw = random.Random(9)
    previous, other = b, a
    for _ in range(campaign_count(500, 15)):
        assert board.install(other).returncode == 0
        argv = [*board.machine.command(board.app / other.hash / "runner"), "activate", APP, other.hash]
        process = subprocess.Popen(argv, env=board.env(), stdout=subprocess.DEVNULL)
        try:
            process.wait(draw.uniform(0.0, 0.006 if board.machine.emulator is None else 0.06))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        now = board.answers()
        assert now in (previous.name, other.name)
        if now == other.name:
            previous, other = other, previous
    board.deploy(board.version(3))
    assert {path.name for path in board.app.iterdir()} == board.installed() | {"current", "incoming"}


# --- a disk that is full indeed ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(host_board: Board) -> Iterator[Board]:
    """A home of 10 MB and 40 files."""
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("not installed: mount")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=10m,nr_inodes=40,mode=700", "edgekit-test", str(host_board.home)],
        capture_output=True,
        timeout=10,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield host_board
    finally:
        subprocess.run(["umount", str(host_board.home)], capture_output=True, timeout=10, check=True)


def is_full(write: Callable[[], object]) -> bool:
    try:
        write()
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False


def fill_bytes(folder: Path) -> Path:
    path = folder / "filler"
    with path.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1):
            while not is_full(lambda size=size: filler.write(bytes(size))):  # type: ignore[misc]
                assert path.stat().st_size < 1 << 24
    return path


def fill_files(folder: Path) -> Path:
    fillers = folder / "fillers"
    fillers.mkdir()
    numbers = iter(range(1000))
    while not is_full(lambda: (fillers / str(next(numbers))).touch()):
        pass
    return fillers


@pytest.mark.parametrize("fill", [fill_bytes, fill_files])
def test_a_full_disk(small_disk: Board, fill: Callable[[Path], Path]) -> None:
    board = small_disk
    a, b, c, d = (board.version(number) for number in range(4))
    board.deploy(a)
    board.deploy(b)
    assert board.install(c).returncode == 0
    board.upload(d, UPLOADED)
    filler = fill(board.home)
    before = {name: kind for name, kind in board.files().items() if "/incoming/" not in name}

    done = board.activate(c)
    assert (done.returncode, done.stdout) == (IO, b"")
    assert b"No space left on device" in done.stderr
    assert board.current() == b.hash
    assert board.answers() == b.name
    done = board.run(board.app / "incoming" / UPLOADED, "install", APP, d.sha256)
    assert done.returncode in (0, IO), "a rename into a new folder may need no space"
    assert board.answers() == b.name
    after = {name: kind for name, kind in board.files().items() if "/incoming/" not in name}
    assert {name for name in after if d.hash not in name} == set(before)
    done = board.rollback()
    assert done.returncode in (0, IO), "going back to the first version writes nothing but an empty file"
    assert board.answers() == (a.name if done.returncode == 0 else b.name)

    current = board.current()
    if filler.is_dir():
        shutil.rmtree(filler)
    else:
        filler.unlink()
    board.deploy(d)
    assert board.answers() == d.name
    assert board.rollback().returncode == 0
    assert board.current() == current, "that is what was current before"


# --- the order in which it is made durable ----------------------------------------------------------------


def calls_of(board: Board, stage: Scene, program: Path, *arguments: str) -> list[str]:
    """Names of the calls that the undisturbed command makes, told by stopping it at each."""
    names: list[str] = []
    for at in range(1, 100):
        stage.restore()
        done = board.run(program, *arguments, extra={"EDGEKIT_FAULT_AT": str(at)})
        if done.returncode == 0:
            return names
        names.append(done.stderr.decode().rsplit(": ", 1)[1].strip())
    raise AssertionError("the command makes more than a hundred calls")


@pytest.mark.parametrize("faulty_board", ["host"], indirect=True)
def test_nothing_is_renamed_before_it_is_on_the_disk(faulty_board: Board, tmp_path: Path) -> None:
    """What a power cut would show and a killed process does not."""
    board = faulty_board
    stage = scene(board, tmp_path / "uploaded", deployed=3, installed=False)
    fourth = stage.versions[3]
    calls = calls_of(board, stage, board.app / "incoming" / UPLOADED, "install", APP, fourth.sha256)
    assert calls == ["fchmod", "fsync", "mkdir", "rename", "fsync", "fsync", "fsync", "write"]

    stage.restore()
    assert board.run(board.app / "incoming" / UPLOADED, "install", APP, fourth.sha256).returncode == 0
    installed = Scene(board, stage.versions, tmp_path / "installed")
    shutil.copytree(board.home, installed.template, symlinks=True)
    history = ["unlink", "create", "write", "fsync", "rename", "fsync"]
    switch = ["unlink", "symlink", "rename", "fsync"]
    prune = ["unlink", "unlink", "unlink", "rmdir"]
    runner = board.app / "current" / "runner"
    calls = calls_of(board, installed, runner, "activate", APP, fourth.hash)
    assert calls == [*history, *switch, *prune, "write"]
    calls = calls_of(board, installed, runner, "rollback", APP)
    assert calls == [*history, *switch, "write"]
