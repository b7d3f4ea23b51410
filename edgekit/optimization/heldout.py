"""The one look at the test rows, when all is decided."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Model
from edgekit.compress.folder import MODEL_FILE, WEIGHTS_FILE
from edgekit.data import Part
from edgekit.optimization.accuracy import Drop, classes, paired_drop, predictions
from edgekit.optimization.final import Final
from edgekit.optimization.result import HeldOut
from edgekit.search.store import SearchStore

if TYPE_CHECKING:
    from torch import nn

__all__ = ["held_out"]


def held_out(
    test: Part, start: nn.Module, baseline: Callable[[], Model], final: Final, store: SearchStore
) -> HeldOut:
    """Accuracies on the test rows, each winner's asked once and then remembered.

    Args:
        start: the float model.
        baseline: makes its int8 build.
    """
    assert test.y is not None
    winner = _digest(final.directory)
    known = store.look(winner)
    if known is not None:
        values = json.loads(known)
        return HeldOut(Drop(**values["against_float"]), Drop(**values["against_int8"]))
    x = np.ascontiguousarray(test.inputs[0], dtype=np.float32)
    real = classes(start, x)
    before, after = predictions(baseline(), x), predictions(final.model, x)
    found = HeldOut(paired_drop(real, after, test.y), paired_drop(before, after, test.y))
    store.add_look(winner, json.dumps(asdict(found)))
    return found


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (MODEL_FILE, WEIGHTS_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
