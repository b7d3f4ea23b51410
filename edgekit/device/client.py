"""The client of docs/protocol.md: one board, over any transport."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from edgekit.device.faults import DeviceFaultError
from edgekit.device.protocol import (
    PROTOCOL_VERSION,
    ErrorCode,
    ErrorReply,
    FaultReply,
    Frame,
    FrameDecoder,
    FrameType,
    HelloReply,
    HelloRequest,
    HighWaterReply,
    HighWaterRequest,
    OperatorsRequest,
    PingRequest,
    ProgramReply,
    ProgramRequest,
    ProgressReply,
    ProtocolError,
    ReadOutputRequest,
    Record,
    Request,
    RunFlags,
    RunReply,
    RunRequest,
    TensorReply,
    TensorRequest,
    WriteInputRequest,
    encode_request,
)
from edgekit.device.transports.base import Transport
from edgekit.errors import DeviceError, UsageError, VerificationError

__all__ = ["BoardInfo", "Client", "HighWater", "ProgramInfo", "TensorInfo", "Timeouts"]

TensorInfo = TensorReply
HighWater = HighWaterReply

_MOST_TENSORS: Final = 256
"""Inputs, and outputs, of one program. No model has more; a damaged board may say so."""

_SLOWEST_BYTES_PER_S: Final = 1000.0
"""9600 baud: what a request's size adds to the wait for its reply."""

_QUIET_S: Final = 0.25
"""While bytes keep arriving with gaps shorter than this, the reply may be among them: no repeat yet."""

_SMALLEST_PIECE: Final = 64
"""Payload bytes below which a bad line is given up, not sent smaller pieces."""

_TRIES_OF_A_PIECE: Final = 3
"""So many losses of a larger one in a row, and smaller pieces are tried."""

_BACKOFF: Final = 1.5
"""What each repeat's wait is longer than the one before."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    A request without an answer is repeated after `reply_s`, then 1.5 times that, and so on up to `longest_s`,
    `attempts` times in all: a silent board is given up after 24 s. A request that the board has begun to work
    on is asked after in the same rhythm, and given up when nothing is heard for `run_silence_s`, or after
    `run_total_s`.
    """

    reply_s: float = 0.5
    longest_s: float = 8.0
    attempts: int = 8
    run_silence_s: float = 60.0
    run_total_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class BoardInfo:
    """What the board says of itself; `name` is printable ASCII."""

    name: str
    protocol_version: int
    max_payload: int
    program_count: int
    tick_bits: int
    model_hash: str
    """SHA-256 (hex) of program 0."""


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """One program of the image on the board. `model_hash` is hex, sizes are bytes."""

    model_hash: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operator_count: int
    arena_bytes: int


