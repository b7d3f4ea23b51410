"""The integer definition of each operator, in TIR: what every schedule must compute, to the byte.

A definition is a tensor expression over the operator's inputs and constants. Its stages have names by which
the schedules find them: `padded` (a copy of the input with its border filled with the zero point), `sum` (a
reduction) and `output`. The rules and their sources are in docs/arithmetic.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import te

from edgekit.compiler import operators as op
from edgekit.compiler.definitions import (
    convolution,
    dense,
    elementwise,
    movement,
    normalization,
    pooling,
    resize,
    sixteen,
    softmax,
)
from edgekit.compiler.definitions.stages import OUTPUT, PADDED, SUM, Definition
from edgekit.compiler.program import Tensor

__all__ = ["DEFINITIONS", "OUTPUT", "PADDED", "SUM", "Definition", "define"]


def define(operator: op.Operator, inputs: Sequence[Tensor], output: Tensor) -> Definition:
    """The definition of `operator` over tensors of these shapes (NHWC) and types."""
    placeholders = tuple(
        te.placeholder(tensor.shape, tensor.dtype, name=f"input{position}")
        for position, tensor in enumerate(inputs)
    )
    return DEFINITIONS[type(operator)](operator, placeholders, output)


DEFINITIONS: Mapping[type[op.Operator], Callable[[Any, tuple[Any, ...], Tensor], Definition]] = {
    op.Conv2D: convolution.conv2d,
    op.DepthwiseConv2D: convolution.depthwise_conv2d,
    op.GroupedConv2D: convolution.grouped_conv2d,
    op.TransposedConv2D: convolution.transposed_conv2d,
    op.Dense: dense.dense,
    op.MatMul: dense.matmul,
    op.Conv2D16x8: sixteen.conv2d,
    op.Dense16x8: sixteen.dense,
    op.Add: elementwise.add,
    op.Subtract: elementwise.subtract,
    op.SquaredDifference: elementwise.squared_difference,
    op.Multiply: elementwise.multiply,
    op.Maximum: elementwise.maximum,
    op.Minimum: elementwise.minimum,
    op.PRelu: elementwise.prelu,
    op.Lookup: elementwise.lookup,
    op.AveragePool: pooling.average_pool,
    op.MaxPool: pooling.max_pool,
    op.Mean: pooling.mean,
    op.Extreme: pooling.extreme,
    op.ArgExtreme: pooling.arg_extreme,
    op.ResizeBilinear: resize.resize_bilinear,
    op.Pad: movement.pad,
    op.Concat: movement.concat,
    op.Requantize: elementwise.requantize,
    op.Quantize: elementwise.quantize,
    op.Dequantize: elementwise.dequantize,
    op.Softmax: softmax.softmax,
    op.LayerNorm: normalization.layer_norm,
    op.Transpose: movement.transpose,
    op.Slice: movement.slice_,
    op.Gather: movement.gather,
    op.Tile: movement.tile,
    op.Cast: movement.cast,
    op.Copy: movement.copy,
}
