"""Boards that are too small: said before anything is flashed, with what takes the most."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.errors import DoesNotFitError
from edgekit.firmware import build_image, check_budget
from edgekit.firmware.budget import check_linker_overflow
from edgekit.firmware.elf import parse_elf
from edgekit.target import Target, load_target, parse_target

from .sample import DRIVER, compiled_model, document

needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)


def _board(flash: str, ram: str) -> Target:
    made = document("mps2-an386")
    made["memory"][0]["size"] = flash
    made["memory"][1]["size"] = ram
    return parse_target(made, "small")


@needs_arm
def test_weights_that_overflow_the_flash(tmp_path: Path) -> None:
    target = _board("8KiB", "64KiB")
    weights = bytes(range(256)) * 64
    with pytest.raises(DoesNotFitError) as raised:
        build_image(compiled_model(target, weights=weights), target, tmp_path / "out", provenance={})
    message = raised.value.message
    assert raised.value.exit_code == 5
    assert "flash needs" in message
    needed = int(message.split("flash needs ")[1].split()[0])
    assert 16_384 + 3000 < needed < 16_384 + 8192
    assert f"has 8192 ({needed - 8192} too few)" in message
    assert "largest operators: add add:0 (16384)" in message
    assert "ram needs" not in message
    assert list(tmp_path.iterdir()) == []


@needs_arm
def test_an_arena_that_overflows_the_ram(tmp_path: Path) -> None:
    target = _board("64KiB", "16KiB")
    driver = DRIVER.replace("arena[48]", "arena[40000]")
    with pytest.raises(DoesNotFitError) as raised:
        build_image(
            compiled_model(target, driver=driver, arena_bytes=40_000), target, tmp_path / "o", provenance={}
        )
    message = raised.value.message
    needed = int(message.split("ram needs ")[1].split()[0])
    # 40000 of arena, 4096 of stack, and a few KB of the agent's own.
    assert 44_096 < needed < 52_000
    assert "in RAM: arena 40000, stack 4096, the agent's data" in message
    assert "arena 40,000 B, peak at 0 mul double:0 (input 16 + output 16)" in message
    assert "largest operators" not in message, "the flash is large enough"
    assert (raised.value.hint or "").startswith("--prefer ram")
    assert "flash needs" not in message


@needs_arm
def test_the_number_said_is_the_number_that_is_enough(tmp_path: Path) -> None:
    small = _board("2KiB", "64KiB")
    with pytest.raises(DoesNotFitError) as raised:
        build_image(compiled_model(small), small, tmp_path / "out", provenance={})
    needed = int(raised.value.message.split("flash needs ")[1].split()[0])
    enough, less = _board(f"{needed}B", "64KiB"), _board(f"{needed - 1}B", "64KiB")
    image = build_image(compiled_model(enough), enough, tmp_path / "out", provenance={})
    assert image.memory.flash_limit == needed
    assert image.memory.flash_bytes <= needed
    with pytest.raises(DoesNotFitError):
        build_image(compiled_model(less), less, tmp_path / "out2", provenance={})


@needs_arm
def test_an_image_is_held_against_another_boards_memory(tmp_path: Path) -> None:
    target = load_target("mps2-an386")
    compiled = compiled_model(target)
    elf = parse_elf(build_image(compiled, target, tmp_path / "out", provenance={}).path.read_bytes(), "image")
    check_budget(elf, target, compiled)
    with pytest.raises(DoesNotFitError, match=r"flash needs \d+ bytes and has 1024"):
        check_budget(elf, _board("1KiB", "64KiB"), compiled)
    with pytest.raises(DoesNotFitError, match=r"ram needs \d+ bytes and has 6144"):
        check_budget(elf, _board("64KiB", "6KiB"), compiled)


def test_the_linkers_words_are_read_by_region() -> None:
    target = load_target("nucleo-f446re")
    compiled = compiled_model("host")
    stderr = (
        "ld: image section `.text' will not fit in region `mem_flash'\n"
        "ld: region `mem_flash' overflowed by 10 bytes"
    )
    with pytest.raises(DoesNotFitError, match="flash needs 524298 bytes and has 524288 \\(10 too few\\)"):
        check_linker_overflow(stderr, target, compiled)
    check_linker_overflow("ld: undefined reference to `x'", target, compiled)
    check_linker_overflow("ld: region `mem_other' overflowed by 10 bytes", target, compiled)


@needs_arm
def test_hostile_names_are_not_printed_as_they_stand(tmp_path: Path) -> None:
    target = _board("2KiB", "64KiB")
    hostile = "*/<script>\x1b[31m\u202e" + "x" * 9000
    with pytest.raises(DoesNotFitError) as raised:
        build_image(
            compiled_model(target, name=hostile, tensor=hostile), target, tmp_path / "o", provenance={}
        )
    assert all(line.isprintable() for line in raised.value.message.splitlines())
    assert len(raised.value.message) < 1500
