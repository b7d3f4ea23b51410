"""The frames and messages of docs/protocol.md, without any I/O.

    bytes ──FrameDecoder──▶ Frame ──decode_*──▶ message          request ──encode_request──▶ bytes

Messages are frozen dataclasses. Everything that arrives is untrusted: a decoder takes a bounded amount of
memory, and a payload that does not have the form of its type raises `ProtocolError`.
"""

from __future__ import annotations

import enum
import math
import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar, Final

from edgekit.errors import VerificationError

__all__ = [
    "HANDSHAKE_PAYLOAD",
    "PROTOCOL_VERSION",
    "ErrorCode",
    "ErrorReply",
    "FaultKind",
    "FaultReply",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "HelloReply",
    "HelloRequest",
    "HighWaterReply",
    "HighWaterRequest",
    "OperatorsRequest",
    "PingRequest",
    "ProgramReply",
    "ProgramRequest",
    "ProgressReply",
    "ProtocolError",
    "ReadOutputRequest",
    "Record",
    "Request",
    "RunFlags",
    "RunReply",
    "RunRequest",
    "TensorReply",
    "TensorRequest",
    "WriteInputRequest",
    "cobs_decode",
    "cobs_encode",
    "encode_frame",
    "encode_request",
]

PROTOCOL_VERSION: Final = 1

HANDSHAKE_PAYLOAD: Final = 16
"""Payload bytes that an agent takes before its HELLO has told its limit."""

_HEADER: Final = struct.Struct("<BHH")
_CRC: Final = struct.Struct("<I")
_LARGEST_PAYLOAD: Final = 0xFFFF
_REPLY: Final = 0x80
_NOT_MEASURED: Final = 0xFFFFFFFF
_NONE: Final = 0xFFFF
_LARGEST_RANK: Final = 16
_HASH_BYTES: Final = 32

DTYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("int8", 1),
    2: ("uint8", 1),
    3: ("int16", 2),
    4: ("int32", 4),
    5: ("float32", 4),
    6: ("bool", 1),
    7: ("int64", 8),
    8: ("uint16", 2),
    9: ("uint32", 4),
    10: ("uint64", 8),
}
"""Wire code to the name in `edgekit.artifacts` and the bytes of one element."""


class ProtocolError(VerificationError):
    """A frame arrived whole and yet makes no sense: the agent is not one that this client knows."""


class FrameType(enum.IntEnum):
    """Requests; a reply has 0x80 added. The last three come from the agent only."""

    HELLO = 0x01
    PING = 0x02
    PROGRAM = 0x03
    TENSOR = 0x04
    WRITE_INPUT = 0x05
    RUN = 0x06
    READ_OUTPUT = 0x07
    OPERATORS = 0x08
    HIGH_WATER = 0x09
    PROGRESS = 0xC0
    ERROR = 0xE0
    FAULT = 0xE1

    @property
    def reply(self) -> int:
        return self | _REPLY


class ErrorCode(enum.IntEnum):
    TYPE = 1
    PROGRAM = 2
    RANGE = 3
    LENGTH = 4
    BUSY = 5
    NO_SESSION = 6
    STALE = 7
    VERSION = 8


class FaultKind(enum.IntEnum):
    HARD = 1
    MEMORY = 2
    BUS = 3
    USAGE = 4
    SIGNAL = 5
    UNEXPECTED = 6


class RunFlags(enum.IntFlag):
    NONE = 0
    MEASURE = 1
    OUTPUTS = 2


class Record(enum.IntEnum):
    """What OPERATORS records, and (`item`) how one value is laid out."""

    TICKS = 1
    CHECKSUMS = 2

    @property
    def item(self) -> struct.Struct:
        return struct.Struct("<Q" if self is Record.TICKS else "<I")


# --- frames ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """What lies between two delimiters, checked."""

    type: int
    sequence: int
    payload: bytes


