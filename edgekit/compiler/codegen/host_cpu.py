"""Which x86-64 level the machine has that edgekit runs on: code for it need not be code for any other."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

__all__ = ["cpu_level", "host_cpu"]

# The flags of Linux that tell the psABI's level (x86-64 psABI, section 3.1.1). Level 4 is left out: LLVM 22
# vectorises integer remainders wrongly for it (x[i % 4] of a tile read x[i]).
_LEVEL = "x86-64-v3"
_FLAGS = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})

_CPUINFO = Path("/proc/cpuinfo")


def host_cpu() -> str | None:
    """LLVM's name of the level; None where nothing better than the architecture's baseline is known."""
    if platform.machine() != "x86_64":
        return None
    try:
        lines = _CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return cpu_level(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def cpu_level(flags: Iterable[str]) -> str | None:
    """The best level whose flags are all among `flags`, as Linux lists them."""
    return _LEVEL if frozenset(flags) >= _FLAGS else None
