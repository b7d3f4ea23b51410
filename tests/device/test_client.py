"""The client against the fake board: right answers over bad links, and every failure as the right error."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, strategies as st

from edgekit.device import DeviceFaultError
from edgekit.device.client import Client, Timeouts
from edgekit.device.fake import FakeBoard, FakeFaultError, FakeProgram, LinkFaults
from edgekit.device.protocol import (
    FrameType,
    HelloRequest,
    TensorReply,
    WriteInputRequest,
    encode_request,
)
from edgekit.device.transports.base import TransportClosedError
from edgekit.errors import DeviceError, UsageError, VerificationError


def int8(size: int) -> TensorReply:
    return TensorReply("int8", (size,), size, 0.5, 3)


def negate(live: Sequence[bytes]) -> list[bytes]:
    return [bytes((-value) & 0xFF for value in data) for data in live]


def reverse(live: Sequence[bytes]) -> list[bytes]:
    return [data[::-1] for data in live]


def crash(live: Sequence[bytes]) -> list[bytes]:
    raise FakeFaultError


def program(*sizes: int, operators: int = 2) -> FakeProgram:
    tensors = tuple(int8(size) for size in sizes)
    steps = tuple(negate if i % 2 == 0 else reverse for i in range(operators))
    return FakeProgram(bytes(range(32)), tensors, tensors, steps, tuple(range(10, 10 + operators)), 65536)


SMALL, LARGE, MANY = program(100, 20), program(5000), program(40, operators=300)
CRASHING = FakeProgram(bytes(32), (int8(4),), (int8(4),), (negate, crash), (1, 1))


def connect(board: FakeBoard, timeouts: Timeouts | None = None) -> Client:
    client = Client(board, clock=board.clock, timeouts=timeouts)
    client.connect()
    return client


def answer(data: bytes) -> bytes:
    return reverse(negate([data]))[0]


def test_a_board_tells_what_it_is() -> None:
    client = connect(FakeBoard([SMALL, LARGE], board_name="bench", boot_noise=b"Boot 1.2\r\n\0\xff"))
    info = client.info()
    assert (info.name, info.program_count, info.protocol_version, info.tick_bits) == ("bench", 2, 1, 32)
    assert info.model_hash == bytes(range(32)).hex()
    told = client.program_info(0)
    assert told.inputs == SMALL.inputs
    assert told.outputs == SMALL.outputs
    assert (told.operator_count, told.arena_bytes) == (2, 65536)


def test_small_tensors_take_one_round_trip() -> None:
    board = FakeBoard([SMALL])
    client = connect(board)
    client.program_info(0)
    before = client._sequence
    client.write_input(0, bytes(range(100)))
    client.write_input(1, bytes(range(20)))
    client.run()
    assert client.read_output(0) == answer(bytes(range(100)))
    assert client.read_output(1) == answer(bytes(range(20)))
    assert client._sequence - before == 1


def test_large_tensors_go_in_pieces() -> None:
    client = connect(FakeBoard([SMALL, LARGE]))
    data = bytes(i % 251 for i in range(5000))
    client.write_input(0, data, 1)
    assert client.run(1) == 21
    assert client.read_output(0, 1) == answer(data)


def test_each_run_gets_the_inputs_again() -> None:
    """The fake destroys them, as a real program does."""
    board = FakeBoard([SMALL])
    client = connect(board)
    client.write_input(0, bytes(100))
    client.write_input(1, b"\1" * 20)
    for _ in range(3):
        assert client.profile_run() == 21
        assert client.read_output(1) == answer(b"\1" * 20)
    assert client.profile_operators() == (10, 11)
    assert client.operator_checksums()[1] == zlib.crc32(answer(bytes(100)) + answer(b"\1" * 20))
    assert board.inferences == 5


def test_more_operators_than_a_frame_holds_take_several_inferences() -> None:
    board = FakeBoard([MANY])
    client = connect(board)
    client.write_input(0, bytes(range(40)))
    assert client.profile_operators() == MANY.ticks
    assert board.inferences == 3


def test_high_water_says_what_was_not_measured() -> None:
    marks = connect(FakeBoard([SMALL])).high_water()
    assert (marks.stack_bytes, marks.arena_bytes) == (512, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.write_input(2, b""), "there is no input 2"),
        (lambda client: client.write_input(0, bytes(99)), "takes 100 bytes, not 99"),
        (lambda client: client.run(2), "there is no program 2"),
        (lambda client: client.run(0), "input 0, 1 has not been written"),
        (lambda client: client.read_output(2), "there is no output 2"),
        (lambda client: client.read_output(0, 1), "was not the last that ran"),
        (lambda client: client.high_water(-1), "there is no program -1"),
    ],
)
def test_calls_that_make_no_sense_are_refused_before_anything_is_sent(
    call: Callable[[Client], object], message: str
) -> None:
    client = connect(FakeBoard([SMALL, LARGE]))
    client.program_info(0)
    client.program_info(1)
    sequence = client._sequence
    with pytest.raises(UsageError, match=message):
        call(client)
    assert client._sequence == sequence


# --- bad links ------------------------------------------------------------------------------------------

chance = st.floats(0, 0.2)


@given(
    st.builds(LinkFaults, chance, chance, chance, chance, chance),
    st.integers(0, 2**32),
    st.binary(min_size=1),
)
def test_over_a_bad_link_an_answer_is_right_or_there_is_none(
    faults: LinkFaults, seed: int, data: bytes
) -> None:
    board = FakeBoard([SMALL, LARGE], faults=faults, seed=seed)
    client = Client(board, clock=board.clock)
    runs = 0
    try:
        client.connect()
        for round_number in range(4):
            first = (data * 100)[round_number : 100 + round_number].ljust(100, b"\7")[:100]
            large = (first * 51)[:5000]
            client.write_input(0, first)
            client.write_input(1, first[:20])
            client.write_input(0, large, 1)
            client.run()
            runs += 1
            assert client.read_output(0) == answer(first)
            assert client.read_output(1) == answer(first[:20])
            client.run(1)
            runs += 1
            assert client.read_output(0, 1) == answer(large)
    except (DeviceError, VerificationError):
        # Given up after the last repeat: allowed on such a link, and never later than the time limits say.
        assert board.clock() < 3600
        return
    assert board.inferences == runs, "a repeated request must not run the program again"


def test_a_mildly_bad_link_is_not_noticed() -> None:
    faults = LinkFaults(loss=0.05, duplicate=0.05, reorder=0.05, cut=0.02, flip=0.02)
    board = FakeBoard([SMALL], faults=faults, seed=7)
    client = connect(board)
    for i in range(200):
        data = bytes((i + k) & 0xFF for k in range(100))
        client.write_input(0, data)
        client.write_input(1, data[:20])
        client.run()
        assert client.read_output(0) == answer(data)
    assert board.inferences == 200


def test_a_lost_result_is_asked_for_again_and_not_computed_again() -> None:
    board = FakeBoard([SMALL])
    client = connect(board)
    client.write_input(0, bytes(range(100)))
    client.write_input(1, bytes(20))
    original, lost = board._send, [0x86, 0x86, 0x86]

    def lose_three_results(frame_type: int, sequence: int, payload: bytes) -> None:
        if frame_type in lost:
            lost.remove(frame_type)
        else:
            original(frame_type, sequence, payload)

    board._send = lose_three_results  # type: ignore[method-assign]
    client.run()
    assert lost == []
    assert client.read_output(0) == answer(bytes(range(100)))
    assert board.inferences == 1


def test_a_late_copy_of_the_hello_at_start_is_no_restart() -> None:
    """The board is asked at once: half a second's wait for a repeat is not needed."""
    board = FakeBoard([SMALL])
    client = connect(board)
    client.write_input(0, bytes(range(100)))
    client.write_input(1, bytes(20))
    original = board._send

    def instead_of_the_result(frame_type: int, sequence: int, payload: bytes) -> None:
        if frame_type != 0x86:
            original(frame_type, sequence, payload)
            return
        board._send = original  # type: ignore[method-assign]
        original(FrameType.HELLO.reply, 0, board._hello(0))

    client.program_info(0)
    board._send = instead_of_the_result  # type: ignore[method-assign]
    began = board.clock()
    client.run()
    assert client.read_output(0) == answer(bytes(range(100)))
    assert (board.inferences, board.clock()) == (1, began)


