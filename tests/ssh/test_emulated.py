"""Deployments to an emulated Raspberry Pi 4: a real sshd, real runners, and what can go wrong between them.

After each fault the error is a clean exit 6 or 7 in bounded time, the version that was current still is and
answers, and the next deployment succeeds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.artifacts import Serving
from edgekit.device import board_health, flashed, open_board, unmeasurable
from edgekit.device.emulated_ssh import emulated_board
from edgekit.device.ssh import SshConnection, SshHost, installed_versions, reached, roll_back
from edgekit.device.ssh.argv import Patience
from edgekit.device.ssh.channel import Channel
from edgekit.device.ssh.deployment import SshDeployment, version_of
from edgekit.errors import DeviceError, EdgekitError, UsageError, VerificationError
from edgekit.target import Target, load_target
from tests.campaign import campaign_count
from tests.device import toy

pytestmark = pytest.mark.emulator

ROOT = Path(__file__).resolve().parents[2]
APP = "toy"
INPUT = bytes(range(245)) * 2
FASTEST_S = 30.0
"""Longer than any fault here may take to be told."""


@pytest.fixture(scope="session")
def target() -> Target:
    missing = [
        tool for tool in ("ssh", "qemu-aarch64", "aarch64-linux-gnu-gcc") if shutil.which(tool) is None
    ]
    if shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        missing.append("sshd")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return load_target("rpi4-emulated")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edgekit")


@pytest.fixture(scope="session")
def images(target: Target, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Four runners that answer alike and are different files."""
    return tuple(
        toy.build(target.name, tmp_path_factory.mktemp("image"), flags=(level,), link=("-static",))
        for level in ("-O2", "-O1", "-Os", "-O0")
    )


