"""Amounts as people write them (`20ms`, `4M`, `512KiB`) turned into numbers with one unit."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["parse_bytes", "parse_count", "parse_duration_us"]

_AMOUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([A-Za-zµ]*)")

_COUNTS: Mapping[str, int] = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_BYTES: Mapping[str, int] = {
    "": 1,
    "B": 1,
    "kB": 1_000,
    "KB": 1_000,
    "MB": 1_000_000,
    "K": 1 << 10,
    "KiB": 1 << 10,
}
_BYTES = {**_BYTES, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30}
_MICROSECONDS: Mapping[str, float] = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}


def parse_count(text: str) -> int:
    """A number of things: `4M`, `2_500_000`, `150k` (decimal). Raises ValueError with a sentence."""
    return round(_parse(text, _COUNTS, "4000000, 4M or 150k"))


def parse_bytes(text: str) -> int:
    """A size in bytes: `110592`, `110KiB`, `1MB`; K and M alone are 1024-based. Raises ValueError with a
    sentence.
    """
    return round(_parse(text, _BYTES, "40960, 40KiB or 1MB"))


def parse_duration_us(text: str) -> float:
    """A duration in microseconds: `20ms`, `350us`, `1.5s`; the unit is required. Raises ValueError with a
    sentence.
    """
    return _parse(text, _MICROSECONDS, "20ms, 350us or 1.5s")


def _parse(text: str, units: Mapping[str, float], examples: str) -> float:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"{text[:40]!r} is not an amount like {examples}")
    value = float(match[1].replace("_", "").replace(",", "")) * units[match[2]]
    if not 0 < value < 1e15:
        raise ValueError(f"{text[:40]!r} must be greater than zero")
    return value
