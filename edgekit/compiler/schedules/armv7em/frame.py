"""PrimFuncs that own the loops and memory around assembly routines.

The builder is TVM's own (`tvm.script.ir_builder`); what is here are the few forms that every kernel uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import IRBuilder, tirx as ir

from edgekit.compiler.program import Tensor
from edgekit.compiler.schedules.armv7em.instructions import Assembler
from edgekit.compiler.schedules.kernel import STACK_BUFFER_BYTES, Kernel, Overlap

__all__ = ["Frame", "offset", "repeat", "word_of_bytes"]


def word_of_bytes(value: int) -> int:
    """An int32 whose four bytes all are `value` (int8)."""
    return int(np.array([value] * 4, np.int8).view(np.int32)[0])


@contextmanager
def repeat(extent: int) -> Iterator[Any]:
    """A serial loop over [0, extent); one turn needs no loop."""
    if extent == 1:
        yield tirx.const(0, "int32")
        return
    with ir.serial(0, extent) as index:
        yield index


def offset(pointer: Any, distance: Any) -> Any:
    """A pointer moved by bytes."""
    if isinstance(distance, int) and distance == 0:
        return pointer
    value = tirx.const(distance, "int32") if isinstance(distance, int) else distance
    return ir.handle_add_byte_offset(pointer, value)


class Frame:
    """A kernel under construction: pointers to its tensors and constants, scratch, calls of routines.

    Used as a context; the body is what happens inside. `kernel` takes the result out.
    """

    def __init__(
        self, inputs: Sequence[Tensor], constants: Mapping[str, NDArray[np.generic]], output: Tensor
    ) -> None:
        self._constants = dict(constants)
        self._declared = (tuple(inputs), output)
        self._builder = IRBuilder()
        self._routines: dict[str, Assembler] = {}
        self.inputs: tuple[Any, ...] = ()
        self.constants: Mapping[str, Any] = {}
        self.output: Any = None

    def __enter__(self) -> Frame:
        self._builder.__enter__()
        self._function = ir.prim_func()
        self._function.__enter__()
        ir.func_name("main")
        inputs, output = self._declared
        self.inputs = tuple(
            _argument(f"input{position}", tensor.size_bytes) for position, tensor in enumerate(inputs)
        )
        self.constants = {
            name: ir.arg(name, ir.Buffer((values.size,), str(values.dtype))).data
            for name, values in self._constants.items()
        }
        self.output = _argument("output", output.size_bytes)
        return self

    def __exit__(self, *error: Any) -> None:
        self._function.__exit__(*error)
        self._builder.__exit__(*error)

    def scratch(self, size_bytes: int) -> Any:
        """A pointer to so much workspace, on a boundary of 16 bytes, of which nothing is known."""
        # Never so small that it would be put on the stack.
        return ir.alloc_buffer((max(-(-size_bytes // 4), STACK_BUFFER_BYTES // 4),), "int32").data

    def call(self, routine: Assembler, *arguments: Any) -> None:
        self._routines[routine.name] = routine
        ir.evaluate(
            ir.call_extern(
                "void",
                routine.name,
                *(tirx.const(each, "int32") if isinstance(each, int) else each for each in arguments),
            )
        )

    def kernel(self, name: str, *, overlaps: Sequence[Overlap] = ()) -> Kernel:
        return Kernel(
            name,
            self._builder.get(),
            tuple(self._constants.values()),
            tuple(overlaps),
            tuple(routine.routine() for routine in self._routines.values()),
        )


def _argument(name: str, size_bytes: int) -> Any:
    return ir.arg(name, ir.Buffer((size_bytes,), "int8")).data
