"""The agent on this machine, over its stdin and stdout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.device import Client, open_board
from edgekit.device.protocol import (
    ErrorCode,
    ErrorReply,
    Frame,
    FrameDecoder,
    FrameType,
    HelloRequest,
    OperatorsRequest,
    PingRequest,
    ProgramRequest,
    ReadOutputRequest,
    Record,
    Request,
    RunFlags,
    RunRequest,
    TensorRequest,
    WriteInputRequest,
    encode_frame,
    encode_request,
)
from edgekit.device.transports.base import TransportClosedError
from edgekit.device.transports.pipe import PipeTransport
from edgekit.errors import DeviceError
from edgekit.target import load_target
from tests.device import agent_checks, toy


@pytest.fixture
def client(host_runner: Path) -> Iterator[Client]:
    with open_board(load_target("host"), host_runner, None) as opened:
        yield opened


def test_programs(client: Client) -> None:
    agent_checks.serves_its_programs(client, "host")


def test_profile(client: Client) -> None:
    total, operators = agent_checks.profiles(client)
    assert total > 0, "a nanosecond clock moves in three operators"
    assert sum(operators) > 0


def test_repeated_run(client: Client) -> None:
    agent_checks.answers_a_repeated_run_without_running_again(client)


def test_fault(client: Client, host_runner: Path) -> None:
    error = agent_checks.tells_a_fault(client, 0x10)
    assert "SIGSEGV" in error.message
    addr2line = shutil.which("addr2line")
    if addr2line is not None:
        said = toy.run([addr2line, "-f", "-e", str(host_runner), hex(error.fault.pc)])
        assert "faulty_read" in said
    with pytest.raises(TransportClosedError, match="exit code 139"):
        client.ping()


def test_a_stack_overflow_is_told(client: Client) -> None:
    client.write_input(0, b"\1\0\0\0", toy.FAULTY)
    with pytest.raises(DeviceError, match=r"SIGSEGV .*in operator 1 of program 2"):
        client.run(toy.FAULTY)


def test_a_program_that_is_measured_when_it_faults_has_no_operator(client: Client) -> None:
    client.write_input(0, b"\x10\0\0\0", toy.FAULTY)
    with pytest.raises(DeviceError, match=r"SIGSEGV .*in program 2 \(operator unknown\)"):
        client.profile_run(toy.FAULTY)


def test_it_ends_when_stdin_closes_and_says_nothing_but_frames(host_runner: Path) -> None:
    done = subprocess.run(
        [host_runner], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=True
    )
    assert done.stderr == b""
    (hello,) = FrameDecoder().feed(done.stdout)
    assert (hello.type, hello.sequence) == (FrameType.HELLO.reply, 0)
    assert done.stdout[0] == done.stdout[-1] == 0


def test_it_ends_when_nobody_reads(host_runner: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([host_runner], stdin=subprocess.PIPE, stdout=writing)
    os.close(writing)
    assert process.wait(10) == 0
    assert process.stdin is not None
    process.stdin.close()


def test_its_process_is_gone_after_the_client(host_runner: Path) -> None:
    with open_board(load_target("host"), host_runner, None) as client:
        assert isinstance(client._transport, PipeTransport)
        process = client._transport._owned.process
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL


def test_a_runner_that_cannot_start_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "runner"
    broken.write_text("#!/bin/sh\necho cannot find libc >&2\nexit 127\n")
    broken.chmod(0o755)
    with (
        pytest.raises(DeviceError, match="ended with exit code 127: cannot find libc"),
        open_board(load_target("host"), broken, None),
    ):
        pass
    with (
        pytest.raises(DeviceError, match="can't be started"),
        open_board(load_target("host"), tmp_path / "missing", None),
    ):
        pass


# --- what a request may say -----------------------------------------------------------------------------


class Bare:
    """Frames to and from the agent, without a client's good manners."""

    def __init__(self, runner: Path) -> None:
        self.transport = PipeTransport([str(runner)])
        self.decoder = FrameDecoder()
        self.frames: list[Frame] = []

    def send(self, data: bytes) -> None:
        self.transport.write(data, 5.0)

    def next(self) -> Frame:
        while not self.frames:
            data = self.transport.read(5.0)
            assert data, "no answer within 5 s"
            self.frames += self.decoder.feed(data)
        return self.frames.pop(0)

    def ask(self, request: Request, sequence: int) -> Frame:
        self.send(encode_request(request, sequence))
        return self.next()

    def refusal(self, request: Request, sequence: int) -> ErrorCode | None:
        frame = self.ask(request, sequence)
        assert (frame.type, frame.sequence) == (FrameType.ERROR, sequence)
        reply = ErrorReply.decode(frame.payload)
        assert reply.request == request.type
        return reply.code