def cobs_encode(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker 1999): no zero byte in the result."""
    out = bytearray()
    for part in data.split(b"\0"):
        full, rest = divmod(len(part), 254)
        for i in range(full):
            out.append(255)
            out += part[254 * i : 254 * (i + 1)]
        out.append(rest + 1)
        out += part[254 * full :]
    return bytes(out)


def cobs_decode(data: bytes) -> bytes | None:
    """The inverse of `cobs_encode`; None where `data` is broken."""
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        block = data[at + 1 : at + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            return None
        out += block
        at += code
        if code != 255 and at < len(data):
            out.append(0)
    return bytes(out)


def encode_frame(frame_type: int, sequence: int, payload: bytes) -> bytes:
    """One frame with the delimiters before and after it."""
    body = _HEADER.pack(frame_type, sequence, len(payload)) + payload
    return b"\0" + cobs_encode(body + _CRC.pack(zlib.crc32(body))) + b"\0"


def _decode_frame(encoded: bytes) -> Frame | None:
    body = cobs_decode(encoded)
    if body is None or len(body) < _HEADER.size + _CRC.size:
        return None
    body, crc = body[: -_CRC.size], body[-_CRC.size :]
    frame_type, sequence, length = _HEADER.unpack_from(body)
    if length != len(body) - _HEADER.size or _CRC.unpack(crc)[0] != zlib.crc32(body):
        return None
    return Frame(frame_type, sequence, body[_HEADER.size :])


class FrameDecoder:
    """Takes bytes as they come and gives whole frames; noise and damage cost the frame they hit and no more.

    Holds at most one encoded frame of `max_payload` bytes. `damaged` counts what lay between two delimiters
    and was no good frame, after the first good one: what comes before (a boot loader's text) is expected.
    """

    def __init__(self, max_payload: int = _LARGEST_PAYLOAD) -> None:
        self._buffer = bytearray()
        self._overflow = False
        self._synchronised = False
        self.damaged = 0
        self.limit(max_payload)

    def limit(self, max_payload: int) -> None:
        """Longer frames are dropped from now on."""
        body = _HEADER.size + max_payload + _CRC.size
        self._max_encoded = body + body // 254 + 2

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        *ended, rest = data.split(b"\0")
        for part in ended:
            self._store(part)
            frame = self._finish()
            if frame is not None:
                frames.append(frame)
        self._store(rest)
        return frames

    def _store(self, part: bytes) -> None:
        if len(self._buffer) + len(part) > self._max_encoded:
            self._buffer.clear()
            self._overflow = True
        if not self._overflow:
            self._buffer += part

    def _finish(self) -> Frame | None:
        encoded, overflow = bytes(self._buffer), self._overflow
        self._buffer.clear()
        self._overflow = False
        if not encoded and not overflow:
            return None
        frame = None if overflow else _decode_frame(encoded)
        if frame is not None:
            self._synchronised = True
        elif self._synchronised:
            self.damaged += 1
        return frame


# --- requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HelloRequest:
    type: ClassVar[FrameType] = FrameType.HELLO
    nonce: int
    version_min: int = PROTOCOL_VERSION
    version_max: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        return struct.pack("<BBI", self.version_min, self.version_max, self.nonce)


@dataclass(frozen=True, slots=True)
class PingRequest:
    type: ClassVar[FrameType] = FrameType.PING
    payload: bytes = b""

    def encode(self) -> bytes:
        return self.payload


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    type: ClassVar[FrameType] = FrameType.PROGRAM
    program: int

    def encode(self) -> bytes:
        return struct.pack("<H", self.program)


@dataclass(frozen=True, slots=True)
class TensorRequest:
    type: ClassVar[FrameType] = FrameType.TENSOR
    program: int
    output: bool
    index: int

    def encode(self) -> bytes:
        return struct.pack("<HBBH", self.program, self.output, 0, self.index)


@dataclass(frozen=True, slots=True)
class WriteInputRequest:
    type: ClassVar[FrameType] = FrameType.WRITE_INPUT
    OVERHEAD: ClassVar[int] = 8
    program: int
    index: int
    offset: int
    data: bytes

    def encode(self) -> bytes:
        return struct.pack("<HHI", self.program, self.index, self.offset) + self.data


@dataclass(frozen=True, slots=True)
class RunRequest:
    """`data` is empty, or all inputs one after the other."""

    type: ClassVar[FrameType] = FrameType.RUN
    OVERHEAD: ClassVar[int] = 4
    program: int
    flags: RunFlags = RunFlags.NONE
    data: bytes = b""

    def encode(self) -> bytes:
        return struct.pack("<HH", self.program, self.flags) + self.data


@dataclass(frozen=True, slots=True)
class ReadOutputRequest:
    type: ClassVar[FrameType] = FrameType.READ_OUTPUT
    program: int
    index: int
    offset: int
    count: int

    def encode(self) -> bytes:
        return struct.pack("<HHIH", self.program, self.index, self.offset, self.count)


@dataclass(frozen=True, slots=True)
class OperatorsRequest:
    type: ClassVar[FrameType] = FrameType.OPERATORS
    program: int
    record: Record
    first: int
    count: int

    def encode(self) -> bytes:
        return struct.pack("<HBBHH", self.program, self.record, 0, self.first, self.count)


@dataclass(frozen=True, slots=True)
class HighWaterRequest:
    type: ClassVar[FrameType] = FrameType.HIGH_WATER
    program: int

    def encode(self) -> bytes:
        return struct.pack("<H", self.program)


Request = (
    HelloRequest
    | PingRequest
    | ProgramRequest
    | TensorRequest
    | WriteInputRequest
    | RunRequest
    | ReadOutputRequest
    | OperatorsRequest
    | HighWaterRequest
)


def encode_request(request: Request, sequence: int) -> bytes:
    """A request as the bytes to send; the same for a repeat."""
    return encode_frame(request.type, sequence, request.encode())


# --- replies --------------------------------------------------------------------------------------------


def _unpack(layout: struct.Struct, payload: bytes, what: str, *, exact: bool = True) -> tuple[int, ...]:
    if len(payload) < layout.size or (exact and len(payload) != layout.size):
        raise ProtocolError(f"the board's {what} frame has {len(payload)} bytes, which is no form of it")
    return layout.unpack_from(payload)


def _ascii(raw: bytes) -> str:
    """Untrusted text from the board: printable ASCII, the rest as '?'."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in raw)


@dataclass(frozen=True, slots=True)
class HelloReply:
    """`nonce` is 0 in the HELLO that an agent sends unasked when it starts. Name: printable ASCII."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBHHBBI")
    version_min: int
    version_max: int
    max_payload: int
    program_count: int
    tick_bits: int
    nonce: int
    model_hash: str
    name: str

    @classmethod
    def decode(cls, payload: bytes) -> HelloReply:
        low, high, limit, programs, ticks, _, nonce = _unpack(cls._LAYOUT, payload, "hello", exact=False)
        rest = payload[cls._LAYOUT.size :]
        if len(rest) < _HASH_BYTES or not 1 <= ticks <= 64 or limit < 64 or low > high:
            raise ProtocolError("the board's hello frame makes no sense")
        model_hash, name = rest[:_HASH_BYTES].hex(), _ascii(rest[_HASH_BYTES:][:64])
        return cls(low, high, limit, programs, ticks, nonce, model_hash, name)


@dataclass(frozen=True, slots=True)
class ProgramReply:
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<HHHHI")
    model_hash: str
    input_count: int
    output_count: int
    operator_count: int
    arena_bytes: int

    @classmethod
    def decode(cls, payload: bytes) -> ProgramReply:
        if len(payload) < _HASH_BYTES:
            raise ProtocolError("the board's program frame is too short")
        inputs, outputs, operators, _, arena = _unpack(cls._LAYOUT, payload[_HASH_BYTES:], "program")
        return cls(payload[:_HASH_BYTES].hex(), inputs, outputs, operators, arena)


@dataclass(frozen=True, slots=True)
class TensorReply:
    """One input or output: real = scale · (stored − zero_point); scale is 0 where that does not apply."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBHIfi")
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    scale: float
    zero_point: int

    @classmethod
    def decode(cls, payload: bytes) -> TensorReply:
        if len(payload) < cls._LAYOUT.size:
            raise ProtocolError("the board's tensor frame is too short")
        code, rank, _, size, scale, zero_point = cls._LAYOUT.unpack_from(payload)
        rest = payload[cls._LAYOUT.size :]
        if code not in DTYPES or rank > _LARGEST_RANK or len(rest) != 4 * rank or not math.isfinite(scale):
            raise ProtocolError("the board's tensor frame makes no sense")
        dtype, item = DTYPES[code]
        shape: tuple[int, ...] = struct.unpack(f"<{rank}I", rest)
        if math.prod(shape) * item != size:
            raise ProtocolError(f"the board tells a {dtype} tensor of shape {shape} in {size} bytes")
        return cls(dtype, shape, size, scale, zero_point)


