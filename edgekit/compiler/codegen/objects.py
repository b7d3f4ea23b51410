"""Scheduled PrimFuncs to one object file whose functions have plain C signatures.

TVM's own calling convention packs arguments for its runtime. Here each buffer parameter becomes a raw
pointer: `void k3(const int8_t *input, const int8_t *weights, …, int8_t *output, uint8_t *workspace)`, so that
the object needs nothing of TVM when it is linked.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType

from edgekit.artifacts import ITEM_SIZE
from edgekit.compiler.codegen.host_cpu import host_cpu
from edgekit.compiler.codegen.routines import embed_routines
from edgekit.compiler.schedules.kernel import STACK_BUFFER_BYTES, Routine

__all__ = ["Lowered", "compile_object", "lower_function", "same_function", "tvm_target"]


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """A PrimFunc lowered to loops over raw pointers, and the temporaries it takes behind its own parameters
    (bytes).
    """

    function: Any
    temporaries: tuple[int, ...]


def tvm_target(mtriple: str | None, mcpu: str | None, mattr: Sequence[str], *, small: bool = False) -> Any:
    """TVM's LLVM target; without a triple the machine that edgekit runs on.

    With `small` loops are left as they are where LLVM would trade code for time.
    """
    # TVM marks each buffer's accesses as a type of their own, even where pointers may be equal.
    options: dict[str, Any] = {"kind": "llvm", "cl-opt": ["-enable-tbaa:bool=0"]}
    if mtriple is not None:
        options["mtriple"] = mtriple
        if mtriple.startswith("thumb"):
            options["vector-width"] = 128  # TVM's own choice there, which it otherwise warns about
    elif mcpu is None:
        mcpu = host_cpu()
    if mcpu is not None:
        options["mcpu"] = mcpu
    if mattr:
        options["mattr"] = list(mattr)
    if small:
        options["opt-level"] = 2
    return tvm.target.Target(options)


def lower_function(function: Any) -> Lowered:
    """Blocks to plain loops, then buffers to raw pointers, then large temporaries to the workspace."""
    module = _run_passes(tvm.IRModule({"main": function}), _LOWERING)
    return _raw_pointers(module["main"])


def same_function(first: Any, second: Any) -> bool:
    """True when two lowered functions would be the same code."""
    return bool(tvm_ffi.structural_equal(first, second))


# The order is TVM's own for CPUs, without the passes that serve its runtime (packed calls, device splitting).
_LOWERING = (
    s_tir.transform.LowerInitBlock,
    s_tir.transform.PlanAndUpdateBufferAllocationLocation,
    s_tir.transform.ConvertBlocksToOpaque,
    s_tir.transform.CompactBufferAllocation,
    s_tir.transform.LowerMatchBuffer,
    tirx.transform.StmtSimplify,
    s_tir.transform.LowerOpaqueBlock,
    tirx.transform.FlattenBuffer,
    # Functions that TVM legalised count in 64 bits, which no core here does in one instruction.
    partial(tirx.transform.NarrowDataType, 32),
    tirx.transform.VectorizeLoop,
    tirx.transform.UnrollLoop,
    tirx.transform.StmtSimplify,
    tirx.transform.RemoveNoOp,
)


def _run_passes(module: Any, passes: Sequence[Any]) -> Any:
    with tvm.transform.PassContext(opt_level=3):
        for each in passes:
            module = each()(module)
    return module


def _raw_pointers(function: Any) -> Lowered:
    """Parameters become pointers declared as buffers.

    Large temporaries become pointers into the workspace.
    """
    parameters: list[Any] = []
    declarations: list[Any] = []
    for buffer in function.params:
        pointer = _pointer_to(buffer)
        parameters.append(pointer)
        declarations.append(tirx.DeclBuffer(buffer, data=pointer))

    temporaries: list[tuple[Any, int]] = []

    def place(allocation: Any) -> Any:
        size = _size_bytes(allocation.buffer)
        if size < STACK_BUFFER_BYTES or str(allocation.buffer.ty.storage_scope) == "local":
            # Otherwise the builtin lowering would ask TVM's runtime for memory.
            return tirx.AllocBuffer(
                allocation.buffer, annotations={"disable_lower_builtin": tirx.const(1, "int32")}
            )
        pointer = _pointer_to(allocation.buffer)
        temporaries.append((pointer, size))
        return tirx.DeclBuffer(allocation.buffer, data=pointer)

    body = tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, place))
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    raw = tirx.PrimFunc(
        [*parameters, *(pointer for pointer, _ in temporaries)], tirx.SeqStmt([*declarations, *statements])
    )
    for key, value in dict(function.attrs).items():
        raw = raw.with_attr(key, value)
    return Lowered(raw, tuple(size for _, size in temporaries))


def _pointer_to(buffer: Any) -> Any:
    return tirx.Var(f"{buffer.name}_pointer", PointerType(PrimType(str(buffer.ty.dtype)), "global"))


def _size_bytes(buffer: Any) -> int:
    return math.prod(int(size) for size in buffer.ty.shape) * ITEM_SIZE[str(buffer.ty.dtype)]


def compile_object(functions: Mapping[str, Any], target: Any, routines: Iterable[Routine] = ()) -> bytes:
    """Lowered functions by symbol name, and the routines they call, as one relocatable ELF object."""
    first, *others = functions
    carrier = embed_routines(functions[first], routines, str(target.attrs.get("mtriple", "")))
    named = {first: carrier, **{symbol: functions[symbol] for symbol in others}}
    module = tvm.IRModule(
        {symbol: function.with_attr("global_symbol", symbol) for symbol, function in named.items()}
    )
    host = target.with_host(target)
    with tvm.transform.PassContext(opt_level=3):
        module = tirx.transform.BindTarget(host)(module)
        for each in _FINISHING:
            module = each()(module)
    library = tvm.get_global_func("target.build.llvm")(module, target)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as directory:
        path = Path(directory) / "kernels.o"
        library.write_to_file(str(path), "o")
        return path.read_bytes()


_FINISHING = (
    tirx.transform.LowerTVMBuiltin,
    tirx.transform.LowerIntrin,
)
