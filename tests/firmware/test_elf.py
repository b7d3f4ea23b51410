"""The ELF reader against binutils, and against damaged files."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.errors import ModelError
from edgekit.firmware.elf import Machine, SectionFlag, arm_attributes, parse_elf
from edgekit.target import load_target

from .sample import KERNELS, compile_object

needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)

HARD = load_target("mps2-an386").toolchain.flags
SOFT = ("-mcpu=cortex-m0", "-mthumb")


def _object(prefix: str) -> bytes:
    return compile_object(KERNELS, f"{prefix}gcc", HARD if prefix else ())


PREFIXES = [pytest.param("", id="host"), pytest.param("arm-none-eabi-", id="arm", marks=needs_arm)]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_symbols_are_those_that_nm_prints(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "k.o"
    path.write_bytes(_object(prefix))
    printed = subprocess.run(
        [f"{prefix}nm", "-P", str(path)], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    undefined = {line.split()[0] for line in printed.splitlines() if line.split()[1] == "U"}
    defined = {line.split()[0]: int(line.split()[2], 16) for line in printed.splitlines() if " T " in line}
    elf = parse_elf(path.read_bytes(), "k.o")
    assert {symbol.name for symbol in elf.symbols if not symbol.defined} == undefined
    assert {s.name: s.value & ~1 for s in elf.symbols if s.defined and s.name in defined} == defined
    assert len(defined) == 3


@pytest.mark.parametrize("prefix", PREFIXES)
def test_sections_are_those_that_size_prints(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "k.o"
    path.write_bytes(_object(prefix))
    printed = subprocess.run(
        [f"{prefix}size", "-A", "-d", str(path)], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    rows = [line.split() for line in printed.splitlines()[2:] if len(line.split()) == 3]
    sizes = {name: int(size) for name, size, _ in rows}
    elf = parse_elf(path.read_bytes(), "k.o")
    ours = {section.name: section.size_bytes for section in elf.sections if section.has(SectionFlag.ALLOC)}
    assert ours == {name: sizes[name] for name in ours}
    assert ".text" in ours


@needs_arm
def test_build_attributes_tell_the_float_abi() -> None:
    hard = parse_elf(compile_object(KERNELS, "arm-none-eabi-gcc", HARD), "hard.o")
    soft = parse_elf(compile_object(KERNELS, "arm-none-eabi-gcc", SOFT), "soft.o")
    assert hard.machine == soft.machine == Machine.ARM
    assert hard.bits == 32
    assert arm_attributes(hard)[28] == 1
    assert 28 not in arm_attributes(soft)
    assert arm_attributes(hard)[6] == 13  # Tag_CPU_arch: v7E-M
    assert arm_attributes(soft)[6] == 12  # v6S-M


def test_an_object_of_this_machine_has_no_arm_attributes() -> None:
    elf = parse_elf(_object(""), "k.o")
    assert elf.bits == 64
    assert arm_attributes(elf) == {}


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"MZ" + bytes(100), b"\x7fELF\x03\x01" + bytes(100), bytes(64)]
)
def test_what_is_no_elf_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="x: not a sound ELF file"):
        parse_elf(data, "x")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_truncation_is_refused(prefix: str) -> None:
    data = _object(prefix)
    # The section table is at the end of an object, so every shorter file has lost some of it.
    for length in range(0, len(data), 7):
        with pytest.raises(ModelError):
            parse_elf(data[:length], "cut")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_damage_is_an_error_or_harmless(prefix: str) -> None:
    original = _object(prefix)
    generator = random.Random(20)
    refused = 0
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(generator.randint(1, 8)):
            position = generator.randrange(len(data)) if generator.random() < 0.5 else generator.randrange(64)
            data[position] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        try:
            arm_attributes(parse_elf(bytes(data), "damaged"))
        except ModelError:
            refused += 1
    assert 300 < refused < 1500
