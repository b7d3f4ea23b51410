"""docs/targets.md says everything, and its example works."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgekit.resources import targets_directory
from edgekit.target import FLASH_METHODS, PORTS, RULES, load_target
from edgekit.target.flags import is_allowed_flag
from edgekit.target.schema import (
    Clock,
    Compile,
    MachineEmulator,
    MemoryRegion,
    Target,
    Toolchain,
    Transport,
    UserEmulator,
)

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "targets.md").read_text()


def _example() -> str:
    found = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize(
    "section",
    [
        Target,
        Compile,
        Toolchain,
        MemoryRegion,
        Transport,
        Clock,
        MachineEmulator,
        UserEmulator,
        *PORTS.values(),
        *FLASH_METHODS.values(),
    ],
    ids=lambda section: section.__name__,
)
def test_every_key_is_described(section: type[BaseModel]) -> None:
    tables = "\n".join(line for line in DOCS.splitlines() if line.startswith("|"))
    headings = "\n".join(line for line in DOCS.splitlines() if line.startswith("###"))
    for name, field in section.model_fields.items():
        key = field.alias or name
        assert f"`{key}`" in tables or f"[{key}]" in headings, key


def test_every_rule_is_explained() -> None:
    assert [rule.name for rule in RULES if f"`{rule.name}`" not in DOCS] == []


def test_the_flags_listed_are_the_flags_allowed() -> None:
    section = DOCS[DOCS.index("With a value:") : DOCS.index("### `[port]`")]
    listed = set(re.findall(r"`(-m[a-z0-9.-]+=?)`", section))
    assert len(listed) > 25
    for flag in listed:
        assert is_allowed_flag(f"{flag}x" if flag.endswith("=") else flag), flag


def test_every_shipped_target_is_in_the_table() -> None:
    named = {
        name
        for line in DOCS.splitlines()
        if line.startswith("| `") and line.count("|") == 5
        for name in re.findall(r"`([a-z0-9-]+)`", line.split("|")[1])
    }
    assert {path.stem for path in targets_directory().glob("*.toml")} <= named
    assert "**built, not run**" in DOCS


def test_the_example_is_a_sound_target(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text(_example())
    target = load_target(str(path))
    assert target.name == "my-board"


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
def test_the_examples_port_compiles(tmp_path: Path) -> None:
    # Only what the target decides; whole images are built in tests/firmware.
    from edgekit.firmware.headers import port_header
    from edgekit.firmware.toolchain import find_toolchain
    from edgekit.resources import firmware_templates_directory

    path = tmp_path / "my-board.toml"
    path.write_text(_example())
    target = load_target(str(path))
    (tmp_path / "edgekit_port.h").write_text(port_header(target))
    templates = firmware_templates_directory()
    includes = [".", str(templates / "agent"), str(templates / "platform" / "cortex_m")]
    flags = [*target.toolchain.flags, "-Wall", "-Wextra", "-Werror", *(f"-I{folder}" for folder in includes)]
    source = str(templates / "port" / "stm32f4.c")
    result = find_toolchain(target).run_gcc([*flags, "-c", source, "-o", "port.o"], tmp_path)
    assert result.returncode == 0, result.first_lines
