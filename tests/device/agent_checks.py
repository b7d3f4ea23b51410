"""What every build of the agent must do, wherever it runs."""

from __future__ import annotations

import struct

import pytest

from edgekit.device import Client, DeviceFaultError
from edgekit.device.protocol import FrameType, RunFlags, RunReply, RunRequest, encode_request
from tests.device import toy


def serves_its_programs(client: Client, board_name: str) -> None:
    info = client.info()
    assert (info.name, info.program_count, info.max_payload) == (board_name, 3, 1024)
    assert info.model_hash == "aa010203" + "00" * 28
    affine, wide = client.program_info(toy.AFFINE), client.program_info(toy.WIDE)
    assert affine.model_hash == info.model_hash
    assert (affine.operator_count, affine.arena_bytes) == (3, 2048)
    (tensor,) = affine.inputs
    assert (tensor.dtype, tensor.shape, tensor.size_bytes) == ("int8", (1, 49, 10, 1), 490)
    assert (tensor.scale, tensor.zero_point) == (0.5, -3)
    assert [tensor.dtype for tensor in wide.outputs] == ["int8", "int32"]
    assert wide.outputs[1].shape == (2, 2)

    for run in range(1, 4):
        data = bytes((run * k) & 0xFF for k in range(490))
        client.write_input(0, data)
        assert client.run() > 0
        assert client.read_output(0) == toy.affine_answer(data, run)

    first, second = bytes(k % 253 for k in range(3000)), (2, 3, 65537, 2**31 - 1)
    client.write_input(0, first, toy.WIDE)
    client.write_input(1, struct.pack("<4I", *second), toy.WIDE)
    client.run(toy.WIDE)
    answer = (client.read_output(0, toy.WIDE), client.read_output(1, toy.WIDE))
    assert answer == toy.wide_answer(first, second)


def profiles(client: Client) -> tuple[int, tuple[int, ...]]:
    """Checks the checksums and the high-water marks; returns the ticks of a run and of its operators."""
    data = toy.AFFINE_INPUT
    client.write_input(0, data)
    assert client.high_water().arena_bytes is None
    total = client.profile_run()
    assert client.read_output(0) == toy.affine_answer(data, 1)
    marks = client.high_water()
    assert marks.arena_bytes == 1036, "the output ends there; nothing lies above it"
    assert marks.stack_bytes is not None
    assert 64 < marks.stack_bytes < 4096
    operators = client.profile_operators()
    assert len(operators) == 3
    assert client.operator_checksums() == toy.affine_checksums(data, 3)

    client.write_input(0, bytes(4), toy.FAULTY)
    client.run(toy.FAULTY)
    assert client.high_water().arena_bytes is None, "another program has run since"
    return total, operators


def answers_a_repeated_run_without_running_again(client: Client) -> None:
    """The same bytes again and again, as if the answer had been lost."""
    client.write_input(0, toy.AFFINE_INPUT)
    client.run()
    client._sequence = sequence = (client._sequence + 1) & 0xFFFF
    wire = encode_request(RunRequest(toy.AFFINE, RunFlags.OUTPUTS, toy.AFFINE_INPUT), sequence)

    def next_result() -> RunReply:
        while True:
            frame = client._receive(client._clock() + 5.0)
            assert frame is not None
            assert frame.sequence == sequence
            if frame.type == RunRequest.type.reply:
                return RunReply.decode(frame.payload)
            assert frame.type == FrameType.PROGRESS

    client._transport.write(wire * 3, 5.0)  # two of them may arrive while the first is worked on
    first = next_result()
    assert first.outputs == toy.affine_answer(toy.AFFINE_INPUT, 2)
    for _ in range(2):
        client._transport.write(wire, 5.0)
        assert next_result() == first
    client.write_input(0, toy.AFFINE_INPUT)
    client.run()
    assert client.read_output(0)[-1] == 3, "five requests that are repeats made one inference"


def tells_a_fault(client: Client, address: int) -> DeviceFaultError:
    client.write_input(0, struct.pack("<I", address), toy.FAULTY)
    with pytest.raises(DeviceFaultError) as caught:
        client.run(toy.FAULTY)
    fault = caught.value.fault
    assert (fault.program, fault.operator, fault.address) == (toy.FAULTY, 1, address)
    assert fault.pc != 0
    assert "in operator 1 of program 2" in caught.value.message
    return caught.value
