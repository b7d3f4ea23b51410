"""Joins float operators that follow each other element by element: conv2d+add+relu, dequantize+exp+quantize.

Which ones may be joined is decided by TVM's own analysis (`FuseOps`); tensors between them are not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import relax, te
from tvm.ir import GlobalVar

from edgekit.compiler import operators as op
from edgekit.compiler.definitions import define
from edgekit.compiler.lowering.tir import holds_float
from edgekit.compiler.program import Program, Step

__all__ = ["fuse_floats"]

TITLE_PARTS = 6
"""A longer chain is named by its first operators and how many more there are."""

_LEVEL = 2
"""FuseOps joins chains of injective operators and what follows a reduction, element by element."""


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Steps that become one function, by their positions, and that function with the tensors it reads."""

    positions: tuple[int, ...]
    function: Any
    inputs: tuple[int, ...]


def fuse_floats(program: Program) -> Program:
    """Join float steps, and the quantize and dequantize steps around them."""
    chosen = _chosen(program)
    if not any(isinstance(program.steps[position].operator, op.FloatFunction) for position in chosen):
        return program
    steps: list[Step | None] = list(program.steps)
    for group in _groups(program, chosen):
        if len(group.positions) > 1:
            for position in group.positions:
                steps[position] = None
            steps[group.positions[-1]] = _joined(program, group)
    return replace(program, steps=tuple(step for step in steps if step is not None))


def _chosen(program: Program) -> list[int]:
    """Positions of the steps that may be joined."""
    made = {
        step.output for step in program.steps if isinstance(step.operator, (op.FloatFunction, op.Dequantize))
    }
    return [
        position
        for position, step in enumerate(program.steps)
        if step.output in made or (isinstance(step.operator, op.Quantize) and step.inputs[0] in made)
    ]


def _groups(program: Program, chosen: Sequence[int]) -> list[_Group]:
    """What TVM would join; the module's parameters are the tensors that the chosen steps take from others."""
    tensors = program.tensors
    known: dict[int, Any] = {}
    parameters: list[tuple[int, Any]] = []
    builder = relax.BlockBuilder()
    # Equal functions would be kept once: the attribute tells them apart, so that each name is a step.
    functions = [
        builder.add_func(
            _function(program, program.steps[position]).with_attr("edgekit.step", position), f"s{position}"
        )
        for position in chosen
    ]
    made = {program.steps[position].output for position in chosen}
    for position in chosen:
        for index in program.steps[position].inputs:
            if index not in made and index not in known:
                known[index] = relax.Var(
                    f"p{index}", relax.TensorType(tensors[index].shape, tensors[index].dtype)
                )
                parameters.append((index, known[index]))
    with builder.function("main", [variable for _, variable in parameters]):
        with builder.dataflow():
            for variable, position in zip(functions, chosen, strict=True):
                step = program.steps[position]
                kind = relax.TensorType(tensors[step.output].shape, tensors[step.output].dtype)
                arguments = relax.Tuple([known[index] for index in step.inputs])
                known[step.output] = builder.emit(relax.call_tir(variable, arguments, kind))
            escaping = [known[index] for index in _escaping(program, chosen)]
            final = builder.emit_output(relax.Tuple(escaping))
        builder.emit_func_output(final)
    module = builder.get()
    with tvm.transform.PassContext(opt_level=3):
        grouped = relax.transform.FuseOps(_LEVEL)(relax.transform.AnnotateTIROpPattern()(module))
        fused = relax.transform.FuseTIR()(grouped)
    return _read_groups(program, [index for index, _ in parameters], grouped, fused)


def _function(program: Program, step: Step) -> Any:
    if isinstance(step.operator, op.FloatFunction):
        return step.operator.function
    inputs = [program.tensors[index] for index in step.inputs]
    definition = define(step.operator, inputs, program.tensors[step.output])
    # Relax counts in int64, and buffers must agree where functions are joined.
    return te.create_prim_func([*definition.inputs, definition.output], index_dtype_override="int64")


def _escaping(program: Program, chosen: Sequence[int]) -> list[int]:
    """Results that others read, or that are read in another shape: these must be stored."""
    inside = set(chosen)
    outputs = {program.steps[position].output for position in chosen}
    read = {program.tensors[tensor].storage for _, tensor in program.outputs}
    for position, step in enumerate(program.steps):
        for index in step.inputs:
            if position not in inside or index not in outputs:
                read.add(program.tensors[index].storage)
    # A result that nobody reads stays where it is.
    used = {index for position in chosen for index in program.steps[position].inputs}
    return [index for index in sorted(outputs) if program.tensors[index].storage in read or index not in used]


def _read_groups(program: Program, parameters: Sequence[int], grouped: Any, fused: Any) -> list[_Group]:
    before = _bindings(grouped)
    after = _bindings(fused)
    known: dict[Any, int] = dict(zip(fused["main"].params, parameters, strict=True))
    groups = []
    for first, second in zip(before, after, strict=True):
        positions = _positions(grouped, first.value)
        call = second.value
        inputs = tuple(known[argument] for argument in call.args[1].fields)
        known[second.var] = program.steps[positions[-1]].output
        groups.append(_Group(positions, fused[call.args[0]], inputs))
    return groups


def _bindings(module: Any) -> list[Any]:
    return [
        binding
        for block in module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
    ]


def _positions(module: Any, call: Any) -> tuple[int, ...]:
    """The steps behind a binding: a call of one function, or of a group of them."""
    callee = call.op if isinstance(call.op, GlobalVar) else call.args[0]
    if callee.name_hint.startswith("s") and callee.name_hint[1:].isdigit():
        return (int(callee.name_hint[1:]),)
    calls = [binding.value for block in module[callee].body.blocks for binding in block.bindings]
    return tuple(
        sorted(
            position
            for each in calls
            if isinstance(each, relax.Call)
            for position in _positions(module, each)
        )
    )


def _joined(program: Program, group: _Group) -> Step:
    members = [program.steps[position] for position in group.positions]
    floats = [step for step in members if isinstance(step.operator, op.FloatFunction)]
    leading = max(floats or members, key=lambda step: step.operator.macs(()) if floats else 0)
    operators = [step.operator for step in floats]
    operator = op.FloatFunction(
        group.function,
        _title(members),
        computes_in_float=holds_float(group.function)
        or any(each.label.startswith("float.") for each in operators),
        work=sum(each.macs(()) for each in operators),
        trained=sum(each.parameters() for each in operators),
    )
    because = next((step.float_because for step in members if step.float_because is not None), None)
    return Step(operator, group.inputs, members[-1].output, leading.place, because)


def _title(members: Sequence[Step]) -> str:
    names = [
        step.operator.title if isinstance(step.operator, op.FloatFunction) else step.operator.NAME
        for step in members
    ]
    names = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    more = len(names) - TITLE_PARTS
    return "+".join(names) if more <= 0 else "+".join([*names[:TITLE_PARTS], f"{more} more"])