@pytest.fixture
def bare(host_runner: Path) -> Iterator[Bare]:
    agent = Bare(host_runner)
    assert agent.next().sequence == 0  # the hello at start
    yield agent
    agent.transport.close()


@pytest.fixture
def session(bare: Bare) -> Bare:
    assert bare.ask(HelloRequest(99), 10).type == FrameType.HELLO.reply
    return bare


def test_nothing_is_served_before_a_hello(bare: Bare) -> None:
    assert bare.refusal(PingRequest(), 1) is ErrorCode.NO_SESSION
    assert bare.refusal(RunRequest(0), 2) is ErrorCode.NO_SESSION


def test_another_version_gets_a_hello_and_nothing_else(bare: Bare) -> None:
    assert bare.ask(HelloRequest(5, 2, 9), 1).type == FrameType.HELLO.reply
    assert bare.refusal(PingRequest(), 2) is ErrorCode.VERSION


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ProgramRequest(3), ErrorCode.PROGRAM),
        (TensorRequest(0, False, 1), ErrorCode.RANGE),
        (TensorRequest(0, True, 1), ErrorCode.RANGE),
        (WriteInputRequest(0, 1, 0, b"x"), ErrorCode.RANGE),
        (WriteInputRequest(0, 0, 490, b"x"), ErrorCode.RANGE),
        (WriteInputRequest(0, 0, 0xFFFFFFFF, b"xx"), ErrorCode.RANGE),
        (WriteInputRequest(0, 0, 0, bytes(491)), ErrorCode.RANGE),
        (RunRequest(0, RunFlags(4)), ErrorCode.RANGE),
        (RunRequest(0, RunFlags.NONE, bytes(489)), ErrorCode.LENGTH),
        (RunRequest(0, RunFlags.NONE, bytes(491)), ErrorCode.LENGTH),
        (RunRequest(9), ErrorCode.PROGRAM),
        (ReadOutputRequest(0, 1, 0, 1), ErrorCode.RANGE),
        (ReadOutputRequest(0, 0, 12, 1), ErrorCode.RANGE),
        (ReadOutputRequest(0, 0, 0xFFFFFFF8, 9), ErrorCode.RANGE),
        (ReadOutputRequest(1, 0, 0, 1025), ErrorCode.RANGE),
        (OperatorsRequest(0, Record.TICKS, 0, 4), ErrorCode.RANGE),
        (OperatorsRequest(0, Record.TICKS, 0xFFFF, 2), ErrorCode.RANGE),
    ],
)
def test_requests_outside_what_there_is_are_refused(
    session: Bare, request_: Request, code: ErrorCode
) -> None:
    assert session.refusal(request_, 11) is code
    assert session.ask(PingRequest(b"still here"), 12).payload == b"still here"


@pytest.mark.parametrize("kind", [t for t in FrameType if FrameType.PING < t <= FrameType.HIGH_WATER])
def test_requests_that_are_too_short_are_refused(session: Bare, kind: FrameType) -> None:
    for size in (0, 1):
        session.send(encode_frame(kind, 11, bytes(size)))
        assert ErrorReply.decode(session.next().payload).code is ErrorCode.LENGTH


def test_unknown_types_are_refused(session: Bare) -> None:
    for kind in (0x00, 0x0A, 0x7F, 0x81, 0xE0, 0xFF):
        session.send(encode_frame(kind, 11, b"\0\0"))
        reply = ErrorReply.decode(session.next().payload)
        assert (reply.code, reply.request) == (ErrorCode.TYPE, kind)


