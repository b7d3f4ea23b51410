"""What a search belongs to: another model, board or compiler is another search."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit.compression import TorchSource
from edgekit.conditions import compiler_digest
from edgekit.fsutil import cache_folder
from edgekit.optimization.settings import Settings
from edgekit.target import Target

__all__ = ["operator_table", "search_identity"]


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
        "compiler": compiler_digest(),
    }


def operator_table() -> Path:
    """Operators that were measured once serve every later search under the same conditions."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "operators.sqlite"
