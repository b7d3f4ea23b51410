"""Concatenation, padding, slices and fills: copies of whole runs, in the order of the output.

Copies go forward, so that an output may lie over an input from whose remaining bytes it keeps below.
"""

from __future__ import annotations

import math
from typing import Any

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules.armv7em.byte_map import operand_maps
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.memory import copy_bytes, fill_bytes
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = ["concat_variants", "fill_variants", "pad_variants", "slice_variants"]

SHORTEST_RUN = 8
"""Calling a routine for fewer bytes costs more than the loop of the portable schedule."""


def concat_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """A copy for each run of each input, on its way brought to the output's scale; none of short runs."""
    operator = step.operator
    assert isinstance(operator, op.Concat)
    inputs = [program.tensors[tensor] for tensor in step.inputs]
    output = program.tensors[step.output]
    runs = [math.prod(tensor.shape[operator.axis :]) for tensor in inputs]
    if min(runs) < SHORTEST_RUN:
        return ()
    maps = operand_maps(operator)
    tables = {name: table for each in maps if each is not None for name, table in each.constants.items()}
    name = "armv7em.concat"
    whole = math.prod(output.shape[operator.axis :])
    turns = math.prod(output.shape[: operator.axis])
    starts = [sum(runs[:operand]) for operand in range(len(runs))]
    pitches = [run if each.runs is None else each.pitch for run, each in zip(runs, inputs, strict=True)]

    def build() -> Kernel:
        frame = Frame(inputs, tables, output)
        with frame:
            with repeat(turns) as index:
                operands = zip(frame.inputs, runs, pitches, starts, maps, strict=True)
                for source, run, pitch, start, each in operands:
                    to = offset(frame.output, index * whole + start)
                    if each is None:
                        frame.call(copy_bytes(), to, offset(source, index * pitch), run)
                    else:
                        each.emit(frame, offset(source, index * pitch), to, run)
            clamp_output(frame, operator.clamp, output)
        # The last copy is the one that is farthest behind what it reads.
        overlaps = [
            Overlap(operand, (turns - 1) * (whole - run) + start)
            for operand, (run, start, tensor) in enumerate(zip(runs, starts, inputs, strict=True))
            if tensor.data is None
        ]
        return frame.kernel(name, overlaps=overlaps)

    return (Variant(name, build),)


def pad_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Rows that are copied, and borders that are filled."""
    operator = step.operator
    assert isinstance(operator, op.Pad)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    padded = [axis for axis in range(len(source.shape)) if operator.before[axis] or operator.after[axis]]
    if not padded or math.prod(source.shape[padded[-1] :]) < SHORTEST_RUN:
        return ()
    name = "armv7em.pad"
    read, written = _distances(source.shape), _distances(output.shape)
    word = word_of_bytes(operator.value)

    def build() -> Kernel:
        frame = Frame([source], {}, output)

        def fill(to: Any, size: int) -> None:
            if size:
                frame.call(fill_bytes(), offset(frame.output, to), word, size)

        def emit(axis: int, at: Any, to: Any) -> None:
            """The part of the output from `to` on whose dimensions are those from `axis` on."""
            fill(to, operator.before[axis] * written[axis])
            inside = to + operator.before[axis] * written[axis]
            if axis == padded[-1]:
                run = source.shape[axis] * read[axis]
                frame.call(copy_bytes(), offset(frame.output, inside), offset(frame.inputs[0], at), run)
            else:
                with repeat(source.shape[axis]) as index:
                    emit(axis + 1, at + index * read[axis], inside + index * written[axis])
            fill(inside + source.shape[axis] * written[axis], operator.after[axis] * written[axis])

        with frame:
            emit(0, 0, 0)
        # The last row is the one that is farthest behind what it reads.
        behind = sum(
            before * wide + (size - 1) * (wide - narrow) * (axis < padded[-1])
            for axis, (before, size, wide, narrow) in enumerate(
                zip(operator.before, source.shape, written, read, strict=True)
            )
        )
        return frame.kernel(name, overlaps=[Overlap(0, behind)] if source.data is None else [])

    return (Variant(name, build),)


def slice_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Copies of the runs that are taken; none where places within a run are left out."""
    operator = step.operator
    assert isinstance(operator, op.Slice)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    cut = [
        axis
        for axis, size in enumerate(source.shape)
        if output.shape[axis] != size or operator.strides[axis] != 1
    ]
    if not cut or min(operator.strides) < 1:
        return ()
    # A step over places ends the run behind its axis.
    last = cut[-1] if operator.strides[cut[-1]] == 1 else cut[-1] + 1
    run = math.prod(output.shape[last:])
    if run < SHORTEST_RUN:
        return ()
    name = "armv7em.slice"
    read, written = _distances(source.shape), _distances(output.shape)
    begin = sum(place * distance for place, distance in zip(operator.begin, read, strict=True))

    def build() -> Kernel:
        frame = Frame([source], {}, output)

        def emit(axis: int, at: Any, to: Any) -> None:
            if axis == last:
                frame.call(copy_bytes(), offset(frame.output, to), offset(frame.inputs[0], at), run)
                return
            with repeat(output.shape[axis]) as index:
                distance = operator.strides[axis] * read[axis]
                emit(axis + 1, at + index * distance, to + index * written[axis])

        with frame:
            emit(0, begin, 0)
        return frame.kernel(name, overlaps=[Overlap(0, -begin)] if source.data is None else [])

    return (Variant(name, build),)


def fill_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """A Tile of one constant."""
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    if source.data is None or source.data.size != 1:
        return ()
    name, word = "armv7em.fill", word_of_bytes(int(source.data.reshape(-1)[0]))

    def build() -> Kernel:
        frame = Frame([source], {}, output)
        with frame:
            frame.call(fill_bytes(), frame.output, word, output.size_bytes)
        return frame.kernel(name)

    return (Variant(name, build),)


def _distances(shape: tuple[int, ...]) -> list[int]:
    """From place to place along each axis, in bytes."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
