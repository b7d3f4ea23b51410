"""The allow-list of undefined symbols and the float-ABI check."""

from __future__ import annotations

import shutil

import pytest

from edgekit.errors import TargetError, UnsupportedError
from edgekit.firmware.elf import parse_elf
from edgekit.firmware.symbols import check_abi, check_undefined_symbols
from edgekit.target import Target, load_target, parse_target

from .sample import compile_object, document

pytestmark = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)

HARD = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
SOFTFP = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=softfp")
SOFT = ("-mcpu=cortex-m0plus", "-mthumb")


def _target(flags: tuple[str, ...], triple: str, cpu: str) -> Target:
    made = document("mps2-an386")
    made["toolchain"]["flags"] = list(flags)
    made["compile"] = {"mtriple": triple, "mcpu": cpu}
    made["schedules"] = ["portable"]
    return parse_target(made, "test")


M4 = load_target("mps2-an386")
M4_SOFTFP = _target(SOFTFP, "thumbv7em-unknown-none-eabi", "cortex-m4")
M0 = _target(SOFT, "thumbv6m-unknown-none-eabi", "cortex-m0plus")
HOST = load_target("host")

ALLOWED = (
    "void *memcpy(void *, const void *, unsigned); void f(char *a) { memcpy(a, a + 99, 9999); }",
    "float expf(float); float f(float a) { return expf(a); }",
    "long long f(long long a, long long b) { return a / b; }",
    "unsigned long long f(unsigned long long a, unsigned long long b) { return a % b; }",
)


@pytest.mark.parametrize("source", ALLOWED, ids=lambda source: source[:30])
@pytest.mark.parametrize(("target", "flags"), [(M4, HARD), (M0, SOFT)], ids=["m4", "m0"])
def test_what_libc_libm_and_libgcc_give_is_allowed(
    source: str, target: Target, flags: tuple[str, ...]
) -> None:
    elf = parse_elf(compile_object(source, "arm-none-eabi-gcc", flags), "k.o")
    assert any(not symbol.defined for symbol in elf.symbols)
    check_undefined_symbols(elf, target, "kernels.o")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (
            "int TVMBackendAllocWorkspace(void); int f(void) { return TVMBackendAllocWorkspace(); }",
            "TVMBackend",
        ),
        ("void *malloc(unsigned); void *f(void) { return malloc(3); }", "malloc"),
        ('int printf(const char *, ...); void f(void) { printf("%d", 3); }', "printf"),
        ("double f(double a, double b) { return a * b; }", "__aeabi_dmul"),
        ("double exp(double); double f(double a) { return exp(a); }", "exp"),
        ("void memcpy_(void); void f(void) { memcpy_(); }", "memcpy_"),
    ],
    ids=["tvm", "heap", "stdio", "double", "libm double", "near"],
)
def test_anything_else_is_refused_by_name(source: str, name: str) -> None:
    elf = parse_elf(compile_object(source, "arm-none-eabi-gcc", HARD), "k.o")
    with pytest.raises(UnsupportedError, match=name) as raised:
        check_undefined_symbols(elf, M4, "kernels.o")
    assert raised.value.exit_code == 4


def test_soft_float_helpers_are_only_for_cores_without_an_fpu() -> None:
    source = "float f(float a, float b) { return a * b + (float)(int)a; }"
    elf = parse_elf(compile_object(source, "arm-none-eabi-gcc", SOFT), "k.o")
    check_undefined_symbols(elf, M0, "kernels.o")
    with pytest.raises(UnsupportedError, match="__aeabi_fmul"):
        check_undefined_symbols(elf, M4, "kernels.o")


def test_a_hostile_symbol_name_is_not_printed_as_it_stands() -> None:
    source = 'void f(void) { __asm__("bl \\"\\033[31m*/\\""); }'
    elf = parse_elf(compile_object(source, "arm-none-eabi-gcc", HARD), "k.o")
    with pytest.raises(UnsupportedError) as raised:
        check_undefined_symbols(elf, M4, "kernels.o")
    assert raised.value.message.isprintable()


FLOATS = "float f(float a) { return a + 1.0f; }"


@pytest.mark.parametrize(
    ("flags", "target", "agrees"),
    [
        (HARD, M4, True),
        (SOFTFP, M4, False),
        (SOFT, M4, False),
        (HARD, M4_SOFTFP, False),
        (SOFTFP, M4_SOFTFP, True),
        (SOFT, M0, True),
        (HARD, M0, False),
    ],
)
def test_how_floats_are_passed_must_agree(flags: tuple[str, ...], target: Target, agrees: bool) -> None:
    elf = parse_elf(compile_object(FLOATS, "arm-none-eabi-gcc", flags), "k.o")
    if agrees:
        check_abi(elf, target, "k.o")
    else:
        with pytest.raises(TargetError, match="passes floats in"):
            check_abi(elf, target, "k.o")


def test_an_object_without_code_passes_no_floats() -> None:
    elf = parse_elf(compile_object("const char weights[4] = {1};", "arm-none-eabi-gcc", SOFT), "k.o")
    check_abi(elf, M4, "weights.o")


def test_an_object_for_another_machine_is_refused() -> None:
    elf = parse_elf(compile_object(FLOATS, "gcc", ()), "k.o")
    with pytest.raises(TargetError, match="code for machine"):
        check_abi(elf, M4, "k.o")
    check_abi(elf, HOST, "k.o")
