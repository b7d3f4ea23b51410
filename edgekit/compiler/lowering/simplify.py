"""Rewrites of the integer program that change no answer: fewer steps, less movement.

Each rewrite is a function from program to program; they run in the order of `_REWRITES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.lowering.fuse import fuse_floats
from edgekit.compiler.lowering.pads import fold_pads
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.tables import fixed_product, fixed_requantize

__all__ = ["simplify"]


def simplify(program: Program) -> Program:
    for rewrite in _REWRITES:
        program = rewrite(program)
    return program


def _readers(program: Program) -> dict[int, list[int]]:
    """Positions of the steps that read each storage; an output of the program counts as position −1."""
    readers: dict[int, list[int]] = {}
    for position, step in enumerate(program.steps):
        for tensor in step.inputs:
            readers.setdefault(program.tensors[tensor].storage, []).append(position)
    for _, tensor in program.outputs:
        readers.setdefault(program.tensors[tensor].storage, []).append(-1)
    return readers


def _producers(program: Program) -> dict[int, int]:
    return {program.tensors[step.output].storage: position for position, step in enumerate(program.steps)}


def _with_steps(program: Program, steps: Iterable[Step | None]) -> Program:
    return replace(program, steps=tuple(step for step in steps if step is not None))


def _merge_clamps(program: Program) -> Program:
    """A pure clamp of a result that nothing else reads becomes the clamp of the operator that made it."""
    steps: list[Step | None] = list(program.steps)
    readers, producers = _readers(program), _producers(program)
    for position, step in enumerate(program.steps):
        operator = step.operator
        if not isinstance(operator, op.Requantize) or operator.rescale is not None:
            continue
        if operator.input_zero_point != operator.output_zero_point:
            continue
        source = program.tensors[step.inputs[0]]
        before = producers.get(source.storage)
        maker = None if before is None else steps[before]
        if before is None or maker is None or readers[source.storage] != [position]:
            continue
        clamp = getattr(maker.operator, "clamp", None)
        output = program.tensors[step.output]
        if (
            clamp is None
            or output.dtype != program.tensors[maker.output].dtype
            or program.tensors[maker.output].shape != output.shape
        ):
            continue
        merged = replace(maker.operator, clamp=clamp.intersect(operator.clamp.low, operator.clamp.high))  # type: ignore[call-arg]
        steps[before] = replace(maker, operator=merged, output=step.output)
        steps[position] = None
        producers[output.storage] = before
    return _with_steps(program, steps)


def _fill_constants(program: Program) -> Program:
    """What a clamp to a single value leaves is that value: nothing is computed for it."""
    steps: list[Step | None] = list(program.steps)
    tensors = list(program.tensors)
    for position, step in enumerate(program.steps):
        clamp = getattr(step.operator, "clamp", None)
        output = tensors[step.output]
        if clamp is None or clamp.low != clamp.high or output.dtype != "int8" or not output.shape:
            continue
        shape = (1,) * len(output.shape)
        value = np.full(shape, clamp.low, np.int8)
        constant = Tensor(len(tensors), output.name, shape, output.dtype, None, len(tensors), value)
        tensors.append(constant)
        steps[position] = replace(step, operator=op.Tile(), inputs=(constant.id,))
    return _drop_unread(_with_steps(replace(program, tensors=tuple(tensors)), steps))


def _fold_gates(program: Program) -> Program:
    """A tensor times a table of itself, x · sigmoid(x), is one table: the product of each stored value."""
    steps: list[Step | None] = list(program.steps)
    producers = _producers(program)
    for position, step in enumerate(program.steps):
        operator = step.operator
        if not isinstance(operator, op.Multiply):
            continue
        operands = [_looked_up(program, producers, tensor) for tensor in step.inputs]
        tensors = {program.tensors[tensor].storage for tensor, _ in operands}
        shapes = {program.tensors[tensor].shape for tensor in (*step.inputs, step.output)}
        shapes |= {program.tensors[tensor].shape for tensor, _ in operands}
        dtypes = {program.tensors[tensor].dtype for tensor in (*step.inputs, step.output)}
        if len(tensors) == len(shapes) == 1 and dtypes == {"int8"}:
            table = fixed_product(operator, operands[0][1], operands[1][1])
            steps[position] = replace(step, operator=op.Lookup(table), inputs=(operands[0][0],))
    return _drop_unread(_with_steps(program, steps))


def _looked_up(program: Program, producers: dict[int, int], tensor: int) -> tuple[int, NDArray[np.int8]]:
    """The tensor that one is a table of, and that table; the tensor itself where it is none."""
    before = producers.get(program.tensors[tensor].storage)
    maker = None if before is None else program.steps[before]
    table = _table(program, maker) if maker is not None and isinstance(maker.operator, op.Lookup) else None
    if maker is None or table is None:
        return tensor, np.arange(-128, 128).astype(np.int8)
    return maker.inputs[0], table


def _merge_tables(program: Program) -> Program:
    """Tables and changes of scale in a row, whose results nothing else reads, are one table."""
    steps: list[Step | None] = list(program.steps)
    readers, producers = _readers(program), _producers(program)
    for position, step in enumerate(program.steps):
        if not step.inputs:
            continue
        storage = program.tensors[step.inputs[0]].storage
        before = producers.get(storage)
        maker = None if before is None else steps[before]
        if before is None or maker is None or readers[storage] != [position]:
            continue
        # Two changes of scale stay what they are: they need no memory.
        if not any(isinstance(each.operator, op.Lookup) for each in (maker, step)):
            continue
        first, second = _table(program, maker), _table(program, step)
        same = program.tensors[maker.output].shape == program.tensors[step.inputs[0]].shape
        if first is None or second is None or not same:
            continue
        table = op.Lookup(second[first.astype(np.int64) + 128])
        steps[position] = replace(step, operator=table, inputs=maker.inputs)
        steps[before] = None
    return _with_steps(program, steps)


def _table(program: Program, step: Step) -> NDArray[np.int8] | None:
    """What an operator of one int8 tensor stores for each of its 256 values."""
    if {program.tensors[tensor].dtype for tensor in (*step.inputs, step.output)} != {"int8"}:
        return None
    operator = step.operator
    if isinstance(operator, op.Lookup):
        return operator.table.astype(np.int8)
    if isinstance(operator, op.Requantize):
        return fixed_requantize(operator)
    return None


def _absorb_transposes(program: Program) -> Program:
    """A transposition that only a dense layer reads becomes an order of that layer's weights."""
    steps: list[Step | None] = list(program.steps)
    tensors = list(program.tensors)
    readers, producers = _readers(program), _producers(program)
    for position, step in enumerate(program.steps):
        dense = step.operator
        if not isinstance(dense, op.Dense):
            continue
        storage = tensors[step.inputs[0]].storage
        before = producers.get(storage)
        maker = None if before is None else steps[before]
        if before is None or maker is None or not isinstance(maker.operator, op.Transpose):
            continue
        if readers[storage] != [position]:
            continue
        source = tensors[maker.inputs[0]]
        columns = dense.weights.shape[1]
        rows = source.size_bytes // columns
        axes = maker.operator.axes
        moved = np.arange(source.size_bytes).reshape(source.shape).transpose(axes).reshape(rows, columns)
        if any((moved[row] // columns != row).any() for row in range(rows)):
            continue  # the transposition moves values between rows
        weights = np.empty_like(dense.weights)
        weights[:, moved[0]] = dense.weights
        if any((moved[row] - row * columns != moved[0]).any() for row in range(rows)):
            continue
        flat = replace(source, id=len(tensors), shape=tensors[step.inputs[0]].shape)
        tensors.append(flat)
        steps[position] = replace(step, operator=replace(dense, weights=weights), inputs=(flat.id,))
        steps[before] = None
    return _with_steps(replace(program, tensors=tuple(tensors)), steps)


def _pad_last(program: Program) -> Program:
    """A transposition of what was padded, where nothing else reads that, comes before the padding.

    It moves less then, and the operator behind may pad by itself.
    """
    steps: list[Step | None] = list(program.steps)
    tensors = list(program.tensors)
    readers, producers = _readers(program), _producers(program)
    for position, step in enumerate(program.steps):
        transpose = step.operator
        if not isinstance(transpose, op.Transpose):
            continue
        padded = tensors[step.inputs[0]]
        before = producers.get(padded.storage)
        maker = None if before is None else steps[before]
        if before is None or maker is None or not isinstance(maker.operator, op.Pad):
            continue
        if readers[padded.storage] != [position] or tensors[maker.output].shape != padded.shape:
            continue
        source, axes, pad = tensors[maker.inputs[0]], transpose.axes, maker.operator
        moved = Tensor(
            len(tensors),
            source.name,
            tuple(source.shape[axis] for axis in axes),
            source.dtype,
            source.quantization,
            len(tensors),
        )
        tensors.append(moved)
        border = replace(
            pad,
            before=tuple(pad.before[axis] for axis in axes),
            after=tuple(pad.after[axis] for axis in axes),
        )
        steps[before] = replace(step, inputs=maker.inputs, output=moved.id)
        steps[position] = replace(maker, operator=border, inputs=(moved.id,), output=step.output)
    return _with_steps(replace(program, tensors=tuple(tensors)), steps)


def _drop_unread(program: Program) -> Program:
    """Steps whose result nobody reads."""
    needed = {program.tensors[tensor].storage for _, tensor in program.outputs}
    kept: list[Step] = []
    for step in reversed(program.steps):
        if program.tensors[step.output].storage in needed:
            kept.append(step)
            needed.update(program.tensors[tensor].storage for tensor in step.inputs)
    return _with_steps(program, reversed(kept))


# Unread steps go first, so that they do not count as readers; a gate no longer reads its tensor twice when
# tables are merged; folding pads needs clamps already merged;
# float steps are joined when there are no more of them than needed.
_REWRITES: tuple[Callable[[Program], Program], ...] = (
    _drop_unread,
    _merge_clamps,
    _fill_constants,
    _fold_gates,
    _merge_tables,
    _absorb_transposes,
    _pad_last,
    fold_pads,
    fuse_floats,
)
