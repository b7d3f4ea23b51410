"""Tensors that lie in runs between the bytes of others: which kernels of all schedules read and write them.

A concatenation along the channels needs no copy where those that compute its inputs write them between each
other's channels, a split none where those that read its parts step over the rest. The portable schedule can
do so with any operator; what is listed here every other schedule can do as well, so that what is shared does
not depend on the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import tirx

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.kernel import Overlap

__all__ = ["in_runs", "is_listed", "reads_runs", "whole_overlaps", "writes_runs"]

_ONLY_PORTABLE = (
    op.GroupedConv2D,
    op.TransposedConv2D,
    op.MatMul,
    op.PRelu,
    op.ResizeBilinear,
    op.Transpose,
    op.Gather,
)
"""No other schedule has kernels for these."""
_WRITERS = (op.Conv2D, op.DepthwiseConv2D, op.MaxPool, op.AveragePool, op.Requantize, op.Lookup)


def writes_runs(program: Program, step: Step) -> bool:
    """Whether a step's output may lie in runs of its last axis."""
    return isinstance(step.operator, (*_WRITERS, *_ONLY_PORTABLE))


def reads_runs(program: Program, step: Step) -> bool:
    """Whether all inputs of a step may lie in runs of their last axis."""
    operator = step.operator
    if isinstance(operator, op.Conv2D):
        source = program.tensors[step.inputs[0]]
        return operator.window.kernel == (1, 1) and not _is_padded(program, step, source)
    if isinstance(operator, op.Concat):
        return operator.axis == len(program.tensors[step.output].shape) - 1
    return isinstance(operator, (op.Requantize, *_ONLY_PORTABLE))


def is_listed(program: Program, step: Step) -> bool:
    """Whether a step's tensors lie as every schedule can read and write them for its operator."""
    if program.tensors[step.output].runs is not None and not writes_runs(program, step):
        return False
    in_pieces = any(program.tensors[tensor].runs is not None for tensor in step.inputs)
    return not in_pieces or reads_runs(program, step)


def _is_padded(program: Program, step: Step, source: Tensor) -> bool:
    """Whether a 1x1 window is anywhere outside the input."""
    assert isinstance(step.operator, op.Conv2D)
    window, output = step.operator.window, program.tensors[step.output]
    last = [(size - 1) * stride for size, stride in zip(output.shape[1:3], window.stride, strict=True)]
    return any(window.padding[:2]) or any(a >= b for a, b in zip(last, source.shape[1:3], strict=True))


def whole_overlaps(program: Program, step: Step, overlaps: Sequence[Overlap]) -> tuple[Overlap, ...]:
    """Those of a kernel's overlaps that hold: of tensors in one piece each."""
    if program.tensors[step.output].runs is not None:
        return ()
    return tuple(each for each in overlaps if program.tensors[step.inputs[each.operand]].runs is None)


def in_runs(function: Any, inputs: Sequence[Tensor], output: Tensor) -> Any:
    """A PrimFunc with its tensors as they lie in memory: the inputs are its first parameters, the output its
    last.
    """
    parameters = list(function.params)
    tensors = dict(enumerate(inputs)) | {len(parameters) - 1: output}
    spread = {
        parameters[position]: _spread(parameters[position], tensor)
        for position, tensor in tensors.items()
        if tensor.runs is not None
    }
    if not spread:
        return function

    def replaced(variable: Any) -> Any:
        return next((new for old, new in spread.items() if variable.same_as(old)), variable)

    body = tvm_ffi.structural_map(function.body, (type(parameters[0]), replaced))
    result = tirx.PrimFunc([replaced(each) for each in parameters], body)
    for key, value in dict(function.attrs or {}).items():
        result = result.with_attr(key, value)
    return result


def _spread(buffer: Any, tensor: Tensor) -> Any:
    """The buffer with the distances of a tensor in runs of its last axis."""
    strides, distance = [1], tensor.pitch
    for size in reversed(tensor.shape[:-1]):
        strides.insert(0, distance)
        distance *= size
    return tirx.decl_buffer(tensor.shape, tensor.dtype, name=buffer.name, strides=strides)
