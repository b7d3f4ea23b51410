"""Padding that the operators behind it do themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step

__all__ = ["fold_pads"]


def fold_pads(program: Program) -> Program:
    """Padding of H and W becomes the windows' padding, where all that read it are convolutions and pools that
    pad with the same value.
    """
    steps: list[Step | None] = list(program.steps)
    outputs = {program.tensors[tensor].storage for _, tensor in program.outputs}
    for position, step in enumerate(program.steps):
        pad, padded = step.operator, program.tensors[step.output]
        if not isinstance(pad, op.Pad) or len(pad.before) != 4 or padded.storage in outputs:
            continue
        if pad.before[0] or pad.after[0] or pad.before[3] or pad.after[3]:
            continue
        folded: dict[int, Step] = {}
        readers = [
            (number, reader)
            for number, reader in enumerate(steps)
            if reader is not None
            and any(program.tensors[tensor].storage == padded.storage for tensor in reader.inputs)
        ]
        for number, reader in readers:
            operator = _padding_itself(reader.operator, pad, padded.dtype)
            # A view of another shape has other rows and columns.
            if operator is not None and program.tensors[reader.inputs[0]].shape == padded.shape:
                folded[number] = replace(reader, operator=operator, inputs=step.inputs)
        if readers and len(folded) == len(readers):
            steps[position] = None
            for number, reader in folded.items():
                steps[number] = reader
    return replace(program, steps=tuple(step for step in steps if step is not None))


def _padding_itself(operator: op.Operator, pad: op.Pad, dtype: str) -> op.Operator | None:
    """The operator with the padding before it; None where that would be another value."""
    if isinstance(operator, op.Conv2D | op.DepthwiseConv2D):
        if pad.value != operator.input_zero_point:
            return None
        return replace(operator, window=_wider(operator.window, pad))
    if isinstance(operator, op.MaxPool):
        # Padding never wins: its value is the least that there is, or the clamp hides it.
        if pad.value > max(int(np.iinfo(dtype).min), operator.clamp.low):
            return None
        return replace(operator, window=_wider(operator.window, pad))
    if isinstance(operator, op.AveragePool):
        counted = operator.count_padding or not any(operator.window.padding)
        if pad.value != operator.zero_point or not counted:
            return None
        return replace(operator, window=_wider(operator.window, pad), count_padding=True)
    return None


def _wider(window: op.Window, pad: op.Pad) -> op.Window:
    top, left, bottom, right = window.padding
    before, after = pad.before, pad.after
    return replace(window, padding=(top + before[1], left + before[2], bottom + after[1], right + after[2]))