@dataclass(frozen=True, slots=True)
class RunReply:
    """`outputs` is all outputs one after the other, or empty where they have to be read."""

    OVERHEAD: ClassVar[int] = 8
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<Q")
    ticks: int
    outputs: bytes

    @classmethod
    def decode(cls, payload: bytes) -> RunReply:
        (ticks,) = _unpack(cls._LAYOUT, payload, "run", exact=False)
        return cls(ticks, payload[cls._LAYOUT.size :])


@dataclass(frozen=True, slots=True)
class HighWaterReply:
    """The most bytes used; None where it was not measured."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<II")
    stack_bytes: int | None
    arena_bytes: int | None

    @classmethod
    def decode(cls, payload: bytes) -> HighWaterReply:
        stack, arena = _unpack(cls._LAYOUT, payload, "high water")
        return cls(
            None if stack == _NOT_MEASURED else stack,
            None if arena == _NOT_MEASURED else arena,
        )


@dataclass(frozen=True, slots=True)
class ProgressReply:
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<H")
    operator: int

    @classmethod
    def decode(cls, payload: bytes) -> ProgressReply:
        (operator,) = _unpack(cls._LAYOUT, payload, "progress")
        return cls(operator)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """`code` is None where this client does not know it (`number` has it as sent)."""

    code: ErrorCode | None
    number: int
    request: int
    text: str

    @classmethod
    def decode(cls, payload: bytes) -> ErrorReply:
        if len(payload) < 2:
            raise ProtocolError("the board's error frame is too short")
        number, request = payload[0], payload[1]
        code = ErrorCode(number) if number in ErrorCode.__members__.values() else None
        return cls(code, number, request, _ascii(payload[2:]))


@dataclass(frozen=True, slots=True)
class FaultReply:
    """What the board's fault handler saw. `program` and `operator` are None where none ran or is known."""

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBHHHQIIQ")
    kind: FaultKind | None
    number: int
    program: int | None
    operator: int | None
    pc: int
    cfsr: int
    hfsr: int
    address: int

    @classmethod
    def decode(cls, payload: bytes) -> FaultReply:
        kind, number, program, operator, _, pc, cfsr, hfsr, address = _unpack(cls._LAYOUT, payload, "fault")
        return cls(
            FaultKind(kind) if kind in FaultKind.__members__.values() else None,
            number,
            None if program == _NONE else program,
            None if operator == _NONE else operator,
            pc,
            cfsr,
            hfsr,
            address,
        )
