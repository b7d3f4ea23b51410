"""The schema: what each field takes, and what is said about what it does not take."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest

from edgekit.errors import TargetError
from edgekit.target import load_target, parse_target
from edgekit.target.fields import parse_size

from .examples import changed, document

HOSTILE = (
    "",
    " ",
    "*/",
    "/*",
    "//",
    "<script>alert(1)</script>",
    "\x1b[2J",
    "\x00",
    "a\nb",
    "a\r",
    "usart2\n",
    "..",
    "../",
    "../../etc/passwd",
    "/bin/sh",
    "a/b",
    "$(id)",
    "`id`",
    "; rm -rf ~",
    "a b;c",
    "| cat",
    "&& true",
    "--help",
    "-fplugin=x.so",
    "@response",
    '"',
    "'",
    "\\",
    "a\\",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "%s%n",
    "\u202egnp.exe",
    "\u200b",
    "\ufeffname",
    "\u2028",
    "a" * 5000,
    "#define X",
    "ORIGIN = 0;",
    "a,b=c",
)

TEXT_FIELDS: tuple[tuple[str, tuple[str | int, ...]], ...] = (
    ("nucleo-f446re", ("name",)),
    ("nucleo-f446re", ("description",)),
    ("nucleo-f446re", ("platform",)),
    ("nucleo-f446re", ("schedules", 0)),
    ("nucleo-f446re", ("compile", "mtriple")),
    ("nucleo-f446re", ("compile", "mcpu")),
    ("nucleo-f446re", ("compile", "mattr")),
    ("nucleo-f446re", ("toolchain", "prefix")),
    ("nucleo-f446re", ("toolchain", "flags", 0)),
    ("nucleo-f446re", ("port", "name")),
    ("nucleo-f446re", ("port", "uart")),
    ("nucleo-f446re", ("port", "tx")),
    ("nucleo-f446re", ("port", "rx")),
    ("nucleo-f446re", ("memory", 0, "name")),
    ("nucleo-f446re", ("memory", 0, "size")),
    ("nucleo-f446re", ("memory", 0, "holds", 0)),
    ("nucleo-f446re", ("transport", "kind")),
    ("nucleo-f446re", ("transport", "usb", 0)),
    ("nucleo-f446re", ("flash", 0, "kind")),
    ("nucleo-f446re", ("flash", 0, "target")),
    ("nucleo-f446re", ("clock", "source")),
    ("mps2-an386", ("emulator", "machine")),
    ("mps2-an386", ("emulator", "unit")),
    ("rpi4-emulated", ("emulator", "user")),
    ("rpi4-emulated", ("emulator", "cpu")),
    ("rpi4-emulated", ("emulator", "unit")),
    ("rpi4-emulated", ("compile", "mtriple")),
    ("rpi4-emulated", ("compile", "mcpu")),
    ("rpi4-emulated", ("toolchain", "prefix")),
    ("rpi4-emulated", ("toolchain", "flags", 0)),
    ("rpi4-emulated", ("transport", "kind")),
)


CASES = [
    pytest.param(target, path, text, id=f"{'.'.join(map(str, path))}-{index}")
    for target, path in TEXT_FIELDS
    for index, text in enumerate(HOSTILE)
    if (path, text) != (("toolchain", "prefix"), "")  # that is the machine's own compiler
]


def test_each_field_meets_at_least_thirty() -> None:
    assert len(HOSTILE) - 1 >= 30


@pytest.mark.parametrize(("target", "path", "text"), CASES)
def test_hostile_text_is_refused_and_not_printed(target: str, path: tuple[str | int, ...], text: str) -> None:
    value: object = (text,) if path[-1] == "mattr" else text
    with pytest.raises(TargetError) as raised:
        parse_target(changed(target, path, value), "t.toml")
    message = raised.value.message
    assert message.startswith("t.toml: ")
    assert path[0] in message
    assert all(line.isprintable() for line in message.splitlines())
    assert len(message) < 800


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("colour",), "unknown key colour"),
        (("schedule",), "unknown key schedule; did you mean schedules?"),
        (("compile", "mtripple"), "unknown key compile.mtripple; did you mean mtriple?"),
        (("toolchain", "flag"), "unknown key toolchain.flag; did you mean flags?"),
        (("port", "hse_herz"), "unknown key port.hse_herz; did you mean hse_hz?"),
        (("memory", 1, "sise"), "unknown key memory[1].sise; did you mean size?"),
        (("transport", "bauds"), "unknown key transport.bauds; did you mean baud?"),
        (("flash", 0, "targets"), "unknown key flash[0].targets; did you mean target?"),
        (("clock", "herz"), "unknown key clock.herz; did you mean hz?"),
        (("clock", "\x1b[31m"), "unknown key clock.\\x1b[31m"),
        (("source_path",), "unknown key source_path"),
        (("_shadows",), "unknown key _shadows"),
    ],
)
def test_an_unknown_key_names_the_nearest(path: tuple[str | int, ...], said: str) -> None:
    with pytest.raises(TargetError) as raised:
        parse_target(changed("nucleo-f446re", path, 1), "here/t.toml")
    assert said in raised.value.message.splitlines()[0]
    assert raised.value.message.startswith("here/t.toml: ")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema",), 2, "schema: 2 is not one of 1"),
        (("schema",), ..., "schema is missing"),
        (("name",), ..., "name is missing"),
        (("name",), 3, "name: 3: "),
        (("description",), None, "description: None: "),
        (("schedules",), "portable", "schedules: 'portable': "),
        (("schedules",), [], "schedules is empty"),
        (("schedules", 0), "armv9", "schedules[0]: 'armv9' is not one of"),
        (("stack_bytes",), True, "stack_bytes: True: "),
        (("stack_bytes",), 4096.0, "stack_bytes: 4096.0: "),
        (("stack_bytes",), -8, "stack_bytes: -8: "),
        (("memory",), {}, "memory: a table: "),
        (("memory", 0, "start"), -1, "memory[0].start: -1: "),
        (("memory", 0, "start"), "0x0", "memory[0].start: '0x0': "),
        (("memory", 0, "size"), "512KB", 'such as "512KiB"'),
        (("memory", 0, "size"), 0, "memory[0].size: 0: "),
        (("memory", 0, "size"), "9999999999MiB", "memory[0].size: "),
        (("memory", 0, "holds"), [], "memory[0].holds is empty"),
        (("port",), {}, "port.name is missing"),
        (("port", "name"), "stm32f5", "unknown 'stm32f5'; did you mean stm32f4? (known: cmsdk, stm32f4)"),
        (("port", "tx"), "PA16", "port.tx: 'PA16'"),
        (("port", "tx"), "PL0", "port.tx: 'PL0'"),
        (("port", "hse_bypass"), 1, "port.hse_bypass: 1: "),
        (("flash", 0), {}, "flash[0].kind is missing"),
        (("flash", 0, "kind"), "pyoc", "unknown 'pyoc'; did you mean pyocd?"),
        (("transport", "baud"), 100, "transport.baud: 100: "),
        (("transport", "usb", 0), "0483:374B", "transport.usb[0]: "),
        (("clock", "hz"), math.inf, "clock.hz: inf: "),
        (("clock", "hz"), date(2026, 1, 1), "clock.hz: "),
        (("clock", "trusted"), "yes", "clock.trusted: 'yes': "),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_wrong_value_is_named_with_its_key(path: tuple[str | int, ...], value: object, said: str) -> None:
    with pytest.raises(TargetError) as raised:
        parse_target(changed("nucleo-f446re", path, value), "t.toml")
    assert said in raised.value.message


@pytest.mark.parametrize("shift", [-1, 11, 6.0, "6"])
def test_icount_shift_has_its_range(shift: object) -> None:
    with pytest.raises(TargetError, match=r"emulator\.icount_shift"):
        parse_target(changed("mps2-an386", ("emulator", "icount_shift"), shift), "t.toml")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("emulator", "machine"), "virt", "unknown key emulator.machine"),
        (("emulator", "cpus"), "cortex-a72", "unknown key emulator.cpus; did you mean cpu?"),
        (("emulator", "cpu"), ..., "emulator.cpu is missing"),
        (("emulator", "cpu"), "max", "emulator.cpu: 'max' is not one of"),
        (("emulator", "user"), "x86_64", "emulator.user: 'x86_64' is not one of 'aarch64' or 'arm'"),
        (("emulator",), {}, "emulator.machine is missing"),
        (("emulator",), "qemu", "emulator: 'qemu': "),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_wrong_emulator_is_named_with_its_key(
    path: tuple[str | int, ...], value: object, said: str
) -> None:
    with pytest.raises(TargetError) as raised:
        parse_target(changed("rpi4-emulated", path, value), "t.toml")
    assert said in raised.value.message


def test_closed_lists_are_told() -> None:
    with pytest.raises(TargetError, match="'lm3s6965evb' is not one of 'mps2-an385', ") as raised:
        parse_target(changed("mps2-an386", ("emulator", "machine"), "lm3s6965evb"), "t.toml")
    assert "'netduinoplus2'" in raised.value.message
    with pytest.raises(TargetError, match=r"t.toml: memory\[1\]\.holds is empty$"):
        parse_target(changed("mps2-an386", ("memory", 1, "holds"), []), "t.toml")


@pytest.mark.parametrize("value", [None, [], "text", 3, {"schema": 1}, {1: 2}])
def test_what_is_no_target_at_all_is_refused(value: object) -> None:
    with pytest.raises(TargetError):
        parse_target(value, "t.toml")


def test_nesting_has_an_end() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TargetError, match="nested too deeply"):
        parse_target({"schema": deep}, "t.toml")


def test_many_wrong_keys_are_counted() -> None:
    made = document("host") | {f"key{index}": 1 for index in range(30)}
    with pytest.raises(TargetError) as raised:
        parse_target(made, "t.toml")
    assert len(raised.value.message.splitlines()) == 9
    assert "and 22 more" in raised.value.message


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("512KiB", 524_288), ("4MiB", 4_194_304), ("2 KiB", 2048), ("0KiB", 0)]
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "KiB", "512", "512kib", "0x10KiB", "-1KiB", "1.5MiB", "1KiB\n", "１KiB", "1_000B", "4GiB"]
)
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size is"):
        parse_size(text)


@pytest.mark.parametrize("name", ["host", "mps2-an386", "nucleo-f446re", "rpi4", "linux-armv7-emulated"])
def test_a_document_reads_back_as_the_same_target(name: str) -> None:
    target = load_target(name)
    again = parse_target(target.document(), "manifest")
    assert again.document() == target.document()
    assert again.source_path is None


def test_a_target_does_not_change() -> None:
    target = load_target("host")
    with pytest.raises(ValueError, match="frozen"):
        target.name = "other"  # type: ignore[misc]


def test_the_stack_is_4096_on_a_board_that_does_not_say() -> None:
    assert load_target("mps2-an386").stack_bytes == 4096
    assert load_target("host").stack_bytes == 0


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("host", "us"),
        ("mps2-an386", "instructions"),
        ("nucleo-f446re", "cycles"),
        ("rpi4", "us"),
        ("rpi4-emulated", "instructions"),
        ("linux-armv7-emulated", "instructions"),
    ],
)
def test_the_unit_is_never_a_time_on_an_emulated_board(name: str, unit: str) -> None:
    assert load_target(name).unit == unit


def test_the_facts_of_the_nucleo_board() -> None:
    target = load_target("nucleo-f446re")
    assert [(region.start, region.size_bytes) for region in target.memory] == [
        (0x0800_0000, 512 * 1024),
        (0x2000_0000, 128 * 1024),
    ]
    assert target.transport.usb == ("0483:374b",)
    assert (target.clock.source, target.clock.hz, target.clock.trusted) == ("dwt", 180_000_000, True)


@pytest.mark.parametrize(
    ("name", "core"),
    [("rpi3", "cortex-a53"), ("rpi-zero2w", "cortex-a53"), ("rpi4", "cortex-a72"), ("rpi5", "cortex-a76")],
)
def test_the_facts_of_the_raspberry_pis(name: str, core: str) -> None:
    target = load_target(name)
    assert (target.compile.mcpu, target.compile.mtriple) == (core, "aarch64-unknown-linux-gnu")
    assert (target.clock.source, target.clock.hz, target.clock.trusted) == ("clock_monotonic", 10**9, True)
    assert not target.emulated


@pytest.mark.parametrize("name", ["rpi4", "rpi5", "linux-armv7"])
def test_an_emulated_board_runs_the_boards_own_code(name: str) -> None:
    board, emulated = load_target(name), load_target(f"{name}-emulated")
    assert emulated.compile == board.compile
    assert emulated.toolchain == board.toolchain
    assert emulated.schedules == board.schedules
    assert (emulated.clock.source, emulated.clock.trusted) == ("plugin", False)
