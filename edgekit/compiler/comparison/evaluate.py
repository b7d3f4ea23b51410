"""Run a lowered program on this machine, operator by operator, with every tensor in reach.

The operators are those of the portable schedule, compiled by TVM in this process: the same definitions that a
board computes, so the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules import Request, portable, schedule_step

__all__ = ["HostProgram"]

Array = NDArray[Any]


class HostProgram:
    """A program compiled for this machine."""

    def __init__(self, program: Program) -> None:
        self.program = program
        kernels = [schedule_step((portable.NAME,), program, step, Request()) for step in program.steps]
        functions = {
            f"step{position}": kernel.function.with_attr("global_symbol", f"step{position}")
            for position, kernel in enumerate(kernels)
        }
        self._module: Any = tvm.compile(tvm.IRModule(functions), target="llvm")
        self._constants = [[tvm.runtime.tensor(values) for values in kernel.constants] for kernel in kernels]
        sizes: dict[int, int] = {}
        for tensor in program.tensors:
            sizes[tensor.storage] = max(sizes.get(tensor.storage, 0), tensor.offset + tensor.size_bytes)
        self._memory = {storage: np.zeros(size, np.uint8) for storage, size in sizes.items()}

    def run(self, inputs: Sequence[Array], instead: Mapping[int, Array] | None = None) -> list[Array]:
        """One inference from the stored inputs: the output of each step, in order.

        Later operators read what `instead` has for a step, where it has something, in place of its output.
        """
        for (_, tensor), values in zip(self.program.inputs, inputs, strict=True):
            self._write(self.program.tensors[tensor], values)
        outputs = []
        for position, step in enumerate(self.program.steps):
            output = self.step(position, [self._read(self.program.tensors[each]) for each in step.inputs])
            kept = output if instead is None else instead.get(position, output)
            self._write(self.program.tensors[step.output], kept)
            outputs.append(output)
        return outputs

    def step(self, position: int, inputs: Sequence[Array]) -> Array:
        """The output of one operator for these stored inputs; constants among them are ignored."""
        step: Step = self.program.steps[position]
        tensors = [self.program.tensors[each] for each in step.inputs]
        given = [
            tensor.data if tensor.data is not None else values
            for tensor, values in zip(tensors, inputs, strict=True)
        ]
        output = self.program.tensors[step.output]
        result = tvm.runtime.tensor(np.zeros(output.shape, output.dtype))
        arguments = [
            tvm.runtime.tensor(np.ascontiguousarray(values).reshape(tensor.shape))
            for tensor, values in zip(tensors, given, strict=True)
        ]
        self._module[f"step{position}"](*arguments, *self._constants[position], result)
        values: Array = result.numpy()
        return values

    def _read(self, tensor: Tensor) -> Array:
        if tensor.data is not None:
            data: Array = tensor.data
            return data
        held: Array = self._memory[tensor.storage][tensor.offset : tensor.offset + tensor.size_bytes]
        values: Array = held.view(tensor.dtype).reshape(tensor.shape).copy()
        return values

    def _write(self, tensor: Tensor, values: Array) -> None:
        held = self._memory[tensor.storage][tensor.offset : tensor.offset + tensor.size_bytes]
        held[:] = np.ascontiguousarray(values, tensor.dtype).reshape(-1).view(np.uint8)