def test_a_late_fault_of_an_earlier_session_is_not_this_ones() -> None:
    board = FakeBoard([SMALL, CRASHING])
    client = connect(board)
    client.write_input(0, bytes(4), 1)
    with pytest.raises(DeviceFaultError) as caught:
        client.run(1)
    sequence = client._sequence
    client.connect()
    fault = (2, 5, 1, 1, 0, caught.value.fault.pc, 0, 0, 0)
    board._send(FrameType.FAULT, sequence, struct.pack("<BBHHHQIIQ", *fault))
    client.ping()


@given(st.integers(0, 0xFFFF))
def test_frames_of_an_earlier_session_are_too_old_in_the_next(start: int) -> None:
    board = FakeBoard([SMALL])
    client = connect(board)
    client._sequence = board._last = start
    client.ping()
    hello = encode_request(HelloRequest(client._nonce), start)
    write = encode_request(WriteInputRequest(0, 0, 0, bytes(100)), (start + 1) & 0xFFFF)
    for _ in range(3):
        client.connect()
        client.write_input(0, b"\1" * 100)
        client.write_input(1, b"\1" * 20)
        client._load(0, client.program_info(0))
        board.write(hello, 1.0)
        board.write(write, 1.0)
        assert board._inputs[0][0] == b"\1" * 100
        client.run()
        assert client.read_output(1) == answer(b"\1" * 20)


