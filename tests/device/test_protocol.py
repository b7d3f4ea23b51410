"""Frames and messages: what is encoded is decoded, and nothing else is."""

from __future__ import annotations

import contextlib
import struct

import cobs.cobs
import pytest
from hypothesis import given, strategies as st

from edgekit.device import protocol
from edgekit.device.protocol import (
    ErrorCode,
    ErrorReply,
    FaultReply,
    Frame,
    FrameDecoder,
    HelloReply,
    HighWaterReply,
    ProgramReply,
    ProtocolError,
    Record,
    RunFlags,
    RunReply,
    TensorReply,
    cobs_decode,
    cobs_encode,
    encode_frame,
    encode_request,
)

# Runs around COBS's block length of 254, where encoders differ.
chunks = st.one_of(
    st.binary(max_size=600),
    st.builds(
        lambda fill, count, tail: bytes([fill]) * count + tail,
        st.integers(0, 255),
        st.integers(250, 260),
        st.binary(max_size=4),
    ),
)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 0xFFFF), chunks)


def wire(frame: Frame) -> bytes:
    return encode_frame(frame.type, frame.sequence, frame.payload)


@given(chunks)
def test_cobs_agrees_with_an_independent_implementation(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert cobs_decode(encoded) == data
    assert cobs.cobs.decode(encoded) == data
    assert cobs_decode(cobs.cobs.encode(data)) == data


@given(st.binary(max_size=300))
def test_cobs_refuses_what_the_independent_implementation_refuses(data: bytes) -> None:
    try:
        expected: bytes | None = cobs.cobs.decode(data)
    except cobs.cobs.DecodeError:
        expected = None
    assert cobs_decode(data) == expected


def test_the_frame_of_the_document() -> None:
    """The example in docs/protocol.md, worked out by hand but for the CRC."""
    body = bytes([0x02, 0x01, 0x02, 0x02, 0x00, 0x11, 0x00])
    crc = 0x42BFA509
    assert encode_frame(0x02, 0x0201, b"\x11\x00") == (
        b"\0" + bytes([5]) + body[:4] + bytes([2, 0x11, 5]) + struct.pack("<I", crc) + b"\0"
    )


@given(st.lists(frames, max_size=5), st.data())
def test_frames_arrive_whole_however_they_are_cut(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(wire(frame) for frame in sent)
    decoder = FrameDecoder()
    got: list[Frame] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += decoder.feed(stream[:size])
        stream = stream[size:]
    assert got == sent
    assert decoder.damaged == 0


@given(st.binary(max_size=400), frames)
def test_noise_before_a_frame_is_skipped(noise: bytes, frame: Frame) -> None:
    assert FrameDecoder().feed(noise + wire(frame))[-1] == frame


@given(frames, frames, st.data())
def test_damage_costs_one_frame(first: Frame, second: Frame, data: st.DataObject) -> None:
    encoded = bytearray(wire(first))
    at = data.draw(st.integers(1, len(encoded) - 2))
    encoded[at] ^= 1 << data.draw(st.integers(0, 7))
    got = FrameDecoder().feed(bytes(encoded) + wire(second))
    assert first not in got or first == second
    assert got[-1] == second


@given(st.binary(min_size=1, max_size=5000))
def test_a_decoder_holds_no_more_than_a_frame(data: bytes) -> None:
    decoder = FrameDecoder(max_payload=64)
    decoder.feed(data.replace(b"\0", b"\1"))
    assert len(decoder._buffer) <= 80
    assert decoder.feed(b"\0" + encode_frame(1, 2, b"x")) == [Frame(1, 2, b"x")]


def test_a_frame_over_the_limit_is_dropped_and_counted() -> None:
    decoder = FrameDecoder(max_payload=64)
    assert decoder.feed(encode_frame(1, 1, bytes(64))) == [Frame(1, 1, bytes(64))]
    assert decoder.feed(encode_frame(1, 2, b"\1" * 400)) == []
    assert decoder.damaged == 1


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1), st.binary(max_size=1000))
def test_requests_have_the_documented_layout(program: int, index: int, offset: int, data: bytes) -> None:
    def payload(request: protocol.Request) -> bytes:
        (frame,) = FrameDecoder().feed(encode_request(request, 7))
        assert (frame.type, frame.sequence) == (request.type, 7)
        return frame.payload

    little = struct.pack
    assert payload(protocol.HelloRequest(offset, 1, 3)) == little("<BBI", 1, 3, offset)
    assert payload(protocol.PingRequest(data)) == data
    assert payload(protocol.ProgramRequest(program)) == little("<H", program)
    assert payload(protocol.TensorRequest(program, True, index)) == little("<HBBH", program, 1, 0, index)
    write = protocol.WriteInputRequest(program, index, offset, data)
    assert payload(write) == little("<HHI", program, index, offset) + data
    run = protocol.RunRequest(program, RunFlags.MEASURE | RunFlags.OUTPUTS, data)
    assert payload(run) == little("<HH", program, 3) + data
    read = protocol.ReadOutputRequest(program, index, offset, 9)
    assert payload(read) == little("<HHIH", program, index, offset, 9)
    record = protocol.OperatorsRequest(program, Record.CHECKSUMS, index, 5)
    assert payload(record) == little("<HBBHH", program, 2, 0, index, 5)
    assert payload(protocol.HighWaterRequest(program)) == little("<H", program)


