"""The linker script: golden files, and odd layouts that really link.

Regenerate the golden files with `EDGEKIT_REGENERATE=1 python -m pytest tests/firmware/test_linker.py`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from edgekit.firmware import build_image, linker_script
from edgekit.firmware.elf import parse_elf
from edgekit.target import load_target, parse_target

from .sample import compiled_model, document

GOLDEN = Path(__file__).parent / "golden"

needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)


@pytest.mark.parametrize("name", ["mps2-an386", "nucleo-f446re"])
def test_golden(name: str) -> None:
    script = linker_script(load_target(name))
    golden = GOLDEN / f"{name}.ld"
    if os.environ.get("EDGEKIT_REGENERATE"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(script)
    assert script == golden.read_text()


def test_a_name_that_the_template_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "platform" / "cortex_m"
    folder.mkdir(parents=True)
    (folder / "linker.ld.j2").write_text("{{ heap_bytes }}")
    monkeypatch.setattr("edgekit.firmware.linker.firmware_templates_directory", lambda: tmp_path)
    with pytest.raises(UndefinedError, match="heap_bytes"):
        linker_script(load_target("mps2-an386"))


def _region(name: str, start: int, size: str, *holds: str) -> dict[str, Any]:
    return {"name": name, "start": start, "size": size, "holds": list(holds)}


LAYOUTS = {
    "one region": [_region("all", 0, "4MiB", "text", "weights", "arena", "stack", "data")],
    "a region each": [
        _region("text", 0x0, "64KiB", "text"),
        _region("weights", 0x10_0000, "64KiB", "weights"),
        _region("arena", 0x2000_0000, "16KiB", "arena"),
        _region("stack", 0x2001_0000, "4KiB", "stack"),
        _region("data", 0x2002_0000, "16KiB", "data"),
    ],
    "words of the linker": [
        _region("o", 0x0, "64KiB", "text", "weights"),
        _region("len", 0x2000_0000, "16KiB", "arena"),
        _region("org", 0x2001_0000, "16KiB", "stack", "data"),
    ],
}


@needs_arm
@pytest.mark.parametrize("layout", LAYOUTS)
def test_odd_layouts_link_and_put_each_thing_in_its_home(layout: str, tmp_path: Path) -> None:
    target = parse_target(document("mps2-an386") | {"memory": LAYOUTS[layout]}, layout)
    image = build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    elf = parse_elf(image.path.read_bytes(), "image")
    for section, content in (
        (".vectors", "text"),
        (".text", "text"),
        (".weights", "weights"),
        (".arena", "arena"),
        (".stack", "stack"),
        (".data", "data"),
        (".bss", "data"),
    ):
        found, home = elf.section(section), target.region(content)  # type: ignore[arg-type]
        assert found is not None
        assert home is not None
        assert home.start <= found.address
        assert found.address + found.size_bytes <= home.end
    text, vectors = target.region("text"), elf.section(".vectors")
    assert text is not None
    assert vectors is not None
    assert vectors.address == text.start


@needs_arm
def test_symbols_that_the_start_up_code_uses(tmp_path: Path) -> None:
    target = load_target("mps2-an386")
    image = build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    elf = parse_elf(image.path.read_bytes(), "image")
    value = {symbol.name: symbol.value for symbol in elf.symbols}
    data, bss, vectors = elf.section(".data"), elf.section(".bss"), elf.section(".vectors")
    assert data is not None
    assert bss is not None
    assert vectors is not None
    assert value["_edgekit_stack_top"] - value["_edgekit_stack_limit"] == target.stack_bytes
    assert value["_edgekit_stack_limit"] == 0x2000_0000
    assert (value["_edgekit_data_start"], value["_edgekit_data_end"]) == (
        data.address,
        data.address + data.size_bytes,
    )
    assert value["_edgekit_data_load"] == data.load_address < 0x40_0000
    assert (value["_edgekit_bss_start"], value["_edgekit_bss_end"]) == (
        bss.address,
        bss.address + bss.size_bytes,
    )
    assert elf.entry == value["edgekit_reset"]
    # The first two words of the vector table: initial stack pointer and reset handler, with its Thumb bit.
    assert int.from_bytes(vectors.data[:4], "little") == value["_edgekit_stack_top"]
    assert int.from_bytes(vectors.data[4:8], "little") == value["edgekit_reset"] | 1


@needs_arm
def test_there_is_no_heap(tmp_path: Path) -> None:
    target = load_target("mps2-an386")
    image = build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    names = {symbol.name for symbol in parse_elf(image.path.read_bytes(), "image").symbols}
    assert not names & {"malloc", "_malloc_r", "_sbrk", "free", "end", "__heap_start"}
    assert not [name for name in names if "TVM" in name]
