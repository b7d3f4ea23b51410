"""How often a repeated test repeats: a working day's count, or the full one under `make campaign`."""

from __future__ import annotations

import os

__all__ = ["campaign_count", "is_campaign"]


def is_campaign() -> bool:
    return os.environ.get("EDGEKIT_CAMPAIGN") == "1"


def campaign_count(full: int, reduced: int) -> int:
    """`full` under EDGEKIT_CAMPAIGN=1, else `reduced`."""
    return full if is_campaign() else reduced
