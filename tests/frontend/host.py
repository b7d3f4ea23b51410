"""Run an imported module on the host in float arithmetic, as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from edgekit.artifacts import Model

__all__ = ["HostModel", "run_on_host", "worst_difference"]


class HostModel:
    """A model compiled once by TVM's virtual machine for this CPU."""

    def __init__(self, model: Model) -> None:
        # No optimising pipeline: what is tested is the module, and it is run once or twice.
        executable = tvm.compile(model.module, tvm.target.Target({"kind": "llvm", "opt-level": 0}))
        self._machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs of one inference."""
        result = self._machine["main"](*(tvm.runtime.tensor(np.array(x)) for x in inputs))
        outputs = [result] if hasattr(result, "numpy") else list(result)
        return [np.array(output.numpy()) for output in outputs]


def run_on_host(model: Model, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of one inference."""
    return HostModel(model).run(inputs)


def worst_difference(ours: Sequence[NDArray[Any]], theirs: Sequence[NDArray[Any]]) -> int:
    """The largest difference of any element, in steps of the stored integers."""
    assert len(ours) == len(theirs)
    worst = 0
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        worst = max(worst, int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max(initial=0)))
    return worst
