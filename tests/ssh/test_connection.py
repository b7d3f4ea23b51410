"""Channels and connections, against a fake ssh: bounded waits, no deadlock, no process left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgekit.device.processes import OwnedProcess
from edgekit.device.ssh import SshConnection, SshHost
from edgekit.device.ssh.channel import Channel, ChannelEnded, ChannelStuck
from edgekit.device.transports import TransportClosedError
from edgekit.device.transports.ssh import SshTransport
from edgekit.errors import DeviceError, MissingToolError
from tests.ssh.conftest import FakeSsh


def test_a_command_and_its_end(connection: SshConnection) -> None:
    ended = connection.run("cat; echo words >&2; exit 3", "testing", data=b"\x00\xff" * 1000)
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"\x00\xff" * 1000, "words\n")


def test_what_is_told_of_an_upload(connection: SshConnection) -> None:
    told: list[int] = []
    connection.run("cat > /dev/null", "testing", data=bytes(300_000), advanced=told.append)
    assert told == sorted(told)
    assert told[-1] == 300_000


def test_a_board_that_talks_on_stderr_blocks_nothing(connection: SshConnection) -> None:
    ended = connection.run(
        "head -c 5000000 /dev/zero >&2; cat; echo last >&2", "testing", data=b"x" * 200_000
    )
    assert ended.code == 0
    assert len(ended.stdout) == 200_000
    assert ended.stderr.endswith("last\n")
    assert len(ended.stderr) < 20_000


def test_a_board_that_talks_before_it_reads_blocks_nothing(connection: SshConnection) -> None:
    ended = connection.run("head -c 500000 /dev/zero; cat > /dev/null", "testing", data=bytes(500_000))
    assert ended.code == 0
    assert len(ended.stdout) == 500_000


def test_more_output_than_makes_sense_is_refused(connection: SshConnection) -> None:
    with pytest.raises(DeviceError):
        connection.run("exec cat /dev/zero", "testing")


def test_silence_has_an_end(connection: SshConnection) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError, match="went silent for 0 s: testing"):
        connection.run("exec sleep 60", "testing", silence_s=0.4)
    assert time.monotonic() - began < 10


def test_dribbling_has_an_end(connection: SshConnection) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError):
        connection.run("while echo x; do sleep 0.1; done", "testing", silence_s=5.0, total_s=1.0)
    assert time.monotonic() - began < 10


def test_a_program_that_reads_nothing_ends_an_upload(connection: SshConnection) -> None:
    ended = connection.run("echo full >&2; exit 1", "testing", data=bytes(5_000_000), silence_s=20.0)
    assert (ended.code, ended.stderr) == (1, "full\n")


def test_the_connection_failed(ssh: FakeSsh, connection: SshConnection) -> None:
    ssh.play("true", stderr="Host key verification failed.\r\n", code=255)
    with pytest.raises(DeviceError, match="host key of pi@board is not known"):
        connection.run("true", "testing")


def test_ssh_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with SshConnection(SshHost("pi@board")) as connection, pytest.raises(MissingToolError) as caught:
        connection.run("true", "testing")
    assert caught.value.exit_code == 9
    assert "openssh-client" in (caught.value.hint or "")


def test_the_control_folder_is_private_and_goes(ssh: FakeSsh) -> None:
    connection = SshConnection(SshHost("pi@board"))
    connection.run("true", "testing")
    option = next(word for word in ssh.argv()[0] if word.startswith("ControlPath="))
    folder = Path(option.removeprefix("ControlPath=")).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "socket").touch()
    connection.close()
    connection.close()
    assert not folder.exists()
    assert [one[:2] for one in ssh.argv() if "-O" in one] == [["-O", "exit"]]


def test_a_long_temporary_folder_is_not_used_for_sockets(
    ssh: FakeSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with SshConnection(SshHost("pi@board")) as connection:
        connection.run("true", "testing")
    (option,) = [word for word in ssh.argv()[0] if word.startswith("ControlPath=")]
    assert len(option.removeprefix("ControlPath=")) < 104 - 40 - 17
    assert list(long.iterdir()) == []


def test_closing_leaves_no_process_and_no_descriptor(ssh: FakeSsh) -> None:
    before = open_files()
    connection = SshConnection(SshHost("pi@board"))
    channels = [connection.start(f"exec sleep {60 + number}") for number in range(3)]
    began = time.monotonic()
    connection.close()
    assert time.monotonic() - began < 5
    assert not any(channel.alive for channel in channels)
    deadline = time.monotonic() + 5
    while open_files() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_channel_reads_and_writes(connection: SshConnection) -> None:
    channel = connection.start("exec cat")
    channel.write(b"hello", 5.0)
    assert channel.read(5.0) == b"hello"
    assert channel.read(0.0) == b""
    channel.close_input()
    with pytest.raises(ChannelEnded):
        channel.read(5.0)
    assert channel.ended().code == 0


def test_a_channel_that_takes_no_bytes_is_stuck(connection: SshConnection) -> None:
    channel = connection.start("exec sleep 60")
    with pytest.raises(ChannelStuck):
        channel.write(bytes(10_000_000), 0.5)


def test_transport(connection: SshConnection) -> None:
    transport = SshTransport(connection, "exec cat")
    assert transport.name == "ssh:pi@board"
    transport.write(b"abc", 5.0)
    assert transport.read(5.0) == b"abc"
    transport.close()
    transport.close()


@pytest.mark.parametrize(
    ("play", "message"),
    [
        ({"code": 255, "stderr": "client_loop: send disconnect: Broken pipe\r\n"}, "was lost"),
        ({"code": 127, "stderr": "sh: not found\n"}, "not on the board"),
        ({"code": 126}, "can't run"),
        ({"code": 0}, "ended in the middle"),
    ],
)
def test_transport_whose_end_comes(
    ssh: FakeSsh, connection: SshConnection, play: dict[str, object], message: str
) -> None:
    ssh.play("serve", **play)
    transport = SshTransport(connection, "x serve")
    with pytest.raises(DeviceError, match=message) as caught:
        transport.read(5.0)
    assert isinstance(caught.value, TransportClosedError) == ("not on" not in message)


def test_stopping_a_process_twice(ssh: FakeSsh) -> None:
    channel = Channel(["ssh", "--", "h", "exec sleep 60"])
    assert isinstance(channel._owned, OwnedProcess)
    channel.close()
    channel.close()
    assert not channel.alive