@pytest.fixture(autouse=True)
def board(cache: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The board's home, empty."""
    monkeypatch.setenv("EDGEKIT_HOME", str(cache))
    home = cache / "boards" / target.name / "home"
    shutil.rmtree(home / ".edgekit", ignore_errors=True)
    return home


def put(target: Target, image: Path) -> str:
    """A deployment without faults; the version."""
    with flashed(target, image, None, app=APP) as deployment:
        assert deployment is not None
        answers(target, image)
        deployment.keep()
        return deployment.version


def answers(target: Target, image: Path, serving: Serving | None = None) -> None:
    with open_board(target, image, None, app=APP, serving=serving or Serving()) as client:
        client.write_input(0, INPUT)
        client.run()
        assert client.read_output(0) == toy.affine_answer(INPUT, 1)


def current(home: Path) -> str | None:
    link = home / ".edgekit" / APP / "current"
    return str(link.readlink()) if link.is_symlink() else None


def current_answers(target: Target, home: Path, version: str) -> None:
    """`current` is `version`, and its program is whole and runs."""
    assert current(home) == version
    image = home / ".edgekit" / APP / "current" / "runner"
    assert version_of(image) == version
    answers(target, image)


def test_deploy_status_rollback(target: Target, images: tuple[Path, ...], board: Path) -> None:
    versions = [put(target, image) for image in images]
    with reached(target, None) as connection:
        installed = installed_versions(connection)
        assert {one.version for one in installed} == set(versions[1:])
        assert [one.version for one in installed if one.current] == versions[3:]
        assert {one.size_bytes for one in installed} == {image.stat().st_size for image in images[1:]}
        assert roll_back(connection, APP) == versions[2]
        assert roll_back(connection, APP) == versions[1]
        with pytest.raises(DeviceError, match="can't be rolled back"):
            roll_back(connection, APP)
    current_answers(target, board, versions[1])
    for image, version in zip(images[1:], versions[1:], strict=True):
        assert version_of(image) == version
    assert [path.name for path in (board / ".edgekit" / APP / "incoming").iterdir()] == []


def test_status_of_a_board_that_nobody_deployed_to(target: Target) -> None:
    with reached(target, None) as connection:
        assert installed_versions(connection) == ()
        with pytest.raises(DeviceError):
            roll_back(connection, APP)


def test_without_keep_the_board_goes_on_with_what_it_had(
    target: Target, images: tuple[Path, ...], board: Path
) -> None:
    first = put(target, images[0])
    with flashed(target, images[1], None, app=APP):
        answers(target, images[1])
    current_answers(target, board, first)


def test_a_bundle_that_is_not_there_is_answered_by_the_current_version(
    target: Target, images: tuple[Path, ...], board: Path
) -> None:
    put(target, images[0])
    answers(target, images[1])
    shutil.rmtree(board / ".edgekit")
    with pytest.raises(DeviceError, match="not on the board") as caught:
        answers(target, images[1])
    assert "edgekit flash" in (caught.value.hint or "")


def test_threads_and_core_reach_the_agent(target: Target, images: tuple[Path, ...]) -> None:
    put(target, images[0])
    answers(target, images[0], Serving(threads=2, core=0))
    with pytest.raises(DeviceError):
        answers(target, images[0], Serving(core=4000))
    assert unmeasurable(target, Serving()) is None
    assert isinstance(unmeasurable(target, Serving(threads=2)), UsageError)


def test_health(target: Target, images: tuple[Path, ...]) -> None:
    put(target, images[0])
    health = board_health(target, images[0], None, app=APP)
    assert health is not None
    assert (health.machine, health.word_bits, health.clock) == ("aarch64", 64, "plugin")
    assert health.disk_free_bytes is not None
    assert health.disk_free_bytes > 0


def test_a_banner_before_everything(target: Target, images: tuple[Path, ...], board: Path) -> None:
    banner = "\x1b[1mWelcome!\x1b[0m\nbusy is nobody\nheld back\n\0\xff" + "EK" * 2000 + "\n"
    with emulated_board(target, banner=banner) as host, SshConnection(host) as connection:
        from edgekit.device.ssh.agent import health_of, served
        from edgekit.device.ssh.deployment import deployed

        with deployed(connection, images[0], APP) as deployment:
            with served(connection, APP, deployment.version, Serving()) as client:
                client.write_input(0, INPUT)
                client.run()
                assert client.read_output(0) == toy.affine_answer(INPUT, 1)
            deployment.keep()
        assert [one.version for one in installed_versions(connection)] == [deployment.version]
        assert health_of(connection, APP, deployment.version).machine == "aarch64"
    assert current(board) == deployment.version


# --- host keys -------------------------------------------------------------------------------------------


def test_an_unknown_host_key(target: Target, cache: Path, tmp_path: Path) -> None:
    with emulated_board(target) as host:
        empty = with_known_hosts(host, tmp_path, "")
        with SshConnection(empty) as connection, pytest.raises(DeviceError, match="is not known") as caught:
            connection.run("true", "testing")
    assert f"ssh -F {empty.config} -o StrictHostKeyChecking=ask" in (caught.value.hint or "")


def test_a_changed_host_key(target: Target, cache: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True, timeout=30
    )
    key = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    with emulated_board(target) as host:
        changed = with_known_hosts(host, tmp_path, f"{host.destination} {key}\n")
        with SshConnection(changed) as connection, pytest.raises(DeviceError, match="HAS CHANGED") as caught:
            connection.run("true", "testing")
        hint = caught.value.hint or ""
        assert f"ssh-keygen -f {tmp_path}/known -R {host.destination}" in hint
        # the command of the hint does what it says
        argv = ["ssh-keygen", "-f", f"{tmp_path}/known", "-R", host.destination]
        subprocess.run(argv, check=True, timeout=30, capture_output=True)
        with SshConnection(changed) as connection, pytest.raises(DeviceError, match="is not known"):
            connection.run("true", "testing")


def test_a_key_that_the_board_does_not_take(target: Target, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "mine")], check=True, timeout=30
    )
    with emulated_board(target) as host:
        wrong = with_line(host, tmp_path, "IdentityFile", str(tmp_path / "mine"))
        with SshConnection(wrong) as connection, pytest.raises(DeviceError, match="neither a key of yours"):
            connection.run("true", "testing")


def with_known_hosts(host: SshHost, folder: Path, text: str) -> SshHost:
    (folder / "known").write_text(text)
    return with_line(host, folder, "UserKnownHostsFile", str(folder / "known"))


def with_line(host: SshHost, folder: Path, key: str, value: str) -> SshHost:
    assert host.config is not None
    lines = [line for line in host.config.read_text().splitlines() if not line.strip().startswith(key)]
    (folder / "config").write_text("\n".join([*lines, f"{key} {value}", ""]))
    return SshHost(host.destination, folder / "config")


# --- broken connections ----------------------------------------------------------------------------------


