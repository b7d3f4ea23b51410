"""The rules: every shipped file keeps every one, and each has an example that breaks it."""

from __future__ import annotations

import pytest

from edgekit.errors import TargetError
from edgekit.resources import targets_directory
from edgekit.target import RULES, Target, parse_target, read_target
from edgekit.target.load import _frozen

from .examples import changed, document

Path = tuple[str | int, ...]

_REGION = {"name": "extra", "start": 0x6000_0000, "size": 1024, "holds": ["data"]}

# Rule, target to start from, where, what, and words of the sentence.
BROKEN: tuple[tuple[str, str, Path, object, str], ...] = (
    ("regions-have-own-names", "mps2-an386", ("memory", 1, "name"), "flash", "two regions are called flash"),
    ("regions-do-not-overlap", "mps2-an386", ("memory", 1, "start"), 0x3F_FFFF, "overlap at 0x003fffff"),
    ("regions-do-not-overlap", "mps2-an386", ("memory", 1, "start"), 0, "overlap at 0x00000000"),
    ("regions-fit-the-address-space", "mps2-an386", ("memory", 1, "start"), 0xFFFF_FFF0, "past 0xffffffff"),
    (
        "everything-has-one-home",
        "mps2-an386",
        ("memory", 1, "holds"),
        ["arena", "data"],
        "no region holds stack",
    ),
    ("everything-has-one-home", "mps2-an386", ("memory",), [], "no region holds text"),
    (
        "everything-has-one-home",
        "mps2-an386",
        ("memory", 0, "holds"),
        ["text", "weights", "data"],
        "data has more than one home: flash, ram",
    ),
    ("an-os-places-the-program", "host", ("memory",), [_REGION], "leave [[memory]]"),
    ("an-os-places-the-program", "host", ("stack_bytes",), 4096, "leave [[memory]]"),
    ("code-is-aligned", "mps2-an386", ("memory", 0, "start"), 0x200, "multiple of 1024"),
    ("stack-fits-its-region", "mps2-an386", ("stack_bytes",), 4100, "multiple of 8"),
    ("stack-fits-its-region", "mps2-an386", ("stack_bytes",), 256, "from 512 up"),
    ("stack-fits-its-region", "nucleo-f446re", ("stack_bytes",), 256 * 1024, "more than ram has"),
    ("triple-belongs-to-platform", "mps2-an386", ("compile", "mtriple"), ..., "a board needs one"),
    (
        "triple-belongs-to-platform",
        "mps2-an386",
        ("compile", "mtriple"),
        "riscv32-unknown-unknown-elf",
        "no cortex_m architecture",
    ),
    ("triple-belongs-to-platform", "host", ("compile", "mtriple"), "thumbv7em-unknown-none-eabi", "no linux"),
    (
        "bare-metal-arm-triple-has-four-parts",
        "mps2-an386",
        ("compile", "mtriple"),
        "thumbv7em-none-eabihf",
        "needs four parts",
    ),
    (
        "float-abi-of-triple-and-flags-agree",
        "mps2-an386",
        ("toolchain", "flags"),
        ["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=softfp"],
        "needs -mfloat-abi=hard, not softfp",
    ),
    (
        "float-abi-of-triple-and-flags-agree",
        "mps2-an386",
        ("compile", "mtriple"),
        "thumbv7em-unknown-none-eabi",
        "needs -mfloat-abi=soft or softfp, not hard",
    ),
    ("cpu-of-compile-and-flags-agree", "mps2-an386", ("compile", "mcpu"), "cortex-m7", "-mcpu=cortex-m4 and"),
    ("triple-belongs-to-platform", "rpi4", ("compile", "mtriple"), ..., "a board needs one"),
    ("prefix-belongs-to-triple", "rpi4", ("toolchain", "prefix"), "", "none does not compile for aarch64"),
    (
        "prefix-belongs-to-triple",
        "rpi4",
        ("toolchain", "prefix"),
        "arm-linux-gnueabihf-",
        "try aarch64-…-linux-gnu-",
    ),
    (
        "prefix-belongs-to-triple",
        "rpi4",
        ("toolchain", "prefix"),
        "aarch64-none-elf-",
        "does not compile for",
    ),
    (
        "prefix-belongs-to-triple",
        "linux-armv7",
        ("toolchain", "prefix"),
        "arm-linux-gnueabi-",
        "try arm…-linux-gnueabihf-",
    ),
    ("armv7-says-its-fpu", "linux-armv7", ("toolchain", "flags", 0), "-O2", "needs -march=armv7-a"),
    ("armv7-says-its-fpu", "linux-armv7", ("toolchain", "flags", 1), "-O2", "needs -mfpu="),
    ("armv7-says-its-fpu", "linux-armv7", ("compile", "mattr"), ..., 'add "-neon"'),
    ("armv7-says-its-fpu", "linux-armv7", ("compile", "mattr"), ["-neon"], 'add "-d32"'),
    (
        "float-abi-of-triple-and-flags-agree",
        "linux-armv7",
        ("toolchain", "flags", 2),
        "-mfloat-abi=softfp",
        "needs -mfloat-abi=hard, not softfp",
    ),
    (
        "float-abi-of-triple-and-flags-agree",
        "linux-armv7",
        ("compile", "mtriple"),
        "armv7l-unknown-linux-gnueabi",
        "needs -mfloat-abi=soft or softfp, not hard",
    ),
    ("cpu-of-compile-and-flags-agree", "rpi5", ("compile", "mcpu"), "cortex-a72", "-mcpu=cortex-a76 and"),
    (
        "schedules-suit-the-core",
        "rpi4",
        ("schedules",),
        ["aarch64_dotprod", "portable"],
        "cortex-a72 has no dot product",
    ),
    ("schedules-suit-the-core", "mps2-an386", ("schedules",), ["armv7em"], "the last one must be portable"),
    ("schedules-suit-the-core", "host", ("schedules",), ["portable", "portable"], "named twice"),
    (
        "schedules-suit-the-core",
        "mps2-an386",
        ("schedules",),
        ["aarch64", "portable"],
        "aarch64 does not run on thumbv7em",
    ),
    ("port-belongs-to-platform", "nucleo-f446re", ("port",), ..., "needs a chip port"),
    (
        "port-belongs-to-platform",
        "host",
        ("port",),
        {"name": "cmsdk", "uart_base": 0, "fpgaio_base": 0, "cpu_hz": 1},
        "cmsdk is a cortex_m port",
    ),
    (
        "transport-belongs-to-platform",
        "mps2-an386",
        ("transport",),
        {"kind": "pipe"},
        "over serial, not pipe",
    ),
    (
        "transport-belongs-to-platform",
        "host",
        ("transport",),
        {"kind": "serial", "baud": 9600},
        "over pipe or ssh",
    ),
    ("baud-and-usb-belong-to-serial", "mps2-an386", ("transport", "baud"), ..., "serial needs baud"),
    ("baud-and-usb-belong-to-serial", "host", ("transport", "baud"), 9600, "no meaning for pipe"),
    ("a-board-can-be-flashed", "nucleo-f446re", ("flash",), [], "at least one [[flash]]"),
    ("a-board-can-be-flashed", "mps2-an386", ("flash",), [{"kind": "none"}], "an emulated board has no"),
    ("a-board-can-be-flashed", "mps2-an386", ("transport", "usb"), ["0483:374b"], "no USB id"),
    ("a-board-can-be-flashed", "host", ("flash",), [{"kind": "none"}], "leave [[flash]] out"),
    ("clock-is-known-to-platform", "host", ("clock", "source"), "dwt", "linux has clock_monotonic, plugin"),
    ("clock-is-known-to-platform", "nucleo-f446re", ("clock", "source"), "mcycle", "cortex_m has dwt"),
    ("clock-is-the-ports-counter", "nucleo-f446re", ("clock", "source"), "fpgaio", "stm32f4 counts with dwt"),
    ("clock-is-the-ports-counter", "mps2-an386", ("clock", "source"), "systick", "cmsdk counts with fpgaio"),
    ("clock-is-the-ports-counter", "nucleo-f446re", ("clock", "hz"), 168_000_000, "counts at 180000000"),
    ("clock-is-the-ports-counter", "mps2-an386", ("port", "cpu_hz"), 20_000_000, "counts at 20000000"),
    ("baud-is-within-the-ports-reach", "mps2-an386", ("transport", "baud"), 2_000_000, "(1562500)"),
    ("baud-is-within-the-ports-reach", "nucleo-f446re", ("transport", "baud"), 3_000_000, "(2812500)"),
    ("an-emulator-counts-instructions", "mps2-an386", ("clock", "trusted"), True, "it must be false"),
    ("an-emulator-counts-instructions", "mps2-an386", ("clock", "source"), "dwt", "DWT counter reads 0"),
    ("an-emulator-counts-instructions", "rpi4-emulated", ("clock", "trusted"), True, "it must be false"),
    ("a-board-can-be-flashed", "rpi4", ("flash",), [{"kind": "none"}], "leave [[flash]] out"),
    ("transport-belongs-to-platform", "nucleo-f446re", ("transport",), {"kind": "ssh"}, "not ssh"),
    ("baud-and-usb-belong-to-serial", "rpi4", ("transport", "usb"), ["0483:374b"], "no meaning for ssh"),
    ("an-os-places-the-program", "rpi4", ("memory",), [_REGION], "leave [[memory]]"),
    (
        "the-emulator-belongs-to-the-platform",
        "rpi4-emulated",
        ("emulator",),
        {"machine": "virt", "icount_shift": 0},
        "a linux target needs user and cpu",
    ),
    (
        "the-emulator-belongs-to-the-platform",
        "mps2-an386",
        ("emulator",),
        {"user": "arm", "cpu": "cortex-a7"},
        "a microcontroller needs machine",
    ),
    (
        "the-emulator-belongs-to-the-platform",
        "rpi4-emulated",
        ("transport",),
        {"kind": "pipe"},
        "is reached over ssh, not pipe",
    ),
    ("the-emulated-core-runs-the-code", "rpi4-emulated", ("emulator", "user"), "arm", "does not run aarch64"),
    (
        "the-emulated-core-runs-the-code",
        "rpi4-emulated",
        ("emulator", "cpu"),
        "cortex-a7",
        "qemu-aarch64 has",
    ),
    (
        "the-emulated-core-runs-the-code",
        "rpi5-emulated",
        ("emulator", "cpu"),
        "cortex-a72",
        "cortex-a72 and compile.mcpu cortex-a76 differ",
    ),
    (
        "a-plugin-counts-where-programs-are-emulated",
        "rpi4",
        ("clock", "source"),
        "plugin",
        "plugin is QEMU's",
    ),
    (
        "a-plugin-counts-where-programs-are-emulated",
        "rpi4-emulated",
        ("clock", "source"),
        "clock_monotonic",
        "is this machine's; use plugin",
    ),
    (
        "a-plugin-counts-where-programs-are-emulated",
        "rpi4-emulated",
        ("clock", "hz"),
        1_000_000,
        "it must be 1, not 1000000",
    ),
    ("firmware-exists-for-the-platform", "mps2-an386", ("platform",), "riscv", "no chip port for riscv yet"),
)


@pytest.mark.parametrize("path", sorted(targets_directory().glob("*.toml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_shipped_file_keeps_every_rule(path: object, rule: object) -> None:
    target = read_target(path)  # type: ignore[arg-type]
    assert list(rule.check(target)) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "start", "path", "value", "said"), BROKEN, ids=[f"{row[0]}-{i}" for i, row in enumerate(BROKEN)]
)
def test_a_broken_rule_is_told(name: str, start: str, path: Path, value: object, said: str) -> None:
    rule = next(rule for rule in RULES if rule.name == name)
    made = changed(start, path, value)
    target = Target.model_validate(_frozen(made, 0))
    assert any(said in sentence for sentence in rule.check(target))
    with pytest.raises(TargetError) as raised:
        parse_target(made, "t.toml")
    assert said in raised.value.message


def test_each_rule_has_an_example() -> None:
    assert {row[0] for row in BROKEN} == {rule.name for rule in RULES}


def test_rules_have_own_names() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_the_starting_points_are_sound() -> None:
    for name in {row[1] for row in BROKEN}:
        assert parse_target(document(name), name).name == name
