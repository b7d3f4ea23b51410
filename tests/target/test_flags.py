"""Toolchain flags: a closed list."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.target.flags import flag_value, float_abi, is_allowed_flag

ALLOWED = (
    "-O0",
    "-O2",
    "-Os",
    "-mthumb",
    "-mcpu=cortex-m4",
    "-mcpu=cortex-m33+nodsp",
    "-mfpu=fpv4-sp-d16",
    "-mfloat-abi=hard",
    "-march=armv8.1-m.main+mve.fp",
    "-march=rv32imc_zicsr",
    "-mabi=ilp32",
    "-mcmodel=medany",
    "-mno-unaligned-access",
    "-mavx2",
)

REFUSED = (
    "",
    "-",
    "-m",
    "-O",
    "-O9",
    "-O2 ",
    "-O2\n",
    "-O@file",
    "-Ofast",
    "-mllvm",
    "-mllvm=-load=x.so",
    "-mmcu=../../x",
    "-mcpu=",
    "-mcpu=native",
    "-march=native",
    "-mcpu=cortex-m4,-wrapper",
    "-mcpu=../x",
    "-mcpu=@x",
    "-mcpu=a b",
    "-mcpu=cortex-m4\n",
    "-mthumb=1",
    "-mspecs=x",
    "-mno-llvm",
    "-specs=x",
    "--specs=nosys.specs",
    "-fplugin=x.so",
    "-fno-common",
    "-B.",
    "-I/etc",
    "-include=x",
    "-wrapper",
    "-Wl,--plugin",
    "-Xlinker",
    "-T",
    "-o",
    "-o/etc/passwd",
    "-DX",
    "@file",
    "x.c",
    "/etc/passwd",
    "-mÀ",
    "-mTHUMB",
)


@pytest.mark.parametrize("flag", ALLOWED)
def test_allowed(flag: str) -> None:
    assert is_allowed_flag(flag)


@pytest.mark.parametrize("flag", REFUSED, ids=ascii)
def test_refused(flag: str) -> None:
    assert not is_allowed_flag(flag)


def test_the_last_flag_counts_as_it_does_for_gcc() -> None:
    flags = ("-mfloat-abi=hard", "-mcpu=cortex-m0", "-mfloat-abi=softfp", "-mthumb")
    assert float_abi(flags) == "softfp"
    assert flag_value(flags, "cpu") == "cortex-m0"
    assert flag_value(flags, "fpu") is None
    assert float_abi(()) == "soft"


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
def test_soft_is_what_gcc_takes_when_no_abi_is_named(tmp_path: Path) -> None:
    said = subprocess.run(
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-dM", "-E", "-xc", "-"],
        input="",
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=tmp_path,
    ).stdout
    assert "__ARM_PCS 1" in said
    assert "__ARM_PCS_VFP" not in said
