"""What a measured cost depends on besides the operator itself."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from edgekit import __version__
from edgekit.artifacts import Preference
from edgekit.target import Target

__all__ = ["tuning_conditions"]


def tuning_conditions(target: Target, board: str | None, prefer: Preference) -> Mapping[str, str]:
    """The target as its file says, the board, what is preferred, the toolchain, and the files of the compiler
    and of the model of cycles: another schedule is another cost.

    Raises:
        MissingToolError: the target's toolchain is not installed.
    """
    from edgekit.firmware import find_toolchain

    document = json.dumps(target.document(), sort_keys=True)
    tools = {f"tool {name}": text for name, text in find_toolchain(target).versions.items()}
    return {
        "edgekit": __version__,
        "target": target.name,
        "target_sha256": hashlib.sha256(document.encode()).hexdigest(),
        "board": board or "",
        "prefer": prefer,
        "compiler": _compiler(),
        "apache-tvm": version("apache-tvm"),
        **tools,
    }


@functools.cache
def _compiler() -> str:
    import edgekit.compiler
    from edgekit.device import block_counts
    from edgekit.profile import cycles
    from edgekit.resources import firmware_templates_directory

    own = [Path(module.__file__ or "") for module in (block_counts, cycles)]
    own.append(firmware_templates_directory() / "plugin" / "blocks.c")
    digest = hashlib.sha256()
    for path in (*sorted(Path(edgekit.compiler.__file__).parent.rglob("*.py")), *own):
        digest.update(path.read_bytes())
    return digest.hexdigest()