def test_an_old_sequence_does_nothing(session: Bare) -> None:
    session.ask(WriteInputRequest(0, 0, 0, toy.AFFINE_INPUT), 20)
    assert session.refusal(WriteInputRequest(0, 0, 0, bytes(490)), 19) is ErrorCode.STALE
    session.send(encode_request(RunRequest(0, RunFlags.OUTPUTS), 21))
    assert session.next().type == FrameType.PROGRESS
    assert session.next().payload[8:] == toy.affine_answer(toy.AFFINE_INPUT, 1)


def test_a_sequence_far_ahead_does_nothing(session: Bare) -> None:
    """It belongs to another session."""
    session.ask(WriteInputRequest(0, 0, 0, toy.AFFINE_INPUT), 11)
    assert session.refusal(WriteInputRequest(0, 0, 0, bytes(490)), 11 + 64) is ErrorCode.STALE
    session.send(encode_request(RunRequest(0, RunFlags.OUTPUTS), 11 + 63))
    assert session.next().type == FrameType.PROGRESS
    assert session.next().payload[8:] == toy.affine_answer(toy.AFFINE_INPUT, 1)


def test_a_late_hello_of_an_earlier_session_does_not_open_it_again(session: Bare) -> None:
    for nonce in (100, 101, 102, 103, 104):
        assert session.ask(HelloRequest(nonce), nonce).type == FrameType.HELLO.reply
    for nonce in (100, 101, 102, 103):
        assert session.refusal(HelloRequest(nonce), nonce) is ErrorCode.STALE
    run = RunRequest(0, RunFlags.OUTPUTS, toy.AFFINE_INPUT)
    assert session.ask(run, 105).type == FrameType.PROGRESS
    first = session.next()
    assert session.refusal(HelloRequest(103), 103) is ErrorCode.STALE
    assert session.ask(run, 105) == first, "the result is still there"


def test_a_repeated_hello_keeps_the_result(session: Bare) -> None:
    run = RunRequest(0, RunFlags.OUTPUTS, toy.AFFINE_INPUT)
    assert session.ask(run, 11).type == FrameType.PROGRESS
    first = session.next()
    assert session.ask(HelloRequest(99), 10).type == FrameType.HELLO.reply
    assert session.ask(run, 11) == first


def test_operators_show_progress(session: Bare) -> None:
    session.send(encode_request(WriteInputRequest(0, 0, 0, toy.AFFINE_INPUT), 11))
    session.next()
    session.send(encode_request(OperatorsRequest(0, Record.CHECKSUMS, 1, 1), 12))
    assert [session.next().payload for _ in range(3)] == [b"\0\0", b"\1\0", b"\2\0"]
    (checksum,) = [int.from_bytes(session.next().payload, "little")]
    assert checksum == toy.affine_checksums(toy.AFFINE_INPUT, 1)[1]


def test_between_operators_it_answers_ping_and_is_busy_for_the_rest(session: Bare) -> None:
    """All requests lie in the pipe before the first operator runs."""
    operators = OperatorsRequest(0, Record.CHECKSUMS, 0, 3)
    session.send(
        encode_request(operators, 11)
        + encode_request(operators, 11)
        + encode_request(PingRequest(b"?"), 12)
        + encode_request(RunRequest(0), 13)
    )
    got = [session.next() for _ in range(7)]
    assert [frame.type for frame in got] == [0xC0, 0xC0, 0x82, 0xE0, 0xC0, 0xC0, 0x88]
    assert ErrorReply.decode(got[3].payload).code is ErrorCode.BUSY
    assert got[3].sequence == 13


def test_the_agent_allocates_nothing_and_stays_small(host_runner: Path) -> None:
    """No malloc, no printf in the agent's own objects."""
    agent = toy.TEMPLATES / "agent"
    for source in sorted(agent.glob("*.c")):
        text = source.read_text()
        assert not re.search(r"\b(malloc|calloc|free|printf|sprintf)\b", text), source
