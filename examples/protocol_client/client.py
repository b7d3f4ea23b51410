"""A client of docs/protocol.md in Python's standard library alone: programs, one inference, counters.

    python client.py build/MODEL-host/runner
    python client.py ssh pi@raspberrypi.local '~/.edgekit/MODEL/current/runner'

The command's stdin and stdout are the line. It repeats what is lost and gives up after a minute of silence.
"""

from __future__ import annotations

import os
import random
import select
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator

HELLO, PROGRAM, TENSOR, RUN, READ_OUTPUT, OPERATORS, HIGH_WATER = 1, 3, 4, 6, 7, 8, 9
WRITE_INPUT = 5
PROGRESS, ERROR, FAULT = 0xC0, 0xE0, 0xE1
MEASURE = 1
SILENCE_S = 60.0


def encode(kind: int, sequence: int, payload: bytes) -> bytes:
    """A frame: COBS between two zeros."""
    raw = struct.pack("<BHH", kind, sequence, len(payload)) + payload
    raw += struct.pack("<I", zlib.crc32(raw))
    blocks = bytearray()
    for part in raw.split(b"\0"):
        while len(part) >= 254:
            blocks += b"\xff" + part[:254]
            part = part[254:]
        blocks += bytes([len(part) + 1]) + part
    return b"\0" + bytes(blocks) + b"\0"


def decode(between_zeros: bytes) -> tuple[int, int, bytes] | None:
    """Type, sequence and payload; None for what is no whole frame."""
    raw, at = bytearray(), 0
    while at < len(between_zeros):
        length = between_zeros[at]
        raw += between_zeros[at + 1 : at + length]
        at += length
        if length < 255 and at < len(between_zeros):
            raw.append(0)
    if at != len(between_zeros) or len(raw) < 9:
        return None
    kind, sequence, size = struct.unpack_from("<BHH", raw)
    if size != len(raw) - 9 or struct.unpack("<I", raw[-4:])[0] != zlib.crc32(raw[:-4]):
        return None
    return kind, sequence, bytes(raw[5:-4])


class Agent:
    """One session over two file descriptors; for a tty they are the same one, in raw mode."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._arrived = b""
        self._sequence = random.randrange(65536)
        hello = self.ask(HELLO, struct.pack("<BBI", 1, 1, random.randrange(1, 1 << 32)))
        self.max_payload, self.programs, self.tick_bits = struct.unpack_from("<HHB", hello, 2)
        self.name = hello[44:].decode("ascii")

    def ask(self, kind: int, payload: bytes) -> bytes:
        self._sequence = (self._sequence + 1) % 65536
        request, wait, heard = encode(kind, self._sequence, payload), 0.5, time.monotonic()
        while time.monotonic() < heard + SILENCE_S:
            os.write(self._writing, request)
            for answer, sequence, data in self._frames(wait):
                if answer == FAULT:
                    raise RuntimeError(f"the board crashed: {data.hex()}")
                if sequence != self._sequence:
                    continue
                heard = time.monotonic()
                if answer == ERROR:
                    raise RuntimeError(f"refused with code {data[0]}")
                if answer == kind | 0x80:
                    return data
            wait = min(1.5 * wait, 8.0)
        raise TimeoutError("the agent is silent")

    def _frames(self, wait_s: float) -> Iterator[tuple[int, int, bytes]]:
        until = time.monotonic() + wait_s
        while True:
            *whole, self._arrived = self._arrived.split(b"\0")
            for found in map(decode, whole):
                if found is not None:
                    yield found
            if not select.select([self._reading], [], [], max(until - time.monotonic(), 0.0))[0]:
                return
            data = os.read(self._reading, 4096)
            if not data:
                raise EOFError("the agent has gone")
            self._arrived += data

    def write(self, program: int, index: int, data: bytes) -> None:
        size = self.max_payload - 8
        for offset in range(0, len(data), size):
            self.ask(WRITE_INPUT, struct.pack("<HHI", program, index, offset) + data[offset : offset + size])

    def read(self, program: int, index: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            count = min(self.max_payload, size - len(data))
            data += self.ask(READ_OUTPUT, struct.pack("<HHIH", program, index, len(data), count))
        return data

    def tensor_bytes(self, program: int, direction: int, index: int) -> int:
        size: int = struct.unpack_from(
            "<I", self.ask(TENSOR, struct.pack("<HBBH", program, direction, 0, index)), 4
        )[0]
        return size


def main(command: list[str]) -> None:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        agent = Agent(process.stdout.fileno(), process.stdin.fileno())
        print(f"{agent.name}: {agent.programs} program(s)")
        for program in range(agent.programs):
            reply = agent.ask(PROGRAM, struct.pack("<H", program))
            inputs, outputs, operators, _, arena = struct.unpack_from("<HHHHI", reply, 32)
            print(f"program {program}: {reply[:8].hex()}, {operators} operators, arena {arena} bytes")
            rows = [bytes(agent.tensor_bytes(program, 0, index)) for index in range(inputs)]

            for index, row in enumerate(rows):
                agent.write(program, index, row)
            (ticks,) = struct.unpack_from("<Q", agent.ask(RUN, struct.pack("<HH", program, MEASURE)))
            for index in range(outputs):
                answer = agent.read(program, index, agent.tensor_bytes(program, 1, index))
                print(f"output {index}: {answer[:32].hex()}")

            stack, used = struct.unpack("<II", agent.ask(HIGH_WATER, struct.pack("<H", program)))
            print(f"{ticks} ticks, stack {stack} bytes, arena {used} bytes")

            count = min(operators, agent.max_payload // 8)
            for index, row in enumerate(rows):  # a run destroys its inputs
                agent.write(program, index, row)
            each = agent.ask(OPERATORS, struct.pack("<HBBHH", program, 1, 0, 0, count))
            print("ticks of the operators:", *struct.unpack(f"<{count}Q", each))
        process.stdin.close()


if __name__ == "__main__":
    main(sys.argv[1:])
