"""Sums, products and extrema of two tensors, requantisation, and tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.broadcast import Runs, runs_of
from edgekit.compiler.schedules.armv7em.byte_map import byte_map, operand_maps, requantized
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.armv7em.linear_sum import add_linear, add_linear_scalar, linear_sum
from edgekit.compiler.schedules.armv7em.lookup import look_up
from edgekit.compiler.schedules.armv7em.memory import copy_bytes
from edgekit.compiler.schedules.armv7em.pair_routines import extremum, multiply
from edgekit.compiler.schedules.armv7em.requantize import LARGEST_EXPONENT, Form
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant

__all__ = [
    "extremum_variants",
    "lookup_variants",
    "product_variants",
    "requantize_variants",
    "sum_variants",
]


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """The two operands of a step, its output, and how they meet."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    runs: Runs


def _pair(program: Program, step: Step) -> _Pair | None:
    inputs, output = tuple(program.tensors[tensor] for tensor in step.inputs), program.tensors[step.output]
    runs = runs_of(inputs, output)
    return None if runs is None else _Pair(inputs, output, runs)


def sum_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute an Add or Subtract; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Add | op.Subtract)
    pair = _pair(program, step)
    form = linear_sum(operator) if pair is not None else None
    if pair is None or form is None:
        return ()
    name = f"armv7em.{operator.NAME}_linear"
    factors = (form.first, form.second)
    routine = (add_linear_scalar if pair.runs.is_scalar else add_linear)(form.shift)

    def build() -> Kernel:
        frame = Frame(pair.inputs, {}, pair.output)
        runs = pair.runs
        with frame:
            with runs.each(frame, frame.inputs) as pointers:
                in_order = [factors[number] for number in runs.order]
                frame.call(routine, *pointers, runs.length, *in_order, form.constant)
            clamp_output(frame, operator.clamp, pair.output)
        return frame.kernel(name, overlaps=runs.overlaps())

    return (Variant(name, build),)


def product_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute a Multiply; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Multiply)
    pair = _pair(program, step)
    form: Form = "one_sided" if operator.clamp.low >= operator.output_zero_point else "two_sided"
    exponent = -operator.rescale.shift if operator.rescale.multiplier else 1
    if pair is None or not (0 if form == "one_sided" else 1) <= exponent <= LARGEST_EXPONENT:
        return ()
    half = 1 << (exponent - 1) if exponent else 0
    constant = half + operator.output_zero_point * (1 << exponent)
    zeros = [_pair_of(-operator.zero_points[number]) for number in pair.runs.order]
    parameters = np.array([*zeros, operator.rescale.multiplier, constant, exponent], np.int32)
    name = "armv7em.multiply"

    def build() -> Kernel:
        frame = Frame(pair.inputs, {"parameters": parameters}, pair.output)
        runs = pair.runs
        with frame:
            with runs.each(frame, frame.inputs) as pointers:
                routine = multiply(form, scalar=runs.is_scalar)
                frame.call(routine, *pointers, runs.length, frame.constants["parameters"])
            clamp_output(frame, operator.clamp, pair.output)
        return frame.kernel(name, overlaps=runs.overlaps())

    return (Variant(name, build),)


def _pair_of(value: int) -> int:
    """An int32 whose halves both are `value`."""
    return int(np.array([value] * 2, np.int16).view(np.int32)[0])


def extremum_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Ways to compute a Maximum or Minimum: operands of another scale are brought to the output's first."""
    operator = step.operator
    assert isinstance(operator, op.Maximum | op.Minimum)
    pair = _pair(program, step)
    if pair is None:
        return ()
    maps = operand_maps(operator)
    # A rescaled operand that is as large as the output goes there, another one into scratch.
    first = next((n for n in (0, 1) if maps[n] is not None and pair.runs.in_place[n]), None)
    name = f"armv7em.{operator.NAME}"

    def build() -> Kernel:
        constants = {key: table for each in maps if each is not None for key, table in each.constants.items()}
        frame = Frame(pair.inputs, constants, pair.output)
        runs = pair.runs
        with frame:
            pointers = list(frame.inputs)
            for number, each in enumerate(maps):
                if each is not None:
                    size = pair.inputs[number].size_bytes
                    to = frame.output if number == first else frame.scratch(size)
                    each.emit(frame, frame.inputs[number], to, size)
                    pointers[number] = to
            routine = extremum(larger=isinstance(operator, op.Maximum), scalar=runs.is_scalar)
            with runs.each(frame, pointers) as places:
                frame.call(routine, *places, runs.length)
            clamp_output(frame, operator.clamp, pair.output)
        # The other operand is read when the whole output has been written once.
        return frame.kernel(name, overlaps=runs.overlaps((0, 1) if first is None else (first,)))

    return (Variant(name, build),)


def requantize_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The way to compute a Requantize."""
    operator = step.operator
    assert isinstance(operator, op.Requantize)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    moved = operator.rescale is not None or operator.input_zero_point != operator.output_zero_point
    mapped = byte_map(
        "table",
        requantized(operator.rescale, operator.input_zero_point, operator.output_zero_point, operator.clamp),
    )
    name = "armv7em.requantize"

    def build() -> Kernel:
        frame = Frame([source], mapped.constants if moved else {}, output)
        with frame:
            with _each_run(frame, source, output) as (read, written, size):
                if moved:
                    mapped.emit(frame, read, written, size)
                else:
                    frame.call(copy_bytes(), written, read, size)
            if not moved:
                clamp_output(frame, operator.clamp, output)
        return frame.kernel(name, overlaps=[Overlap(0, 0)])

    return (Variant(name, build),)


def lookup_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The way to compute a table of int8."""
    operator = step.operator
    assert isinstance(operator, op.Lookup)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    if operator.table.dtype.itemsize != 1:
        return ()
    name = "armv7em.lookup"

    def build() -> Kernel:
        frame = Frame([source], {"table": operator.table}, output)
        with frame, _each_run(frame, source, output) as (read, written, size):
            frame.call(look_up(), read, frame.constants["table"], written, size)
        return frame.kernel(name, overlaps=[Overlap(0, 0)])

    return (Variant(name, build),)


@contextmanager
def _each_run(frame: Frame, source: Tensor, output: Tensor) -> Iterator[tuple[Any, Any, int]]:
    """Pointers to the input and output of each run, and its bytes; one run where both are one piece."""
    if source.runs is None and output.runs is None:
        yield frame.inputs[0], frame.output, output.size_bytes
        return
    width = output.shape[-1]
    with repeat(output.size_bytes // width) as index:
        read, written = index * source.pitch, index * output.pitch
        yield offset(frame.inputs[0], read), offset(frame.output, written), width
