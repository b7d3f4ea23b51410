"""Random and mutated frames against the agent built with AddressSanitizer and UndefinedBehaviorSanitizer, and
against the agent on an emulated Cortex-M4.

Whatever comes, the agent neither crashes nor hangs, and after each batch it still answers correctly.
100,000 and 2,000 frames under EDGEKIT_CAMPAIGN=1, else 4,000 and 200.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest

from edgekit.device import Client, Timeouts, open_board
from edgekit.device.protocol import (
    FrameType,
    HelloRequest,
    HighWaterRequest,
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
    cobs_encode,
    encode_frame,
    encode_request,
)
from edgekit.device.transports.pipe import PipeTransport
from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.device import toy

FRAMES = campaign_count(100_000, 4_000)
EMULATED_FRAMES = campaign_count(2_000, 200)
BATCH = 100
SESSION = 25
SEEDS = 4
IMPATIENT = Timeouts(reply_s=0.1)
"""A hello that comes while an inference of the batch is under way is refused, and repeated."""
PROGRAMS = (toy.AFFINE, toy.WIDE, 2, 0xFFFF)


def edge(rng: random.Random, bits: int) -> int:
    """Integers that are near something: zero, sizes of the toy tensors, the ends of the range."""
    near = rng.choice((0, 1, 4, 12, 16, 127, 128, 255, 256, 490, 1016, 1024, 3000, 8192, 1 << 15, 1 << 31))
    return (near + rng.randint(-2, 2)) % (1 << bits) if rng.random() < 0.8 else rng.getrandbits(bits)


def request(rng: random.Random) -> Request:
    """A request in the right form, with numbers that may be anything."""
    program, index = rng.choice(PROGRAMS), edge(rng, 16)
    small, offset = rng.choice((0, 0, 0, 1, index)), rng.choice((0, 0, edge(rng, 32)))
    if rng.random() < 0.03:  # it may close the session to all that follow
        return HelloRequest(edge(rng, 32), rng.randrange(3), rng.randrange(3))
    choices: tuple[Request, ...] = (
        PingRequest(rng.randbytes(rng.choice((0, 1, 300, 1024)))),
        ProgramRequest(program),
        TensorRequest(program, bool(rng.getrandbits(1)), small),
        WriteInputRequest(program, small, offset, rng.randbytes(rng.choice((0, 1, 12, 490, 1000)))),
        RunRequest(program, RunFlags(rng.randrange(4)), rng.randbytes(rng.choice((0, 489, 490, 491)))),
        ReadOutputRequest(program, small, offset, edge(rng, 16)),
        OperatorsRequest(program, rng.choice(list(Record)), small, rng.choice((1, 2, index))),
        HighWaterRequest(program),
    )
    return rng.choice(choices)


def sealed(body: bytes) -> bytes:
    """`body` with a CRC that is right, whatever is in it."""
    return b"\0" + cobs_encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def bad_frame(rng: random.Random, sequence: int) -> bytes:
    kind = rng.choice((0, 1, 2, 3, 3, 3, 4, 5))
    if kind == 0:  # noise
        return rng.randbytes(rng.randrange(1, 1500))
    if kind == 1:  # any type, any payload, good frame
        return encode_frame(rng.randrange(256), sequence, rng.randbytes(rng.randrange(0, 40)))
    if kind == 2:  # a good CRC around a wrong length or a body that is too short
        return sealed(rng.randbytes(rng.randrange(0, 60)))
    wire = encode_request(request(rng), sequence)
    if kind == 3:
        return wire
    mutated = bytearray(wire)
    if kind == 4:  # bits and bytes
        for _ in range(rng.randrange(1, 8)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        return bytes(mutated)
    at = sorted(rng.randrange(len(mutated)) for _ in range(2))  # cut out, or doubled
    return bytes(
        mutated[: at[0]] + mutated[at[1] :] if rng.random() < 0.5 else mutated[: at[1]] + mutated[at[0] :]
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_bad_frames_do_no_harm(sanitized_runner: Path, seed: int) -> None:
    with Client(PipeTransport([str(sanitized_runner)]), timeouts=IMPATIENT) as client:
        for batch in range(FRAMES // SEEDS // BATCH):
            send_bad_frames(client, random.Random(f"{seed} {batch}"))


@pytest.fixture(scope="module")
def emulated_image_without_a_crash(emulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fuzzer must not find the crash that a toy program has on purpose."""
    return toy.build(emulator, tmp_path_factory.mktemp("fuzz"), flags=("-Os", "-DTOY_WITHOUT_FAULTY"))