def test_a_reply_that_is_still_arriving_is_not_asked_for_again() -> None:
    """9600 baud: an output of 1024 bytes takes a second, longer than the first repeat waits."""
    board = SlowBoard([LARGE])
    client = connect(board)
    data = bytes(i % 251 for i in range(5000))
    client.write_input(0, data)
    client.run()
    board.asked = 0
    assert client.read_output(0) == answer(data)
    assert board.asked == 5


def test_where_long_frames_do_not_get_through_tensors_go_in_small_pieces() -> None:
    board = FakeBoard([SMALL, LARGE])
    client = connect(board)
    original = board._distort
    board._distort = (  # type: ignore[method-assign]
        lambda way, data: [] if len(data) > 100 else original(way, data)
    )
    large = bytes(i % 251 for i in range(5000))
    client.write_input(0, large, 1)
    client.run(1)
    assert client.read_output(0, 1) == answer(large)
    client.write_input(0, large[:100])
    client.write_input(1, large[:20])
    client.run()
    assert client.read_output(0) == answer(large[:100])
    assert board.inferences == 2
    assert board.clock() < 30
    board._distort = original  # type: ignore[method-assign]
    client.connect()
    asked = client._sequence
    client.write_input(0, large, 1)
    client.run(1)
    assert client._sequence - asked < 12, "a new session tries long frames again"


class SlowBoard(FakeBoard):
    """Its answers come 16 bytes at a time, at 960 bytes a second."""

    asked = 0

    def read(self, timeout_s: float) -> bytes:
        if self._to_client and timeout_s > 16 / 960:
            self._now += 16 / 960
            data = self._to_client.popleft()
            if data[16:]:
                self._to_client.appendleft(data[16:])
            return data[:16]
        self._now += max(timeout_s, 0.001)
        return b""

    def write(self, data: bytes, timeout_s: float) -> None:
        self.asked += 1
        super().write(data, timeout_s)


# --- failures -------------------------------------------------------------------------------------------


def test_a_silent_board_is_given_up_in_bounded_time() -> None:
    board = FakeBoard([SMALL])
    board.silent = True
    client = Client(board, clock=board.clock)
    with pytest.raises(DeviceError, match="does not answer: 8 hello requests were lost") as caught:
        client.connect()
    assert caught.value.exit_code == 6
    assert 10 < board.clock() < 60