class Client:
    """Talks to one board. Every wait ends; what went wrong is said by the error's type:

    - DeviceError: the board does not answer, is busy, restarted, or crashed (DeviceFaultError).
    - VerificationError: what it sends is damaged or makes no sense, or it refuses what must be right.
    - UsageError: a call that makes no sense, such as running before the inputs are written.

    Inputs are kept here and sent with the run that needs them: a run destroys its inputs on the board, so
    each run sends them again. Outputs that fit into one frame come with the run's reply. So an inference
    with small tensors is one round trip. On a line where long frames do not get through, tensors go in ever
    smaller pieces until the session ends.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._decoder = FrameDecoder()
        self._arrived: deque[Frame] = deque()
        self._sequence = secrets.randbelow(0x10000)
        self._first_sequence = self._sequence
        self._byte_arrived = -math.inf
        self._piece = _SMALLEST_PIECE  # bytes of payload: the board's limit, or less where the line needs it
        self._nonce = 0
        self._hello: HelloReply | None = None
        self._programs: dict[int, ProgramInfo] = {}
        self._inputs: dict[int, dict[int, bytes]] = {}
        self._loaded: int | None = None
        self._ran: int | None = None
        self._outputs: tuple[bytes, ...] | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # --- the board and its programs ---------------------------------------------------------------------

    def connect(self) -> BoardInfo:
        """Open a session, also a new one after the board restarted. Inputs and outputs are forgotten."""
        self._hello = None
        self._nonce = secrets.randbelow(0xFFFFFFFF) + 1
        # Ahead of the session before by more than it used, and by less than half of all: what is still under
        # way from there is then too old for the board, and no answer to anything in this session.
        self._sequence = (self._sequence + 0x1000 + secrets.randbelow(0x4000)) & 0xFFFF
        self._first_sequence = self._sequence
        self._programs.clear()
        self._inputs.clear()
        self._loaded = self._ran = self._outputs = None
        payload = self._exchange(
            HelloRequest(self._nonce), lambda reply: HelloReply.decode(reply).nonce == self._nonce
        )
        hello = HelloReply.decode(payload)
        if not hello.version_min <= PROTOCOL_VERSION <= hello.version_max:
            raise DeviceError(
                f"{self._board} speaks protocol {hello.version_min} to {hello.version_max}, "
                f"this edgekit {PROTOCOL_VERSION}",
                hint="flash the board again with this edgekit",
            )
        self._decoder.limit(hello.max_payload)
        self._piece = hello.max_payload
        self._hello = hello
        return self.info()

    def info(self) -> BoardInfo:
        hello = self._session()
        return BoardInfo(
            name=hello.name,
            protocol_version=PROTOCOL_VERSION,
            max_payload=hello.max_payload,
            program_count=hello.program_count,
            tick_bits=hello.tick_bits,
            model_hash=hello.model_hash,
        )

    def ping(self) -> None:
        """Return when the agent answers."""
        payload = secrets.token_bytes(4)
        if self._exchange(PingRequest(payload)) != payload:
            raise ProtocolError(f"{self._board} answered a ping with something else")

    def program_info(self, program: int = 0) -> ProgramInfo:
        """Asked once and kept."""
        known = self._programs.get(program)
        if known is None:
            self._check_program(program)
            known = self._programs[program] = self._ask_program(program)
        return known

    def _ask_program(self, program: int) -> ProgramInfo:
        reply = ProgramReply.decode(self._exchange(ProgramRequest(program)))
        if reply.input_count > _MOST_TENSORS or reply.output_count > _MOST_TENSORS:
            raise ProtocolError(
                f"{self._board} tells {reply.input_count} inputs and {reply.output_count} outputs; "
                f"at most {_MOST_TENSORS} make sense"
            )

        def tensors(output: bool, count: int) -> tuple[TensorInfo, ...]:
            return tuple(
                TensorReply.decode(self._exchange(TensorRequest(program, output, index)))
                for index in range(count)
            )

        inputs, outputs = tensors(False, reply.input_count), tensors(True, reply.output_count)
        largest = max((tensor.size_bytes for tensor in inputs + outputs), default=0)
        if largest > reply.arena_bytes:
            raise ProtocolError(
                f"{self._board} tells a tensor of {largest} bytes in an arena of {reply.arena_bytes}"
            )
        return ProgramInfo(reply.model_hash, inputs, outputs, reply.operator_count, reply.arena_bytes)

    # --- inference --------------------------------------------------------------------------------------

    def write_input(self, index: int, data: bytes, program: int = 0) -> None:
        """Set an input, as the bytes that the program stores; it goes to the board with the next run."""
        inputs = self.program_info(program).inputs
        if not 0 <= index < len(inputs):
            raise UsageError(f"program {program} has {len(inputs)} inputs, there is no input {index}")
        if len(data) != inputs[index].size_bytes:
            raise UsageError(
                f"input {index} of program {program} takes {inputs[index].size_bytes} bytes, not {len(data)}"
            )
        self._inputs.setdefault(program, {})[index] = bytes(data)
        if self._loaded == program:
            self._loaded = None

    def run(self, program: int = 0) -> int:
        """One inference on the inputs written last. Returns the sum of the operators' ticks."""
        return self._run(program, RunFlags.OUTPUTS)

    def profile_run(self, program: int = 0) -> int:
        """One uninstrumented inference, in ticks of the board's counter.

        Measures the arena's high-water mark too.
        """
        return self._run(program, RunFlags.OUTPUTS | RunFlags.MEASURE)

    def read_output(self, index: int, program: int = 0) -> bytes:
        """An output of the last run, as the bytes that the program stores."""
        outputs = self.program_info(program).outputs
        if not 0 <= index < len(outputs):
            raise UsageError(f"program {program} has {len(outputs)} outputs, there is no output {index}")
        if self._ran != program:
            raise UsageError(f"program {program} has no outputs: it was not the last that ran")
        if self._outputs is None:
            self._outputs = tuple(
                self._read_output(program, i, tensor.size_bytes) for i, tensor in enumerate(outputs)
            )
        return self._outputs[index]

    def profile_operators(self, program: int = 0) -> tuple[int, ...]:
        """Ticks of each operator in one instrumented inference."""
        return self._record(program, Record.TICKS)

    def operator_checksums(self, program: int = 0) -> tuple[int, ...]:
        """CRC-32 of each operator's output, taken right after it ran."""
        return self._record(program, Record.CHECKSUMS)

    def high_water(self, program: int = 0) -> HighWater:
        """The most stack and arena bytes used; the arena's is known after a `profile_run` of the program."""
        self._check_program(program)
        return HighWaterReply.decode(self._exchange(HighWaterRequest(program)))

    def _run(self, program: int, flags: RunFlags) -> int:
        info = self.program_info(program)
        data = b"".join(self._inputs_of(program, info))
        sizes = [tensor.size_bytes for tensor in info.outputs]
        payload: bytes | None = None
        if len(data) <= self._piece - RunRequest.OVERHEAD:
            self._forget_results()
            payload = self._exchange_piece(RunRequest(program, flags, data))
        if payload is None:
            self._load(program, info)
            self._forget_results()
            if RunReply.OVERHEAD + sum(sizes) > self._piece:
                flags &= ~RunFlags.OUTPUTS
            payload = self._exchange(RunRequest(program, flags))
        reply = RunReply.decode(payload)
        if reply.outputs:
            self._outputs = _split(reply.outputs, sizes)
        elif sum(sizes) == 0:
            self._outputs = tuple(b"" for _ in sizes)
        self._ran = program
        return reply.ticks

    def _record(self, program: int, record: Record) -> tuple[int, ...]:
        info = self.program_info(program)
        values: list[int] = []
        while len(values) < info.operator_count:
            self._load(program, info)
            self._forget_results()
            count = min(self._piece // 8, info.operator_count - len(values))
            payload = self._exchange(OperatorsRequest(program, record, len(values), count))
            if len(payload) != count * record.item.size:
                raise ProtocolError(f"{self._board} sent {len(payload)} bytes for {count} operators")
            values += (value for (value,) in record.item.iter_unpack(payload))
            self._ran = program
        return tuple(values)

    def _inputs_of(self, program: int, info: ProgramInfo) -> Sequence[bytes]:
        written = self._inputs.get(program, {})
        missing = [str(index) for index in range(len(info.inputs)) if index not in written]
        if missing:
            raise UsageError(f"program {program} can't run: input {', '.join(missing)} has not been written")
        return [written[index] for index in range(len(info.inputs))]

    def _load(self, program: int, info: ProgramInfo) -> None:
        if self._loaded == program:
            return
        for index, data in enumerate(self._inputs_of(program, info)):
            offset = 0
            while offset < len(data):
                part = data[offset : offset + self._piece - WriteInputRequest.OVERHEAD]
                reply = self._exchange_piece(WriteInputRequest(program, index, offset, part))
                if reply:
                    raise ProtocolError(f"{self._board} answered a write with data")
                if reply is not None:
                    offset += len(part)
        self._loaded = program

    def _read_output(self, program: int, index: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            count = min(self._piece, size - len(data))
            part = self._exchange_piece(ReadOutputRequest(program, index, len(data), count))
            if part is None:
                continue
            if len(part) != count:
                raise ProtocolError(f"{self._board} sent {len(part)} bytes of output, {count} were asked for")
            data += part
        return data

    def _forget_results(self) -> None:
        self._loaded = self._ran = self._outputs = None

    def _check_program(self, program: int) -> None:
        count = self._session().program_count
        if not 0 <= program < count:
            raise UsageError(f"{self._board} has {count} programs, there is no program {program}")

    def _session(self) -> HelloReply:
        if self._hello is None:
            raise DeviceError(f"no session with {self._board}: connect first")
        return self._hello

    # --- requests and repeats ---------------------------------------------------------------------------

    @property
    def _board(self) -> str:
        return f"the board at {self._transport.name}"

    def _exchange(self, request: Request, accept: Callable[[bytes], bool] = lambda _: True) -> bytes:
        """The payload of the reply to `request`, repeated as `Timeouts` says.

        A reply that `accept` refuses is one to somebody else, and dropped.
        """
        damaged = self._decoder.damaged
        reply = self._ask(request, self._timeouts.attempts, accept)
        if reply is None:
            raise self._unanswered(request, self._decoder.damaged - damaged)
        return reply

    def _exchange_piece(self, request: Request) -> bytes | None:
        """`_exchange`; or None where smaller pieces are to be tried, of which `_piece` now has the size."""
        if self._piece <= _SMALLEST_PIECE:
            return self._exchange(request)
        reply = self._ask(request, min(_TRIES_OF_A_PIECE, self._timeouts.attempts))
        if reply is None:
            self._piece = max(self._piece // 4, _SMALLEST_PIECE)
        return reply

    def _ask(
        self, request: Request, most_attempts: int, accept: Callable[[bytes], bool] = lambda _: True
    ) -> bytes | None:
        """The payload of the reply; None when there was no sign of life in `most_attempts`."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        wire = encode_request(request, self._sequence)
        limits = self._timeouts
        began = heard = self._clock()
        wait = limits.reply_s + len(wire) / _SLOWEST_BYTES_PER_S
        attempts = 0
        working = nudged = False
        while True:
            self._transport.write(wire, limits.longest_s)
            deadline = self._clock() + wait
            while (frame := self._receive(deadline)) is not None:
                if _is_first_hello(frame):
                    # The board has just started; or it is a late copy from when it did. It knows: ask again.
                    if not nudged:
                        self._transport.write(wire, limits.longest_s)
                    nudged = True
                    continue
                if frame.sequence != self._sequence:
                    continue
                if frame.type == request.type.reply and accept(frame.payload):
                    return frame.payload
                if frame.type == FrameType.PROGRESS:
                    ProgressReply.decode(frame.payload)
                    working, heard = True, self._clock()
                    deadline = heard + wait
                elif frame.type == FrameType.ERROR:
                    error = ErrorReply.decode(frame.payload)
                    if error.request == request.type:
                        self._check_busy(error, self._clock() - began)
                        working, heard = True, self._clock()
            attempts = 0 if working else attempts + 1
            if attempts >= most_attempts:
                return None
            now = self._clock()
            if working and (now - heard > limits.run_silence_s or now - began > limits.run_total_s):
                raise DeviceError(
                    f"{self._board} began the {request.type.name.lower()} request and has been silent "
                    f"for {now - heard:.0f} s"
                )
            wait = min(_BACKOFF * wait, max(limits.longest_s, wait))

    def _receive(self, deadline: float) -> Frame | None:
        """The next frame that may answer something; None at the deadline, or when a frame that was arriving
        then has ended.
        """
        while True:
            while self._arrived:
                frame = self._arrived.popleft()
                self._check_fault(frame)
                return frame
            quiet = min(self._byte_arrived + _QUIET_S, deadline + self._timeouts.longest_s)
            left = max(deadline, quiet) - self._clock()
            if left <= 0:
                return None
            data = self._transport.read(left)
            if data:
                self._byte_arrived = self._clock()
                self._arrived.extend(self._decoder.feed(data))

    def _check_fault(self, frame: Frame) -> None:
        if frame.type != FrameType.FAULT or self._hello is None:
            return
        asked = (self._sequence - self._first_sequence) & 0xFFFF
        if (
            frame.sequence - self._first_sequence
        ) & 0xFFFF <= asked:  # else left over from an earlier session
            raise DeviceFaultError(self._board, FaultReply.decode(frame.payload))

    def _restarted(self) -> DeviceError:
        self._hello = None
        return DeviceError(
            f"{self._board} restarted in the middle of its work",
            hint="a brown-out or a watchdog; run the command again",
        )

    def _check_busy(self, error: ErrorReply, waited_s: float) -> None:
        """Return where the request is worth repeating: the board is busy, and not for too long yet."""
        if error.code is ErrorCode.BUSY and waited_s <= self._timeouts.run_silence_s:
            return
        if error.code is ErrorCode.BUSY:
            raise DeviceError(f"{self._board} has been busy with another request for {waited_s:.0f} s")
        if error.code is ErrorCode.NO_SESSION:
            raise self._restarted()
        if error.code is ErrorCode.STALE:
            raise DeviceError(f"{self._board} is being used by another program at the same time")
        if error.code is ErrorCode.VERSION:
            raise DeviceError(f"{self._board} speaks another protocol version", hint="flash it again")
        what = error.code.name.lower() if error.code is not None else str(error.number)
        detail = f": {error.text}" if error.text else ""
        raise VerificationError(f"{self._board} refused request {error.request:#04x} (error {what}{detail})")

    def _unanswered(self, request: Request, damaged: int) -> DeviceError | VerificationError:
        what = f"{self._timeouts.attempts} {request.type.name.lower()} requests"
        if damaged:
            return VerificationError(
                f"{self._board} answered {what} with {damaged} damaged frames",
                hint="check the cable and the baud rate",
            )
        if self._hello is None:
            return DeviceError(
                f"{self._board} does not answer: {what} were lost",
                hint="is edgekit's firmware on it? flash it first; check the cable and the baud rate",
            )
        return DeviceError(f"{self._board} stopped answering: {what} were lost")


def _is_first_hello(frame: Frame) -> bool:
    return frame.type == FrameType.HELLO.reply and HelloReply.decode(frame.payload).nonce == 0


def _split(data: bytes, sizes: Sequence[int]) -> tuple[bytes, ...]:
    if len(data) != sum(sizes):
        raise ProtocolError(f"the board sent {len(data)} bytes of outputs, {sum(sizes)} were expected")
    parts: list[bytes] = []
    at = 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return tuple(parts)
