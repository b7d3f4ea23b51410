"""What a measured cost depends on besides the operator itself: under other conditions it is measured anew."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from edgekit import __version__
from edgekit.target import Target

__all__ = ["compiler_digest", "files_digest", "measuring_conditions"]


def measuring_conditions(target: Target, board: str | None) -> Mapping[str, str]:
    """The target as its file says (clock, memory, flags), the board, the toolchain, and the compiler.

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
        "compiler": compiler_digest(),
        "apache-tvm": version("apache-tvm"),
        **tools,
    }


@functools.cache
def compiler_digest() -> str:
    """SHA-256 over the compiler's own files: another schedule is another cost."""
    import edgekit.compiler

    return files_digest(sorted(Path(edgekit.compiler.__file__).parent.rglob("*.py")))


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