def test_a_board_that_falls_silent_while_it_runs_is_given_up_after_the_run_timeout() -> None:
    board = FakeBoard([SMALL])
    client = connect(board, Timeouts(run_silence_s=100))
    client.write_input(0, bytes(100))
    client.write_input(1, bytes(20))
    original = board._send

    def only_progress(frame_type: int, sequence: int, payload: bytes) -> None:
        if frame_type == 0xC0:
            original(frame_type, sequence, payload)
            board.silent = True

    board._send = only_progress  # type: ignore[method-assign]
    began = board.clock()
    with pytest.raises(DeviceError, match="began the run request and has been silent"):
        client.run()
    assert 100 < board.clock() - began < 200


def test_a_board_whose_answers_are_all_damaged_is_a_failed_transfer() -> None:
    board = FakeBoard([SMALL])
    client = connect(board)
    board._faults = LinkFaults(flip=1.0)
    original = board._distort
    board._distort = lambda way, data: [data] if way == "board" else original(way, data)  # type: ignore[method-assign]
    with pytest.raises(VerificationError, match="damaged frames") as caught:
        client.ping()
    assert caught.value.exit_code == 7


def test_a_busy_board_is_waited_for_and_then_given_up() -> None:
    board = FakeBoard([SMALL])
    board.busy_requests = 3
    assert connect(board).info().name == "fake"
    board.busy_requests = 10**9
    with pytest.raises(DeviceError, match="busy") as caught:
        connect(board)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("told", [True, False], ids=["hello seen", "hello lost"])
def test_a_restart_between_write_and_run_gives_no_answer(told: bool) -> None:
    board = FakeBoard([LARGE])
    client = connect(board)
    client.write_input(0, bytes(5000))
    client._load(0, client.program_info(0))
    board.restart()
    if not told:
        board._to_client.clear()
    with pytest.raises(DeviceError, match="restarted"):
        client.run()
    assert board.inferences == 0
    client.connect()
    client.write_input(0, bytes(5000))
    client.run()
    assert client.read_output(0) == bytes(5000)


def test_a_fault_names_operator_pc_and_kind_and_the_board_can_be_used_again() -> None:
    board = FakeBoard([SMALL, CRASHING])
    client = connect(board)
    client.write_input(0, bytes(4), 1)
    with pytest.raises(DeviceFaultError) as caught:
        client.run(1)
    assert "BusFault at pc 0x1234" in caught.value.message
    assert "in operator 1 of program 1" in caught.value.message
    assert "PRECISERR" in caught.value.message
    assert caught.value.exit_code == 6
    with pytest.raises(DeviceFaultError):
        client.ping()
    client.connect()
    client.ping()


def test_two_programs_at_one_board_notice_each_other() -> None:
    board = FakeBoard([SMALL])
    one, two = connect(board), Client(board, clock=board.clock)
    two.connect()
    one._sequence = (two._sequence - 100) & 0xFFFF
    with pytest.raises(DeviceError, match="another program"):
        one.ping()


def test_no_common_version_says_to_flash_again() -> None:
    with pytest.raises(DeviceError, match="protocol 2 to 3, this edgekit 1") as caught:
        connect(FakeBoard([SMALL], versions=(2, 3)))
    assert caught.value.hint is not None


def test_a_refused_request_is_a_failed_verification() -> None:
    client = connect(FakeBoard([SMALL]))
    client.program_info(0)
    assert client._hello is not None
    object.__setattr__(client._hello, "program_count", 9)
    with pytest.raises(VerificationError, match=r"refused request 0x03 \(error program\)"):
        client.program_info(5)


def test_a_tensor_larger_than_the_arena_is_refused() -> None:
    liar = FakeProgram(bytes(32), (int8(100),), (int8(100),), (negate,), (1,), arena_bytes=50)
    with pytest.raises(VerificationError, match="100 bytes in an arena of 50"):
        connect(FakeBoard([liar])).program_info()


def test_a_closed_transport_is_said_at_once() -> None:
    board = FakeBoard([SMALL])
    client = connect(board)
    with client:
        pass
    with pytest.raises(TransportClosedError):
        client.ping()


def test_the_sequence_wraps() -> None:
    board = FakeBoard([SMALL])
    client = Client(board, clock=board.clock)
    client.connect()
    board._last = client._sequence = 0xFFF0
    for _ in range(40):
        client.ping()
    assert client._sequence < 0x100
