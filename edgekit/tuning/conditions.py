"""What a variant's measured cost depends on besides the variant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgekit.artifacts import Preference
from edgekit.conditions import files_digest, measuring_conditions
from edgekit.target import Target

__all__ = ["tuning_conditions"]


def tuning_conditions(target: Target, board: str | None, prefer: Preference) -> Mapping[str, str]:
    """All that measurements depend on, what is preferred, and the files of the model of cycles.

    Raises:
        MissingToolError: the target's toolchain is not installed.
    """
    from edgekit.device import block_counts
    from edgekit.profile import cycles
    from edgekit.resources import firmware_templates_directory

    model = [Path(module.__file__ or "") for module in (block_counts, cycles)]
    model.append(firmware_templates_directory() / "plugin" / "blocks.c")
    return {**measuring_conditions(target, board), "prefer": prefer, "cycle model": files_digest(model)}
