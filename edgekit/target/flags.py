"""The compiler flags that a target file may give: a closed list.

A flag can load code into a compiler (`-fplugin=`, `-specs=`, `-B`, `-wrapper`, `@file`, clang's `-mllvm
-load=`, AVR's `-mmcu=` which reads a spec file by name), so nothing is allowed by its first letter alone.
Each machine flag is named here with the form of its value, which never contains a slash, a comma or a blank.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["flag_value", "float_abi", "is_allowed_flag"]

_OPTIMISE: Final = re.compile(r"-O[0123sgz]")

_WITH_VALUE: Final = frozenset(
    {
        "abi",
        "arch",
        "branch-protection",
        "cmodel",
        "cpu",
        "float-abi",
        "fp16-format",
        "fpu",
        "tune",
    }
)
_VALUE: Final = re.compile(r"[a-z0-9][A-Za-z0-9._+-]{0,79}")

_SWITCHES: Final = frozenset(
    {
        "arm",
        "thumb",
        "thumb-interwork",
        "unaligned-access",
        "strict-align",
        "long-calls",
        "pure-code",
        "slow-flash-data",
        "fix-cortex-m3-ldrd",
        "fix-cmse-cve-2021-35465",
        "relax",
        "save-restore",
        "omit-leaf-frame-pointer",
        "avx",
        "avx2",
        "avxvnni",
        "fma",
        "sse4.1",
        "sse4.2",
        "ssse3",
    }
)


def is_allowed_flag(flag: str) -> bool:
    """Whether `flag` is one of the optimisation levels or one of the named machine flags."""
    if _OPTIMISE.fullmatch(flag):
        return True
    if not flag.startswith("-m"):
        return False
    name, equals, value = flag[2:].partition("=")
    if equals:
        return name in _WITH_VALUE and _VALUE.fullmatch(value) is not None and value != "native"
    return name in _SWITCHES or (name.startswith("no-") and name[3:] in _SWITCHES)


def flag_value(flags: tuple[str, ...], name: str) -> str | None:
    """The value of the last `-m<name>=value`, since the compiler takes the last; None when there is none."""
    values = [flag.partition("=")[2] for flag in flags if flag.startswith(f"-m{name}=")]
    return values[-1] if values else None


def float_abi(flags: tuple[str, ...]) -> str:
    """`hard`, `softfp` or `soft`, which is the compiler's default on bare-metal Arm."""
    return flag_value(flags, "float-abi") or "soft"
