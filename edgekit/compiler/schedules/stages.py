"""What the stages of a TIR function are: blocks, what they add up, and how they read each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Var
from tvm.ir.expr import TensorLoad

__all__ = [
    "elements",
    "holds",
    "is_copy",
    "is_identity",
    "is_product",
    "is_spatial",
    "is_sum",
    "reads_in_step",
    "stages",
    "variables",
]

_SPATIAL = 0


def is_spatial(axis: Any) -> bool:
    return int(axis.iter_type) == _SPATIAL


def stages(sch: Any) -> list[Any]:
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def is_sum(block: Any) -> bool:
    return block.init is not None


def elements(block: Any, *, spatial_only: bool = False) -> int:
    return math.prod(int(each.dom.extent) for each in block.iter_vars if not spatial_only or is_spatial(each))


def is_copy(block: Any) -> bool:
    return isinstance(block.body, tirx.BufferStore) and isinstance(block.body.value, TensorLoad)


def is_product(block: Any) -> bool:
    """A sum of products of two loads."""
    store = block.body
    if not is_sum(block) or not isinstance(store, tirx.BufferStore) or not isinstance(store.value, tirx.Add):
        return False
    factor = store.value.b
    return isinstance(factor, tirx.Mul) and all(isinstance(each, TensorLoad) for each in (factor.a, factor.b))


def variables(indices: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for index in indices:
        tvm_ffi.structural_walk(index, (Var, found.append))
    return found


def holds(variables: Sequence[Any], variable: Any) -> bool:
    # `in` would compare with ==, which TVM's expressions overload.
    return any(variable.same_as(each) for each in variables)


def is_identity(indices: Sequence[Any], axes: Sequence[Any]) -> bool:
    """Whether `indices` are the axes themselves, in order (unit axes may be written as 0)."""
    if len(indices) != len(axes):
        return False
    return all(
        index.same_as(axis.var) or (int(axis.dom.extent) == 1 and isinstance(index, tirx.IntImm))
        for index, axis in zip(indices, axes, strict=True)
    )


def reads_in_step(sch: Any, stage: Any, reader: Any) -> bool:
    """Whether the reader's element at each place needs the stage's element at the same place and no other."""
    block, consumer = sch.get(stage), sch.get(reader)
    if is_sum(consumer) or len(block.writes) != 1:
        return False
    buffer = block.writes[0].source
    loads: list[Any] = []
    tvm_ffi.structural_walk(
        consumer.body,
        (TensorLoad, lambda load: loads.append(load) if load.source.same_as(buffer) else None),
    )
    spatial = list(consumer.iter_vars)
    return bool(loads) and all(
        is_identity(load.indices, spatial) and len(sch.get_loops(reader)) == len(spatial) for load in loads
    )
