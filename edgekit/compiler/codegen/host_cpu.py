"""Which x86-64 level the machine has that edgekit runs on: code for it need not be code for any other."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["cpu_level", "host_cpu"]

# The psABI's levels by the flags of Linux that tell them (x86-64 psABI, section 3.1.1), best first.
_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": _V3,
}

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
    present = frozenset(flags)
    return next((name for name, needed in _LEVELS.items() if needed <= present), None)
