"""Which source operator each variable of an imported Relax function comes from."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from edgekit.artifacts import Place

__all__ = ["record_places"]


def record_places(module: tvm.IRModule, written: Sequence[tuple[relax.Var, Place]]) -> dict[str, Place]:
    """Variable name → place, for every variable of `main`.

    Args:
        module: The module as the block builder gave it.
        written: For each source operator that wrote one, the last variable it wrote, in the order of
            conversion. What was bound since the one before belongs to it.
    """
    ends = {variable.name: place for variable, place in written}
    places: dict[str, Place] = {}
    pending: list[str] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            name = binding.var.name
            if isinstance(binding.value, relax.Var) and binding.value.name in places:
                # The copy that makes an output; passes may keep either name.
                places[name] = places[binding.value.name]
                continue
            pending.append(name)
            if name in ends:
                places.update(dict.fromkeys(pending, ends[name]))
                pending.clear()
    return places
