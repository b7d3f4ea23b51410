"""Questions to TIR functions, and what is left of one when only one of its outputs is wanted."""

from __future__ import annotations

import math
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Call, Var

__all__ = ["calls_runtime", "holds_float", "keep_output", "multiply_accumulates", "plain"]

_RUNTIME_CALLS = (
    "tirx.tvm_call_packed",
    "tirx.tvm_call_cpacked",
    "tirx.call_extern",
    "tirx.call_pure_extern",
)


def calls_runtime(function: Any) -> bool:
    """Whether it calls functions of TVM's runtime (sorting, for example)."""
    found: list[str] = []

    def visit(call: Any) -> None:
        name = str(getattr(call.op, "name", ""))
        if "packed" in name or name in _RUNTIME_CALLS:
            found.append(name)

    tvm_ffi.structural_walk(function.body, (Call, visit))
    return bool(found)


def plain(function: Any) -> Any:
    """The function in one thread, each tensor where its pointer says, without hints for TVM's runtime."""
    offsets = [each.ty.elem_offset for each in function.params if isinstance(each.ty.elem_offset, Var)]

    def serial(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    def without_pragma(statement: Any) -> Any:
        return statement.body if statement.attr_key.startswith("pragma") else statement

    def from_start(variable: Any) -> Any:
        return tirx.IntImm(str(variable.ty.dtype), 0) if _holds(offsets, variable) else variable

    rewrites = [(tirx.For, serial), (tirx.AttrStmt, without_pragma)]
    if offsets:
        rewrites.append((Var, from_start))
    return tvm_ffi.structural_map(function, rewrites)


def holds_float(function: Any) -> bool:
    """Whether a tensor that it reads or writes is float32."""
    return any(str(buffer.ty.dtype).startswith(("float", "bfloat")) for buffer in function.params)


def keep_output(function: Any, inputs: int, index: int) -> Any:
    """The same function with one of its outputs; stages that only served the others are left out."""
    parameters = list(function.params)
    others = [each for position, each in enumerate(parameters[inputs:]) if position != index]
    root = function.body.block
    statements = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    kept = _live(statements, parameters[inputs + index])
    read = [
        buffer
        for statement in kept
        for buffer in (*_buffers(statement, "reads"), *_buffers(statement, "writes"))
    ]
    allocated = [each for each in (*root.alloc_buffers, *others) if _holds(read, each)]
    body = tirx.SeqStmt(kept) if len(kept) > 1 else kept[0]
    block = s_tir.SBlock([], [], [], root.name_hint, body, alloc_buffers=allocated)
    result = tirx.PrimFunc(
        [*parameters[:inputs], parameters[inputs + index]], s_tir.SBlockRealize([], True, block)
    )
    for key, value in dict(function.attrs).items():
        result = result.with_attr(key, value)
    return result


def _live(statements: list[Any], output: Any) -> list[Any]:
    """The statements that `output` depends on, in order."""
    needed, kept = [output], []
    for statement in reversed(statements):
        if any(_holds(needed, buffer) for buffer in _buffers(statement, "writes")):
            kept.append(statement)
            needed += _buffers(statement, "reads")
    return kept[::-1]


def _holds(buffers: list[Any], buffer: Any) -> bool:
    # `in` would compare with ==, which TVM's expressions overload.
    return any(buffer.same_as(each) for each in buffers)


def _buffers(statement: Any, which: str) -> list[Any]:
    found: list[Any] = []
    tvm_ffi.structural_walk(
        statement, (s_tir.SBlock, lambda block: found.extend(each.source for each in getattr(block, which)))
    )
    return found


def multiply_accumulates(function: Any) -> int:
    """How often it adds a product to a sum."""
    total = 0

    def visit(block: Any) -> None:
        nonlocal total
        store = block.body
        if (
            block.init is None
            or not isinstance(store, tirx.BufferStore)
            or not isinstance(store.value, tirx.Add)
        ):
            return
        if any(isinstance(side, tirx.Mul) for side in (store.value.a, store.value.b)):
            total += math.prod(int(each.dom.extent) for each in block.iter_vars)

    tvm_ffi.structural_walk(function.body, (s_tir.SBlock, visit))
    return total
