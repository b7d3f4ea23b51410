"""What a search and a measurement belong to: another model, board or compiler is another search."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit import __version__
from edgekit.compression import TorchSource
from edgekit.fsutil import cache_folder
from edgekit.optimization.settings import Settings
from edgekit.target import Target

__all__ = ["measuring_conditions", "operator_table", "search_identity"]


def search_identity(source: TorchSource, target: Target, split: str, settings: Settings) -> Mapping[str, str]:
    """What a search's file belongs to. Budgets and the final training are left out: another budget goes on
    with the same trials.
    """
    digest = hashlib.sha256()
    for name, value in sorted(source.module.state_dict().items()):
        digest.update(f"\n{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    searching = replace(settings, final_epochs=1, final_learning_rate=1.0, qat_epochs=0)
    return {
        "model": digest.hexdigest(),
        "target": target.name,
        "split of the data": split,
        "settings": repr(searching),
        "compiler": _compiler(),
    }


def measuring_conditions(target: Target, board: str | None) -> Mapping[str, str]:
    """All that an operator's cost depends on besides itself: board, clock, memory, toolchain, compiler."""
    document = json.dumps(target.document(), sort_keys=True)
    return {
        "edgekit": __version__,
        "target": target.name,
        "target_sha256": hashlib.sha256(document.encode()).hexdigest(),
        "board": board or "",
        "compiler": _compiler(),
    }


def operator_table() -> Path:
    """Operators that were measured once serve every later search under the same conditions."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "operators.sqlite"


@functools.cache
def _compiler() -> str:
    """SHA-256 over the compiler's own files: another schedule is another cost."""
    import edgekit.compiler

    digest = hashlib.sha256()
    for path in sorted(Path(edgekit.compiler.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