def cut_connections() -> int:
    """Kill every sshd session that this process's boards have. Returns how many there were."""
    killed = 0
    for pid in descendants(os.getpid()):
        if name_of(pid) == "sshd":
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(after_name[1]), []).append(int(entry.name))
    found: list[int] = []
    pending = [root]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found


def cut_on_write(monkeypatch: pytest.MonkeyPatch, after_bytes: int) -> None:
    """Cut the connections once so many bytes have gone into channels."""
    write_some: Callable[[Channel, memoryview], int] = Channel._write_some
    sent = 0

    def cutting(channel: Channel, data: memoryview) -> int:
        nonlocal sent
        written = write_some(channel, data)
        if sent <= after_bytes < sent + written:
            time.sleep(0.2)
            assert cut_connections() > 0
        sent += written
        return written

    monkeypatch.setattr(Channel, "_write_some", cutting)


def fails_cleanly(action: Callable[[], Any]) -> EdgekitError:
    began = time.monotonic()
    with pytest.raises((DeviceError, VerificationError)) as caught:
        action()
    assert time.monotonic() - began < FASTEST_S
    assert caught.value.exit_code in (6, 7)
    return caught.value


@pytest.mark.parametrize("after_bytes", [0, 200_000, 500_000])
def test_cut_in_the_middle_of_an_upload(
    target: Target,
    images: tuple[Path, ...],
    board: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_bytes: int,
) -> None:
    first = put(target, images[0])
    with monkeypatch.context() as patched:
        cut_on_write(patched, after_bytes)
        fails_cleanly(lambda: put(target, images[1]))
    current_answers(target, board, first)
    second = put(target, images[1])
    current_answers(target, board, second)


def test_cut_while_the_agent_serves(target: Target, images: tuple[Path, ...], board: Path) -> None:
    first = put(target, images[0])

    def deploy() -> None:
        with (
            flashed(target, images[1], None, app=APP) as deployment,
            open_board(target, images[1], None, app=APP) as client,
        ):
            assert deployment is not None
            client.write_input(0, INPUT)
            client.run()
            assert cut_connections() > 0
            for _ in range(100):
                client.write_input(0, INPUT)
                client.run()

    fails_cleanly(deploy)
    current_answers(target, board, first)
    current_answers(target, board, put(target, images[1]))


def test_cut_before_the_switch(target: Target, images: tuple[Path, ...], board: Path) -> None:
    first = put(target, images[0])

    def deploy() -> None:
        with flashed(target, images[1], None, app=APP) as deployment:
            assert deployment is not None
            assert cut_connections() > 0
            time.sleep(0.2)
            deployment.keep()

    error = fails_cleanly(deploy)
    assert "making version" in error.message
    current_answers(target, board, first)
    current_answers(target, board, put(target, images[1]))


def test_cut_at_some_moment_of_the_switch(target: Target, images: tuple[Path, ...], board: Path) -> None:
    """Whatever the moment: one of the two versions is current, whole and answers; and it is the new one where
    the switch was said to have been made.
    """
    put(target, images[0])
    for attempt in range(campaign_count(60, 6)):
        before, image = current(board), images[1 + attempt % 2]
        kept = False
        with (
            contextlib.suppress(DeviceError, VerificationError),
            flashed(target, image, None, app=APP) as deployment,
        ):
            assert isinstance(deployment, SshDeployment)
            timer = threading.Timer(0.015 * (attempt % 10), cut_connections)
            timer.start()
            try:
                deployment.keep()
                kept = True
            finally:
                timer.join()
        after = current(board)
        assert after in ({version_of(image)} if kept else {before, version_of(image)})
        assert after is not None
        current_answers(target, board, after)


def test_all_commands_share_one_connection_which_ends_with_the_last(target: Target) -> None:
    with reached(target, None) as connection:
        for _ in range(4):
            with reached(target, None) as same:
                assert same is connection
                same.run("true", "testing")
        assert len([pid for pid in descendants(os.getpid()) if name_of(pid) == "sshd"]) == 1
    assert not any(name_of(pid) in ("ssh", "sshd") for pid in descendants(os.getpid()))


