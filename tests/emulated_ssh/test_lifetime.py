"""However a board ends, nothing of it is left; and who may have one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.device.emulated_ssh import board_folder, emulated_board
from edgekit.device.ssh.host import SshHost
from edgekit.device.sshd import new_session
from edgekit.errors import DeviceError, MissingToolError, TargetError
from edgekit.target import Target, load_target

from .boards import processes_with, run_on, ssh_argv, wait_until_gone
from .test_tick_plugin import LOOP

HOLDER = Path(__file__).with_name("holder.py")
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def _started(environment: dict[str, str], *become: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps rpi4-emulated; it is killed at the end."""
    python = () if become else (sys.executable,)
    with subprocess.Popen(
        [*become, *python, str(HOLDER), "rpi4-emulated"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)} | environment,
        cwd="/",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _board_of(process: subprocess.Popen[bytes]) -> tuple[SshHost, str]:
    """The board that a started process keeps, and what it says of ticks."""
    assert process.stdout is not None
    config, _, ticks = process.stdout.readline().decode().strip().partition(" ")
    assert config
    return SshHost("rpi4-emulated", Path(config)), ticks


SPIN = "~/program spin"
DETACHED = "setsid sh -c 'echo spinning; exec sleep 6137' & sleep 6137"
"""A process that has left its session and its terminal, as a daemon does."""


@contextlib.contextmanager
def _busy(host: SshHost, programs: dict[str, Path], *commands: str) -> Iterator[None]:
    """Clients whose commands never end."""
    home = board_folder(load_target("rpi4-emulated")) / "home"
    if not (home / "program").exists():
        shutil.copy2(programs["aarch64"], home / "program")
    with contextlib.ExitStack() as clients:
        for command in commands:
            client = clients.enter_context(
                subprocess.Popen(
                    [*ssh_argv(host), command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
            clients.callback(client.kill)
            assert client.stdout is not None
            assert client.stdout.readline() == b"spinning\n"
        yield


def _on_the_board(word: str) -> list[str]:
    """Processes with `word` that are not its clients."""
    return [line for line in processes_with(word).values() if not line.startswith("ssh ")]


def test_nothing_is_left_when_it_ends(world: Path, programs: dict[str, Path]) -> None:
    with contextlib.ExitStack() as clients:
        with emulated_board(load_target("rpi4-emulated")) as host:
            assert host.config is not None
            session = host.config.parent
            clients.enter_context(_busy(host, programs, SPIN, DETACHED))
            assert processes_with(f"{session}/python")
            assert _on_the_board("sleep 6137")
        # At once, while the clients are still there: the context ends when all processes have.
        assert processes_with(f"{session}/python") == {}
        assert _on_the_board("sleep 6137") == []
        assert not session.exists()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_nothing_is_left_when_edgekit_is_killed(
    number: signal.Signals, world: Path, programs: dict[str, Path]
) -> None:
    with _started(dict(os.environ)) as process:
        host, _ = _board_of(process)
        assert host.config is not None
        session = host.config.parent
        with _busy(host, programs, SPIN, DETACHED):
            process.send_signal(number)
            process.wait(20)
            assert wait_until_gone(f"{session}/python") == {}
    assert wait_until_gone(session.name) == {}
    assert wait_until_gone("sleep 6137") == {}
    assert not session.exists()


def test_nothing_is_left_when_the_keeper_is_killed(world: Path, programs: dict[str, Path]) -> None:
    with emulated_board(load_target("rpi4-emulated")) as host:
        assert host.config is not None
        session = host.config.parent
        with _busy(host, programs, SPIN):
            keeper = next(
                process for process, line in processes_with(str(session)).items() if "board_keeper.py" in line
            )
            os.kill(keeper, signal.SIGKILL)
            assert run_on(host, "true").status == 255
    assert wait_until_gone(session.name) == {}
    assert not session.exists()


def test_a_program_ends_with_its_connections_input(world: Path, programs: dict[str, Path]) -> None:
    with emulated_board(load_target("rpi4-emulated")) as host:
        argv = [*ssh_argv(host), "cat"]
        client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert client.stdin is not None
        client.stdin.close()
        assert client.wait(20) == 0


def test_what_a_killed_edgekit_left_is_swept_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "t"
    place.mkdir()
    short = Path(f"/tmp/edgekit-test-{os.getpid()}")
    short.symlink_to(place)
    monkeypatch.setattr("tempfile.tempdir", str(short))
    try:
        with new_session(tmp_path) as running:
            left = place / "edgekit-board-left"
            left.mkdir()
            (left / "alive").touch()
            young = place / "edgekit-board-young"  # another process is just making it
            young.mkdir()
            with new_session(tmp_path) as second:
                assert second.folder != running.folder
                assert not left.exists()
                assert young.exists()
                assert running.folder.exists()
            assert not second.folder.exists()
        assert sorted(path.name for path in place.iterdir()) == ["edgekit-board-young"]
    finally:
        short.unlink()


def test_starting_is_quick_and_leaves_no_descriptor(world: Path) -> None:
    target = load_target("rpi4-emulated")
    with emulated_board(target):
        pass
    before = sorted(Path("/proc/self/fd").iterdir())
    started = time.monotonic()
    for _ in range(5):
        with emulated_board(target):
            pass
    assert time.monotonic() - started < 20
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_new_board_may_be_made_by_several_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"EDGEKIT_HOME": str(tmp_path)}
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(_started(environment)) for _ in range(3)]
        boards = [_board_of(process) for process in made]
        assert [ticks for _, ticks in boards] == ["counts"] * 3
        assert [run_on(host, "true").status for host, _ in boards] == [0, 0, 0]
    assert len(list((tmp_path / "plugins").iterdir())) == 1


def test_temporary_folders_with_a_name_to_quote_are_passed_over(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "a b;'c'"
    hostile.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(hostile))
    with emulated_board(load_target("rpi4-emulated")) as host:
        assert run_on(host, "true").status == 0
        assert host.config is not None
        assert host.config.parent.parent in (Path("/tmp"), Path("/var/tmp"))
    assert list(hostile.iterdir()) == []


def _ordinary_user() -> pwd.struct_passwd | None:
    shells = ("/sh", "/bash", "/dash", "/zsh")
    users = [user for user in pwd.getpwall() if user.pw_uid >= 1000 and user.pw_shell.endswith(shells)]
    return users[0] if users else None


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user; the other tests are an ordinary one's"
)
def test_as_an_ordinary_user(programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    user = _ordinary_user()
    if user is None:
        pytest.skip("this machine has no ordinary user with a login shell")
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    runs = "import os, ssl, sys; sys.exit(not os.access(sys.executable, os.X_OK))"
    pythons = (os.path.realpath(sys.executable), f"/usr/bin/python3.{sys.version_info.minor}")
    python = next(
        (
            path
            for path in pythons
            if not subprocess.run(
                [*become, path, "-c", runs], stderr=subprocess.DEVNULL, timeout=60
            ).returncode
        ),
        None,
    )
    if python is None:
        pytest.skip(f"no Python that {user.pw_name} may run")
    own = Path(f"/tmp/edgekit-test-{os.getpid()}-user")
    own.mkdir()
    try:
        os.chown(own, user.pw_uid, user.pw_gid)
        environment = {
            "HOME": str(own),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(ROOT), sysconfig.get_path("purelib"))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with _started(environment, *become, python) as process:
            host, ticks = _board_of(process)
            assert ticks == "counts"
            home = own / ".cache/edgekit/boards/rpi4-emulated/home"
            shutil.copy2(programs["aarch64"], home / "program")
            os.chown(home / "program", user.pw_uid, user.pw_gid)
            mine = f"ssh -T -F {host.config} -- {host.destination}"
            for command, said in (("id -un", user.pw_name), ("~/program count", "\n".join([str(LOOP)] * 3))):
                done = subprocess.run(
                    [*become, *mine.split(), command],
                    capture_output=True,
                    timeout=60,
                    check=True,
                    env=environment,
                )
                assert done.stdout.decode().strip() == said
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(20) == 0
            assert host.config is not None
        assert wait_until_gone(host.config.parent.name) == {}
        assert not host.config.parent.exists()
    finally:
        shutil.rmtree(own)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ((), "openssh-server openssh-client qemu-user"),
        (("ssh", "ssh-keygen", "qemu-aarch64"), "openssh-server"),
        (("sshd", "qemu-aarch64", "ssh"), "openssh-client"),
        (("sshd", "ssh", "ssh-keygen"), "qemu-user"),
    ],
    ids=str,
)
def test_missing_programs_are_named_with_their_packages(
    there: tuple[str, ...], named: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.device import sshd

    for name in there:
        (tmp_path / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sshd, "_SYSTEM_FOLDERS", ())
    with pytest.raises(MissingToolError) as raised, emulated_board(load_target("rpi4-emulated")):
        pass
    assert raised.value.hint == f"sudo apt-get install -y {named}"
    assert raised.value.exit_code == 9


def test_only_emulated_linux_boards_are_played(world: Path) -> None:
    for name in ("host", "rpi4", "mps2-an386"):
        with pytest.raises(TargetError, match="no emulated linux board"), emulated_board(load_target(name)):
            pass


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "-F",
        "a b",
        "a;id",
        "$(id)",
        "a\nb",
        "a\x00b",
        "A",
        "é",
        "a" * 49,
        "%h",
        "#",
    ],
    ids=ascii,
)
def test_a_name_that_no_schema_checked_is_checked(name: str, world: Path) -> None:
    before = sorted(world.rglob("*"))
    hostile = load_target("rpi4-emulated").model_copy(update={"name": name})
    with pytest.raises(TargetError), emulated_board(hostile):
        pass
    assert sorted(world.rglob("*")) == before


