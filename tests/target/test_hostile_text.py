"""Hostile strings in a target file's text fields: refused, or a plain word that no program takes amiss."""

from __future__ import annotations

import random
import re

import pytest

from edgekit.errors import TargetError
from edgekit.target import parse_target
from tests.campaign import campaign_count

from .examples import changed
from .test_schema import HOSTILE, TEXT_FIELDS

PARTS = (
    *(text for text in HOSTILE if 0 < len(text) < 100),
    *("-", "--", "-o", "=", ",", ":", "@", "gcc", "arm-none-eabi-", "cortex-m4", "-mcpu=", "-mfpu=", "-O2"),
    *("thumbv7em-unknown-none-eabihf", "mps2-an386", "0483:374b", "PA2", "USART2", "aarch64", "x", "7", "_"),
    *(
        "-fplugin=/tmp/x.so",
        "-specs=/tmp/x",
        "-wrapper",
        "-B/tmp",
        "-Xlinker",
        "-mllvm",
        "-chardev",
        "-monitor",
    ),
)

COUNT = campaign_count(500, 40)

# What an accepted word may look like. A flag is the one that may start with a dash, and says so itself.
WORD = re.compile(r"[A-Za-z0-9+][A-Za-z0-9_.:+ -]*")
FLAG = re.compile(r"-(O[0-3sg]?|m[a-z-]+(=[A-Za-z0-9_.+-]+)?)")
# An LLVM feature is data to LLVM and is no option of any program.
FEATURE = re.compile(r"[+-][a-z0-9.-]+")


@pytest.mark.parametrize(
    ("target", "path"),
    [pytest.param(*field, id=f"{field[0]}-{'.'.join(map(str, field[1]))}") for field in TEXT_FIELDS],
)
def test_what_is_not_refused_is_a_plain_word(target: str, path: tuple[str | int, ...]) -> None:
    draw = random.Random(f"{target}{path}")
    refused = taken = 0
    for _ in range(COUNT):
        text = "".join(draw.choice(PARTS) for _ in range(draw.randint(1, 4)))
        value: object = (text,) if path[-1] == "mattr" else text
        try:
            parsed = parse_target(changed(target, path, value), "t.toml")
        except TargetError as error:
            refused += all(line.isprintable() for line in error.message.splitlines())
            continue
        taken += 1
        if path[0] == "description":
            assert text.isprintable()
        elif path[:2] == ("toolchain", "flags"):
            assert FLAG.fullmatch(text), text
        elif path[-1] == "mattr":
            assert FEATURE.fullmatch(text), text
        else:
            assert WORD.fullmatch(text), text
            assert ".." not in text
        assert all(FLAG.fullmatch(flag) for flag in parsed.toolchain.flags)
    assert refused + taken == COUNT