@pytest.mark.emulator
def test_bad_frames_do_no_harm_to_an_emulated_board(
    emulator: str, emulated_image_without_a_crash: Path
) -> None:
    with open_board(load_target(emulator), emulated_image_without_a_crash, None) as client:
        for batch in range(EMULATED_FRAMES // BATCH):
            send_bad_frames(client, random.Random(f"emulated {batch}"))


def send_bad_frames(client: Client, rng: random.Random, look_s: float = 0.0) -> Counter[int]:
    """A batch, in sessions in which a part of the frames is taken seriously; then what is right.

    `look_s`: how long to look for answers to each frame. Returns the types of those that were seen.
    """
    answers = Counter[int]()
    for number in range(BATCH):
        if number % SESSION == 0:
            client.connect()
        # Mostly the next one: what the agent takes moves its window on, what it refuses does not.
        client._sequence = (client._sequence + rng.choice((1, 1, 1, 1, 0, -1))) & 0xFFFF
        sequence = rng.getrandbits(16) if rng.random() < 0.05 else client._sequence
        client._transport.write(bad_frame(rng, sequence), 10.0)
        answers.update(frame.type for frame in client._decoder.feed(client._transport.read(look_s)))
    still_correct(client, rng)
    return answers


def still_correct(client: Client, rng: random.Random) -> None:
    """In a new session; nothing that is left over from before may be taken for an answer."""
    client.connect()
    assert client.program_info(toy.AFFINE).inputs[0].size_bytes == 490
    data = rng.randbytes(490)
    client.write_input(0, data)
    client.run()
    assert client.read_output(0)[:11] == toy.affine_outputs(data)[2]
    first, second = rng.randbytes(3000), tuple(rng.getrandbits(32) for _ in range(4))
    client.write_input(0, first, toy.WIDE)
    client.write_input(1, struct.pack("<4I", *second), toy.WIDE)
    client.run(toy.WIDE)
    answer = (client.read_output(0, toy.WIDE), client.read_output(1, toy.WIDE))
    assert answer == toy.wide_answer(first, second)
    assert client.operator_checksums(toy.WIDE) == tuple(zlib.crc32(part) for part in answer)


def test_the_sanitizers_are_on(sanitized_runner: Path) -> None:
    said = toy.run(["nm", str(sanitized_runner)])
    assert "__asan_report_load" in said
    assert "__ubsan_handle" in said


def test_the_fuzzer_gets_past_the_agents_first_checks(sanitized_runner: Path) -> None:
    """Else it would only try the frame decoder."""
    answers = Counter[int]()
    with Client(PipeTransport([str(sanitized_runner)]), timeouts=IMPATIENT) as client:
        for batch in range(10):
            answers += send_bad_frames(client, random.Random(batch), look_s=0.005)
    done = {kind.reply for kind in FrameType if kind <= FrameType.HIGH_WATER}
    assert done <= set(answers)
    assert sum(answers[kind] for kind in done) > 100, answers
    assert answers[FrameType.ERROR] > 100, answers


def test_the_fuzzer_reaches_every_request() -> None:
    rng = random.Random(0)
    seen = {request(rng).type for _ in range(500)}
    assert seen == set(FrameType) - {FrameType.PROGRESS, FrameType.ERROR, FrameType.FAULT}
