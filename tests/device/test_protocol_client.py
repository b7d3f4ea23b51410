"""A client made from docs/protocol.md alone, against edgekit's own and against the agent."""

from __future__ import annotations

import random
import re
import runpy
import subprocess
import sys
from pathlib import Path

from edgekit.device import Client
from edgekit.device.protocol import Frame, FrameDecoder, encode_frame
from edgekit.device.transports.pipe import PipeTransport

CLIENT = Path(__file__).resolve().parents[2] / "examples" / "protocol_client" / "client.py"


def test_frames_are_the_same() -> None:
    example = runpy.run_path(str(CLIENT))
    draw = random.Random(0)
    for size in (0, 1, 2, 244, 245, 246, 253, 254, 255, 600, 1024):
        for zeros in (0.0, 0.01, 1.0):
            payload = bytes(0 if draw.random() < zeros else draw.randrange(1, 256) for _ in range(size))
            sequence = draw.randrange(65536)
            ours = encode_frame(0x02, sequence, payload)
            theirs = example["encode"](0x02, sequence, payload)
            assert example["decode"](ours.strip(b"\0")) == (0x02, sequence, payload)
            assert list(FrameDecoder().feed(theirs)) == [Frame(0x02, sequence, payload)]
    assert example["decode"](b"\x05\x02\x01\x02") is None


def test_it_runs_every_program_of_an_agent(host_runner: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(CLIENT), str(host_runner)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with Client(PipeTransport([str(host_runner)])) as client:
        client.connect()
        info = client.info()
        assert f"{info.name}: {info.program_count} program(s)" in done.stdout
        parts = re.split(r"^program \d+: ", done.stdout, flags=re.MULTILINE)[1:]
        assert len(parts) == info.program_count
        for program, said in enumerate(parts):
            known = client.program_info(program)
            assert said.startswith(f"{known.model_hash[:16]}, {known.operator_count} operators, ")
            for index, tensor in enumerate(known.inputs):
                client.write_input(index, bytes(tensor.size_bytes), program)
            client.run(program)
            for index in range(len(known.outputs)):
                expected = client.read_output(index, program)[:32].hex()
                assert f"output {index}: {expected}\n" in said
            ticks = said.rsplit("ticks of the operators:", 1)[1].split()
            assert len(ticks) == known.operator_count
