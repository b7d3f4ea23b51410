"""The bad line itself: it does what it says, as often as it says, the same for the same seed."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.device.fake import FakeBoard
from edgekit.device.protocol import FrameDecoder, encode_frame
from edgekit.device.transports.base import TransportClosedError
from edgekit.device.transports.pipe import PipeTransport
from edgekit.device.transports.serial import SerialTransport
from tests.link.faults import Cutter, Faults, Line
from tests.link.lossy import LossyPort, LossyTransport

FRAMES = [encode_frame(2, number, bytes([number % 256]) * 20) for number in range(2000)]


def through(faults: Faults, seed: int = 1) -> tuple[Line, bytes]:
    """All frames, a hundredth of a second apart."""
    line, got = Line(faults, seed), b""
    for number, frame in enumerate(FRAMES):
        line.send(frame, number * 0.01)
        got += line.arrived(number * 0.01)
    return line, got + line.arrived(1e9)


def numbers(data: bytes) -> list[int]:
    return [frame.sequence for frame in FrameDecoder().feed(data)]


@pytest.mark.parametrize("size", [0, 1, 64])
def test_a_line_without_faults_changes_nothing(size: int) -> None:
    line, got = through(Faults(piece_bytes=size))
    assert got == b"".join(FRAMES)
    assert not line.happened


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_cutter_finds_frames_however_they_come(step: int) -> None:
    data, cutter = b"".join(FRAMES), Cutter(0)
    pieces = [piece for at in range(0, len(data), step) for piece in cutter.feed(data[at : at + step])]
    assert pieces == FRAMES


def test_the_cutter_holds_no_more_than_a_frame() -> None:
    assert Cutter(0).feed(b"x" * 5000) == [b"x" * 5000]


@pytest.mark.parametrize("kind", Faults.kinds())
def test_each_fault_happens_as_often_as_asked_and_alone(kind: str) -> None:
    line, _ = through(Faults(**{kind: 0.05}))  # type: ignore[arg-type]
    assert set(line.happened) == {kind}
    assert 70 <= line.happened[kind] <= 130, "of 2000; four standard deviations are 39"


def test_drop() -> None:
    line, got = through(Faults(drop=0.05))
    assert numbers(got) == sorted(set(numbers(got)))
    assert len(numbers(got)) == 2000 - line.happened["drop"]


def test_duplicate() -> None:
    line, got = through(Faults(duplicate=0.05))
    assert numbers(got) == sorted(numbers(got))
    assert len(numbers(got)) == 2000 + line.happened["duplicate"]


def test_reorder() -> None:
    _, got = through(Faults(reorder=0.05))
    assert sorted(numbers(got)) == list(range(2000))
    late = [at - number for at, number in enumerate(numbers(got)) if at > number]
    assert set(late) >= set(range(1, 9)), "by one to eight places"


def test_cut_and_flip_damage_frames_and_no_more() -> None:
    for kind in ("cut", "flip"):
        line, got = through(Faults(**{kind: 0.05}))  # type: ignore[arg-type]
        lost = 2000 - len(numbers(got))
        # A cut end runs into nothing: the next frame begins with a delimiter. A cut of nothing is possible.
        assert 0.8 * line.happened[kind] <= lost <= line.happened[kind]


def test_delay_and_throttle_hold_up_what_comes_behind() -> None:
    line = Line(Faults(throttle=1.0, throttle_bytes_per_s=1000.0), 1)
    line.send(encode_frame(2, 1, bytes(range(1, 187))), 0.0)  # 198 bytes
    assert len(line.arrived(0.1)) in range(80, 101)
    line.send(FRAMES[1], 0.1)
    assert numbers(line.arrived(0.21)) == [1] or not line.arrived(0.15)
    assert line.next_s() is not None

    slow = Line(Faults(delay=1.0, delay_s=2.0), 1)
    slow.send(FRAMES[0] + FRAMES[1], 0.0)
    at = slow.next_s()
    assert at is not None
    assert 0.0 < at <= 2.0
    assert slow.arrived(at - 0.001) == b""
    assert slow.arrived(4.0) == FRAMES[0] + FRAMES[1]


def test_the_same_seed_does_the_same_and_another_does_not() -> None:
    faults = Faults.of_each(0.05)
    assert through(faults, 3)[1] == through(faults, 3)[1] != through(faults, 4)[1]


def test_a_mended_line_is_good_and_empty() -> None:
    line = Line(Faults(drop=0.5, delay=1.0), 1)
    for frame in FRAMES[:50]:
        line.send(frame, 0.0)
    line.mend()
    assert line.arrived(1e9) == b""
    line.send(b"half a frame", 5.0)
    assert line.arrived(5.0) == b"half a frame"


# --- in front of something ------------------------------------------------------------------------------


def echo() -> PipeTransport:
    return PipeTransport(["cat"])


def read_all(read: Callable[[float], bytes], quiet_s: float = 0.5) -> bytes:
    got = b""
    while data := read(quiet_s):
        got += data
    return got


def test_a_transport_is_spoiled_in_both_directions() -> None:
    clean = LossyTransport(echo(), Faults(), 1)
    clean.write(FRAMES[0], 1.0)
    assert read_all(clean.read) == FRAMES[0]
    clean.close()

    bad = LossyTransport(echo(), Faults(drop=0.3), 1)
    for frame in FRAMES[:200]:
        bad.write(frame, 1.0)
    got = numbers(read_all(bad.read))
    assert bad.lines.out.pieces == 200
    assert len(got) == 200 - bad.lines.out.happened["drop"] - bad.lines.back.happened["drop"]
    bad.mend()
    bad.write(FRAMES[7], 1.0)
    assert numbers(bad.read(1.0)) == [7]
    bad.close()


def test_what_was_under_way_arrives_before_the_end_is_told() -> None:
    lossy = LossyTransport(PipeTransport(["printf", r"\1\2\3\4\0"]), Faults(delay=1.0), 1)
    assert lossy.read(2.0) == b"\1\2\3\4\0"
    with pytest.raises(TransportClosedError):
        lossy.read(2.0)
    lossy.close()


def test_a_read_ends_at_its_timeout_whatever_is_under_way() -> None:
    lossy = LossyTransport(FakeBoard([]), Faults(delay=1.0, delay_s=60.0), 1)
    began = time.monotonic()
    assert lossy.read(0.2) == b""
    assert 0.19 < time.monotonic() - began < 2.0


@pytest.mark.parametrize("faults", [Faults(), Faults(drop=0.3)], ids=["good", "bad"])
def test_a_serial_port_is_spoiled_in_both_directions(faults: Faults) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as board:
        assert board.stdin is not None
        assert board.stdout is not None
        with LossyPort(board.stdout.fileno(), board.stdin.fileno(), faults, 1) as port:
            transport = SerialTransport(port.device, 115_200)
            got = b""
            for frame in FRAMES[:100]:
                transport.write(frame, 1.0)
                got += transport.read(0.01)
            got += read_all(transport.read)
            lost = port.lines.happened["drop"]
            assert numbers(got) == sorted(numbers(got))
            assert len(numbers(got)) == 100 - lost
            assert bool(lost) == bool(faults.drop)
            everything = bytes(range(256))
            port.mend()
            transport.write(everything, 1.0)
            assert read_all(transport.read) == everything
            transport.close()


def test_a_closed_port_leaves_nothing_behind() -> None:
    here = len(list(Path("/proc/self/fd").iterdir()))
    reading, writing = os.pipe()
    port = LossyPort(reading, writing, Faults(), 1)
    port.close()
    port.close()
    assert not port._thread.is_alive()
    os.close(reading)
    os.close(writing)
    assert len(list(Path("/proc/self/fd").iterdir())) == here


def test_the_decisions_do_not_depend_on_how_the_bytes_come() -> None:
    data, faults = b"".join(FRAMES[:300]), Faults.of_each(0.05)
    whole, parts, rng = Line(faults, 5), Line(faults, 5), random.Random(2)
    whole.send(data, 0.0)
    at = 0
    while at < len(data):
        step = rng.randrange(1, 400)
        parts.send(data[at : at + step], 0.0)
        at += step
    assert whole.happened == parts.happened
    assert whole.arrived(1e9) == parts.arrived(1e9)