def test_replies_are_read_as_documented() -> None:
    hello = struct.pack("<BBHHBBI", 1, 2, 1024, 3, 32, 0, 77) + b"\xaa" * 32 + b"a\x1b[2Jb"
    assert HelloReply.decode(hello) == HelloReply(1, 2, 1024, 3, 32, 77, "aa" * 32, "a?[2Jb")
    program = b"\xbb" * 32 + struct.pack("<HHHHI", 1, 2, 3, 0, 4096)
    assert ProgramReply.decode(program) == ProgramReply("bb" * 32, 1, 2, 3, 4096)
    tensor = struct.pack("<BBHIfi", 3, 2, 0, 12, 0.5, -7) + struct.pack("<II", 2, 3)
    assert TensorReply.decode(tensor) == TensorReply("int16", (2, 3), 12, 0.5, -7)
    assert RunReply.decode(struct.pack("<Q", 2**40) + b"out") == RunReply(2**40, b"out")
    assert HighWaterReply.decode(struct.pack("<II", 0xFFFFFFFF, 12)) == HighWaterReply(None, 12)
    assert ErrorReply.decode(b"\x05\x06why") == ErrorReply(ErrorCode.BUSY, 5, 6, "why")
    assert ErrorReply.decode(b"\x99\x06").code is None
    fault = FaultReply.decode(struct.pack("<BBHHHQIIQ", 5, 11, 2, 0xFFFF, 0, 0x401000, 0, 0, 16))
    assert (fault.number, fault.program, fault.operator, fault.pc, fault.address) == (
        11,
        2,
        None,
        0x401000,
        16,
    )


@pytest.mark.parametrize(
    "tensor",
    [
        struct.pack("<BBHIfi", 99, 0, 0, 1, 0.0, 0),
        struct.pack("<BBHIfi", 1, 1, 0, 5, 0.0, 0) + struct.pack("<I", 4),
        struct.pack("<BBHIfi", 1, 1, 0, 4, 0.0, 0),
        struct.pack("<BBHIfi", 1, 200, 0, 1, 0.0, 0) + struct.pack("<200I", *[1] * 200),
        struct.pack("<BBHIfi", 1, 0, 0, 1, float("nan"), 0),
    ],
    ids=["unknown type", "size is not the shape's", "shape missing", "rank", "scale is no number"],
)
def test_tensors_that_make_no_sense_are_refused(tensor: bytes) -> None:
    with pytest.raises(ProtocolError):
        TensorReply.decode(tensor)


@given(st.binary(max_size=120))
def test_replies_of_random_bytes_are_read_or_refused_and_nothing_else(payload: bytes) -> None:
    for reply in (HelloReply, ProgramReply, TensorReply, RunReply, HighWaterReply, ErrorReply, FaultReply):
        with contextlib.suppress(ProtocolError):
            assert isinstance(reply.decode(payload), reply)
