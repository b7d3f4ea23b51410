"""Schedules for Cortex-M4, M7 and M33: Armv7E-M, and Armv8-M with DSP (docs/schedules.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.armv7em import (
    convolution,
    dense,
    depthwise,
    depthwise_plane,
    depthwise_taps,
    elementwise,
    movement,
    pooling,
    single_pixels,
    softmax,
)
from edgekit.compiler.schedules.kernel import Request, Variant

__all__ = ["NAME", "variants"]

NAME = "armv7em"

_Variants = Callable[[Program, Step, Request], tuple[Variant, ...]]


def _convolution(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    blocks = convolution.variants(program, step, request)
    return blocks or single_pixels.variants(program, step, request)


def _depthwise(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    operator = step.operator
    channels = program.tensors[step.inputs[0]].shape[3], program.tensors[step.output].shape[3]
    if isinstance(operator, op.DepthwiseConv2D) and channels[0] == 1 < channels[1]:
        return _convolution(program, replace(step, operator=convolution.of_one_channel(operator)), request)
    whole = depthwise_plane.variants(program, step, request)
    banded = depthwise.variants(program, step, request)
    taps = depthwise_taps.variants(program, step, request)
    # Whole planes are the most code and, of more than a few rows, the most workspace.
    if request.prefer == "speed" and depthwise_plane.is_small(step, program):
        return (*whole, *banded, *taps)
    return (*banded, *whole, *taps)


VARIANTS: Mapping[type[op.Operator], _Variants] = {
    op.Conv2D: _convolution,
    op.DepthwiseConv2D: _depthwise,
    op.Dense: dense.variants,
    op.Add: elementwise.sum_variants,
    op.Subtract: elementwise.sum_variants,
    op.Multiply: elementwise.product_variants,
    op.Maximum: elementwise.extremum_variants,
    op.Minimum: elementwise.extremum_variants,
    op.Requantize: elementwise.requantize_variants,
    op.Lookup: elementwise.lookup_variants,
    op.AveragePool: pooling.pool_variants,
    op.MaxPool: pooling.pool_variants,
    op.Mean: pooling.mean_variants,
    op.Concat: movement.concat_variants,
    op.Pad: movement.pad_variants,
    op.Slice: movement.slice_variants,
    op.Tile: movement.fill_variants,
    op.Softmax: softmax.variants,
}
"""What computes an operator, best first. Where none applies the next schedule serves."""


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The variants whose preconditions hold for a step, best first by default."""
    if request.threads or type(step.operator) not in VARIANTS:
        return ()
    if any(program.tensors[tensor].dtype != "int8" for tensor in (*step.inputs, step.output)):
        return ()
    return VARIANTS[type(step.operator)](program, step, request)