@pytest.mark.parametrize("cpu", ["", "-version", "a,b", "../x", "max host", "x\n"], ids=ascii)
def test_a_core_that_no_schema_checked_is_checked(cpu: str, world: Path) -> None:
    target = load_target("rpi4-emulated")
    assert target.emulator is not None
    hostile = target.model_copy(update={"emulator": target.emulator.model_copy(update={"cpu": cpu})})
    with pytest.raises(TargetError), emulated_board(hostile):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="Not a directory"), emulated_board(load_target("rpi4-emulated")):
        pass


def test_where_boards_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target: Target = load_target("rpi4-emulated")
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "own"))
    assert board_folder(target) == tmp_path / "own/boards/rpi4-emulated"
    monkeypatch.delenv("EDGEKIT_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert board_folder(target) == tmp_path / "cache/edgekit/boards/rpi4-emulated"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert board_folder(target) == tmp_path / "me/.cache/edgekit/boards/rpi4-emulated"


def test_a_user_who_is_locked_out_is_told_why(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("rpi5-emulated")
    with emulated_board(target):
        pass
    folder = board_folder(target)
    (folder / "login-works").unlink()
    (folder / "authorized_keys").write_text("")
    with pytest.raises(DeviceError, match="Permission denied") as raised, emulated_board(target):
        pass
    assert "its sshd says: " in raised.value.message
    assert raised.value.hint is not None
    (folder / "authorized_keys").unlink()
    with emulated_board(target) as host:
        assert run_on(host, "true").status == 0
