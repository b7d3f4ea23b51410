"""A board that isn't one, for tests: the agent of docs/protocol.md in Python, behind a link that can be bad.

Time is virtual: `read` that finds nothing moves `clock` on by its timeout, so no test waits.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit.device.protocol import (
    DTYPES,
    ErrorCode,
    FaultKind,
    Frame,
    FrameDecoder,
    FrameType,
    Record,
    RunFlags,
    TensorReply,
    encode_frame,
)
from edgekit.device.transports.base import TransportClosedError

__all__ = ["FakeBoard", "FakeFaultError", "FakeProgram", "LinkFaults"]

FakeOperator = Callable[[Sequence[bytes]], Sequence[bytes]]
"""All live tensors in, all live tensors out."""

_DTYPE_CODES = {name: code for code, (name, _) in DTYPES.items()}
_NONE = 0xFFFF
_NOT_MEASURED = 0xFFFFFFFF
_SEQUENCE_WINDOW = 64
_SESSIONS_REMEMBERED = 4


class FakeFaultError(Exception):
    """Raised by an operator: the processor stops here."""


@dataclass(frozen=True, slots=True)
class FakeProgram:
    """A program as Python: the first operator gets the inputs, the last gives the outputs.

    `ticks` is what each operator takes.
    """

    model_hash: bytes
    inputs: tuple[TensorReply, ...]
    outputs: tuple[TensorReply, ...]
    operators: tuple[FakeOperator, ...]
    ticks: tuple[int, ...]
    arena_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """Chances, 0 to 1, in each direction: a frame is lost, comes twice, changes places with the next, is cut
    short, or has a bit flipped.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    cut: float = 0.0
    flip: float = 0.0