def test_a_board_that_stops_in_the_middle_is_given_up(target: Target) -> None:
    with emulated_board(target) as host:
        patience = Patience(alive_interval_s=1, alive_count=2)
        with SshConnection(host, patience=patience) as connection:
            channel = connection.start("echo ready; exec sleep 60")
            assert channel.read(FASTEST_S) == b"ready\n"
            stopped = [pid for pid in descendants(os.getpid()) if name_of(pid) == "sshd"]
            assert stopped
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                assert channel.complete(silence_s=FASTEST_S, total_s=FASTEST_S).code == 255
                assert time.monotonic() - began < FASTEST_S / 2
            finally:
                for pid in stopped:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def test_a_machine_that_answers_nothing_is_given_up(target: Target, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "config").write_text(
            f"Host silent\nHostName 127.0.0.1\nPort {server.getsockname()[1]}\nUserKnownHostsFile none\n"
        )
        host = SshHost("silent", tmp_path / "config")
        with SshConnection(host, patience=Patience(connect_s=1)) as connection:
            error = fails_cleanly(lambda: connection.run("true", "testing"))
    assert "did not answer in time" in error.message


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


# --- two at once -----------------------------------------------------------------------------------------


def test_two_deployments_at_once(target: Target, images: tuple[Path, ...], board: Path) -> None:
    """The second, from another process's point of view: a connection of its own to the same board."""
    from edgekit.device.ssh.deployment import deployed

    first = put(target, images[0])
    with flashed(target, images[1], None, app=APP) as deployment:
        assert deployment is not None
        with emulated_board(target) as host, SshConnection(host) as other:

            def intrude() -> None:
                with deployed(other, images[2], APP):
                    pass

            error = fails_cleanly(intrude)
            assert error.exit_code == 6
            assert "is held by" in error.message
            assert f"pid {holder(board)}" in error.message
            assert "since 20" in error.message
            with pytest.raises(DeviceError, match="is held by"):
                roll_back(other, APP)
        assert current(board) == first
        deployment.keep()
    current_answers(target, board, version_of(images[1]))
    current_answers(target, board, put(target, images[2]))


def holder(home: Path) -> int:
    line = (home / ".edgekit" / "lock").read_text()
    return int(line.split("pid ")[1].split(",")[0])


# --- nothing stays ---------------------------------------------------------------------------------------


def test_deployments_leave_no_process_and_no_file_behind(
    target: Target, images: tuple[Path, ...], board: Path
) -> None:
    put(target, images[0])
    put(target, images[1])
    processes, files = len(descendants(os.getpid())), open_files()
    for _ in range(campaign_count(100, 4)):
        put(target, images[0] if current(board) != version_of(images[0]) else images[1])
        with reached(target, None) as connection:
            roll_back(connection, APP)
    assert open_files() == files
    assert len(descendants(os.getpid())) == processes
    installed = {path.name for path in (board / ".edgekit" / APP).iterdir() if len(path.name) == 16}
    assert installed <= {version_of(image) for image in images[:2]}
    assert list((board / ".edgekit" / APP / "incoming").iterdir()) == []


DEPLOYING = """\
import sys, time
from pathlib import Path
from edgekit.device import flashed, open_board
from edgekit.target import load_target
target, image = load_target(sys.argv[1]), Path(sys.argv[2])
with flashed(target, image, None, app=sys.argv[3]), open_board(target, image, None, app=sys.argv[3]):
    print("ready", flush=True)
    time.sleep(120)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_edgekit_that_is_killed_leaves_no_process_and_no_lock(
    target: Target, images: tuple[Path, ...], board: Path, number: signal.Signals
) -> None:
    first = put(target, images[0])
    argv = [sys.executable, "-c", DEPLOYING, target.name, str(images[1]), APP]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            started = descendants(process.pid)
            assert len(started) > 3
            process.send_signal(number)
            process.wait(FASTEST_S)
        finally:
            process.kill()
    deadline = time.monotonic() + FASTEST_S
    while any(is_alive(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in started if is_alive(pid)] == []
    current_answers(target, board, first)
    current_answers(target, board, put(target, images[1]))


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_image_of_another_machine(target: Target, tmp_path: Path, board: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    image = tmp_path / "runner"
    image.write_bytes(b"\x7fELF but of no machine that there is" * 100)

    def deploy() -> None:
        put(target, image)

    fails_cleanly(deploy)
    assert current(board) is None


@pytest.fixture(autouse=True)
def no_connection_is_left() -> Iterator[None]:
    from edgekit.device.ssh.reach import _shared

    yield
    assert _shared == {}
