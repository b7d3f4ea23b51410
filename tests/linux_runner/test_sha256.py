"""SHA-256 against the examples of its standard and against Python's."""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path

import pytest

from tests.campaign import campaign_count
from tests.linux_runner.build import PLATFORM, Machine, build_program

HERE = Path(__file__).resolve().parent

# FIPS 180-4's own examples (NIST, "Examples with intermediate values", SHA-256) and the empty message.
VECTORS = [
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]


@pytest.fixture(scope="module")
def program(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sha256")
    return machine.command(build_program(machine, folder, HERE / "sha256_check.c", PLATFORM / "sha256.c"))


def digest(program: list[str], data: bytes, piece: int) -> str:
    done = subprocess.run([*program, str(piece)], input=data, capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_the_standards_examples(program: list[str], data: bytes, expected: str) -> None:
    assert digest(program, data, 4096) == expected


def test_random_lengths_in_pieces_of_any_size(program: list[str]) -> None:
    draw = random.Random(180)
    lengths = [55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 129]  # around where the padding needs a block more
    lengths += [draw.randrange(20_000) for _ in range(campaign_count(400, 12))]
    for length in lengths:
        data = draw.randbytes(length)
        assert digest(program, data, draw.randint(1, 300)) == hashlib.sha256(data).hexdigest(), length