class FakeBoard:
    """A `Transport` to a fake agent. `inferences` counts how often a program really ran."""

    def __init__(
        self,
        programs: Sequence[FakeProgram],
        *,
        faults: LinkFaults | None = None,
        seed: int = 0,
        board_name: str = "fake",
        max_payload: int = 1024,
        boot_noise: bytes = b"",
        versions: tuple[int, int] = (1, 1),
    ) -> None:
        self.inferences = 0
        self.silent = False
        """True: receives, never answers."""
        self.busy_requests = 0
        """So many of the next requests are refused as BUSY."""
        self._programs = tuple(programs)
        self._faults = faults or LinkFaults()
        self._random = random.Random(seed)
        self._board_name = board_name.encode("ascii")
        self._max_payload = max_payload
        self._versions = versions
        self._now = 0.0
        self._closed = False
        self._to_client: deque[bytes] = deque([boot_noise] if boot_noise else [])
        self._held: dict[str, bytes] = {}
        self._decoder = FrameDecoder(max_payload)
        self._start()

    def _start(self) -> None:
        self._nonce = 0
        self._earlier: deque[int] = deque(maxlen=_SESSIONS_REMEMBERED)
        self._last = 0
        self._kept: tuple[int, int, bytes] | None = None
        self._fault: bytes | None = None
        self._inputs: dict[int, list[bytearray]] = {
            index: [bytearray(tensor.size_bytes) for tensor in program.inputs]
            for index, program in enumerate(self._programs)
        }
        self._outputs: dict[int, list[bytes]] = {}
        self._send(FrameType.HELLO.reply, 0, self._hello(0))

    # --- Transport --------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return "fake"

    def clock(self) -> float:
        """Virtual seconds."""
        return self._now

    def read(self, timeout_s: float) -> bytes:
        if self._to_client:
            return self._to_client.popleft()
        if self._closed:
            raise TransportClosedError("the fake board was closed")
        held = self._held.pop("client", None)
        if held is not None:
            return held
        self._now += max(timeout_s, 0.001)
        return b""

    def write(self, data: bytes, timeout_s: float) -> None:
        if self._closed:
            raise TransportClosedError("the fake board was closed")
        for part in self._distort("board", data):
            for frame in self._decoder.feed(part):
                if not self.silent:
                    self._handle(frame)

    def close(self) -> None:
        self._closed = True

    # --- the world --------------------------------------------------------------------------------------

    def restart(self) -> None:
        """As after a reset: the session and all tensors are gone."""
        self._start()

    def _distort(self, direction: str, data: bytes) -> list[bytes]:
        chance = self._random.random
        if chance() < self._faults.loss:
            return []
        if chance() < self._faults.cut:
            data = data[: self._random.randrange(len(data))]
        if data and chance() < self._faults.flip:
            at = self._random.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ (1 << self._random.randrange(8))]) + data[at + 1 :]
        parts = [data, data] if chance() < self._faults.duplicate else [data]
        earlier = self._held.pop(direction, None)
        if earlier is None and chance() < self._faults.reorder:
            self._held[direction] = parts.pop()
        elif earlier is not None:
            parts.append(earlier)
        return parts

    def _send(self, frame_type: int, sequence: int, payload: bytes) -> None:
        self._to_client.extend(self._distort("client", encode_frame(frame_type, sequence, payload)))

    # --- the agent --------------------------------------------------------------------------------------

    def _hello(self, nonce: int) -> bytes:
        low, high = self._versions
        first = self._programs[0].model_hash if self._programs else bytes(32)
        head = struct.pack("<BBHHBBI", low, high, self._max_payload, len(self._programs), 32, 0, nonce)
        return head + first + self._board_name

    def _handle(self, frame: Frame) -> None:
        if self.busy_requests > 0:
            self.busy_requests -= 1
            self._refuse(frame, ErrorCode.BUSY)
            return
        if frame.type == FrameType.HELLO:
            self._handle_hello(frame)
            return
        if self._fault is not None:
            self._send(FrameType.FAULT, frame.sequence, self._fault)
            return
        if self._nonce == 0:
            self._refuse(frame, ErrorCode.NO_SESSION)
            return
        if (frame.sequence - self._last) & 0xFFFF >= _SEQUENCE_WINDOW:
            self._refuse(frame, ErrorCode.STALE)
            return
        self._last = frame.sequence
        if self._kept is not None and self._kept[:2] == (frame.type, frame.sequence):
            self._send(frame.type | 0x80, frame.sequence, self._kept[2])
            return
        try:
            reply = self._answer(frame)
        except struct.error:
            self._refuse(frame, ErrorCode.LENGTH)
        except _Refusal as refusal:
            self._refuse(frame, refusal.code)
        except FakeFaultError:
            pass
        else:
            self._send(frame.type | 0x80, frame.sequence, reply)

    def _handle_hello(self, frame: Frame) -> None:
        if self._fault is not None:
            self.restart()
            return
        _, _, nonce = struct.unpack("<BBI", frame.payload)
        if nonce in self._earlier:
            self._refuse(frame, ErrorCode.STALE)
            return
        if nonce != self._nonce:
            self._earlier.append(self._nonce)
            self._nonce, self._last, self._kept = nonce, frame.sequence, None
        self._send(FrameType.HELLO.reply, frame.sequence, self._hello(nonce))

    def _refuse(self, frame: Frame, code: ErrorCode) -> None:
        self._send(FrameType.ERROR, frame.sequence, struct.pack("<BB", code, frame.type))

    def _answer(self, frame: Frame) -> bytes:
        if frame.type == FrameType.PING:
            return frame.payload
        if frame.type not in FrameType.__members__.values() or frame.type > FrameType.HIGH_WATER:
            raise _Refusal(ErrorCode.TYPE)
        (index,) = struct.unpack_from("<H", frame.payload)
        if index >= len(self._programs):
            raise _Refusal(ErrorCode.PROGRAM)
        program: FakeProgram = self._programs[index]
        payload = frame.payload
        if frame.type == FrameType.PROGRAM:
            counts = (len(program.inputs), len(program.outputs), len(program.operators), 0)
            return program.model_hash + struct.pack("<HHHHI", *counts, program.arena_bytes)
        if frame.type == FrameType.TENSOR:
            _, output, _, tensor = struct.unpack("<HBBH", payload)
            return _tensor(program.outputs if output else program.inputs, tensor)
        if frame.type == FrameType.WRITE_INPUT:
            _, tensor, offset = struct.unpack_from("<HHI", payload)
            _slice(self._inputs[index], tensor, offset, len(payload) - 8)
            self._inputs[index][tensor][offset : offset + len(payload) - 8] = payload[8:]
            return b""
        if frame.type == FrameType.READ_OUTPUT:
            _, tensor, offset, count = struct.unpack("<HHIH", payload)
            return _slice(self._outputs.get(index, []), tensor, offset, count)
        if frame.type == FrameType.HIGH_WATER:
            return struct.pack("<II", 512, _NOT_MEASURED)
        if frame.type == FrameType.RUN:
            return self._run(frame, index, program)
        return self._operators(frame, index, program)

    def _run(self, frame: Frame, index: int, program: FakeProgram) -> bytes:
        _, flags = struct.unpack_from("<HH", frame.payload)
        data = frame.payload[4:]
        if data:
            if len(data) != sum(tensor.size_bytes for tensor in program.inputs):
                raise _Refusal(ErrorCode.LENGTH)
            for buffer in self._inputs[index]:
                buffer[:], data = data[: len(buffer)], data[len(buffer) :]
        self._execute(frame, index, program)
        outputs = b"".join(self._outputs[index])
        shown = flags & RunFlags.OUTPUTS and len(outputs) + 8 <= self._max_payload
        reply = struct.pack("<Q", sum(program.ticks)) + (outputs if shown else b"")
        self._kept = (frame.type, frame.sequence, reply)
        return reply

    def _operators(self, frame: Frame, index: int, program: FakeProgram) -> bytes:
        _, what, _, first, count = struct.unpack("<HBBHH", frame.payload)
        stages = self._execute(frame, index, program)
        if first + count > len(stages) or count * 8 > self._max_payload:
            raise _Refusal(ErrorCode.RANGE)
        record = Record(what)
        values = program.ticks if record is Record.TICKS else [zlib.crc32(b"".join(s)) for s in stages]
        reply = b"".join(record.item.pack(value) for value in values[first : first + count])
        self._kept = (frame.type, frame.sequence, reply)
        return reply

    def _execute(self, frame: Frame, index: int, program: FakeProgram) -> list[Sequence[bytes]]:
        self._kept = None
        self._send(FrameType.PROGRESS, frame.sequence, struct.pack("<H", 0))
        self.inferences += 1
        live: Sequence[bytes] = [bytes(buffer) for buffer in self._inputs[index]]
        stages: list[Sequence[bytes]] = []
        for number, operator in enumerate(program.operators):
            try:
                live = operator(live)
            except FakeFaultError:
                fault = (FaultKind.BUS, 5, index, number, 0, 0x1234, 0x8200, 0, 0x60000000)
                self._fault = struct.pack("<BBHHHQIIQ", *fault)
                self._send(FrameType.FAULT, frame.sequence, self._fault)
                raise
            stages.append(live)
        for buffer in self._inputs[index]:  # a run destroys its inputs
            buffer[:] = b"\xa5" * len(buffer)
        self._outputs = {index: [bytes(data) for data in live]}
        return stages


class _Refusal(Exception):
    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def _tensor(tensors: Sequence[TensorReply], index: int) -> bytes:
    if index >= len(tensors):
        raise _Refusal(ErrorCode.RANGE)
    tensor = tensors[index]
    head = (
        _DTYPE_CODES[tensor.dtype],
        len(tensor.shape),
        0,
        tensor.size_bytes,
        tensor.scale,
        tensor.zero_point,
    )
    return struct.pack("<BBHIfi", *head) + struct.pack(f"<{len(tensor.shape)}I", *tensor.shape)


def _slice(buffers: Sequence[bytes | bytearray], index: int, offset: int, count: int) -> bytes:
    if index >= len(buffers) or offset + count > len(buffers[index]):
        raise _Refusal(ErrorCode.RANGE)
    return bytes(buffers[index][offset : offset + count])
