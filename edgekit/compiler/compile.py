"""From a Program to a CompiledModel: schedule, plan the arena, generate object code and C."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import edgekit
from edgekit.artifacts import CompiledModel, CompiledOperator, Model, Preference
from edgekit.compiler.codegen.driver import Argument, Call, Driver, Part, render_header, render_source
from edgekit.compiler.codegen.objects import (
    Lowered,
    compile_object,
    lower_function,
    same_function,
    tvm_target,
)
from edgekit.compiler.codegen.phases import MINIMUM_MACS, split_phases
from edgekit.compiler.codegen.weights import Weights
from edgekit.compiler.exactness import is_exact, requantises
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.memory import Plan, check_plan, interleave, order_steps, plan_memory, share_memory
from edgekit.compiler.program import Program, Step
from edgekit.compiler.schedules import Kernel, Request, nominal_overlaps, schedule_step
from edgekit.errors import ModelError

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["PREFIX", "Assembly", "assemble", "compile_model", "compile_program", "request_for"]

PREFIX = "edgekit_model"

NO_CHOICES: Mapping[int, str] = {}


def compile_model(
    model: Model, target: Target, *, prefer: Preference = "speed", choices: Mapping[int, str] = NO_CHOICES
) -> CompiledModel:
    """Compile a model for a target. The same model, target, preference, choices and edgekit give the same
    bytes.

    Raises:
        UnsupportedError: operators that have no form here.
    """
    return compile_program(lower_model(model), target, name=model.name, prefer=prefer, choices=choices)


def compile_program(
    program: Program,
    target: Target,
    *,
    name: str,
    prefer: Preference = "speed",
    choices: Mapping[int, str] = NO_CHOICES,
) -> CompiledModel:
    """Compile a lowered program for a target.

    Args:
        choices: names of variants (`schedules.variants`) by the id of the output tensor, where it is not
            to be the default.
    """
    threads = target.platform == "linux"
    assembly = assemble(program, target.schedules, threads=threads, name=name, prefer=prefer, choices=choices)
    options = target.compile
    llvm = tvm_target(options.mtriple, options.mcpu, options.mattr, small=prefer == "size")
    routines = [routine for kernel in assembly.kernels for routine in kernel.routines]
    object_file = compile_object(assembly.functions, llvm, routines)
    files, model_hash = _render(assembly.driver, object_file, assembly.weights)
    return assembly.compiled(files, model_hash, name=name, target=target.name)


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """A program with all that code generation needs: functions by symbol, calls, constants, the arena."""

    program: Program
    kernels: tuple[Kernel, ...]
    functions: Mapping[str, Any]
    temporaries: tuple[tuple[int, ...], ...]
    plan: Plan
    weights: Weights
    driver: Driver

    def compiled(
        self, files: Mapping[str, bytes], model_hash: str, *, name: str, target: str
    ) -> CompiledModel:
        """The artifact whose files are `files`."""
        program, plan = self.program, self.plan
        return CompiledModel(
            name=name,
            target=target,
            version=edgekit.__version__,
            model_hash=model_hash,
            files=files,
            inputs=tuple(spec for spec, _ in program.inputs),
            outputs=tuple(spec for spec, _ in program.outputs),
            operators=tuple(
                _compiled_operator(program, position, kernel, call, sizes)
                for position, (kernel, call, sizes) in enumerate(
                    zip(self.kernels, self.driver.calls, self.temporaries, strict=True)
                )
            ),
            allocations=plan.allocations,
            arena_bytes=plan.arena_bytes,
            weights_bytes=self.weights.size_bytes,
            macs=program.macs,
            parameters=program.parameters,
            exact=is_exact(program),
            requantised=requantises(program),
        )


def assemble(
    program: Program,
    schedules: Sequence[str],
    *,
    threads: bool,
    name: str,
    prefer: Preference = "speed",
    choices: Mapping[int, str] = NO_CHOICES,
) -> Assembly:
    """Schedule every step, lower it, and plan the arena.

    Args:
        schedules: names in order of preference.
        threads: whether large operators are split for several threads.

    Raises:
        ModelError: a program without operators; the lowering gives none.
    """
    if not program.steps:
        raise ModelError(f"{name} has no operators")
    program = share_memory(program)
    program = order_steps(program, [nominal_overlaps(program, step) for step in program.steps])
    program = interleave(program, nominal_overlaps)
    requests = [request_for(program, step, threads=threads, prefer=prefer) for step in program.steps]
    split = [request.threads for request in requests]
    kernels = tuple(
        schedule_step(schedules, program, step, request, choices.get(step.output))
        for step, request in zip(program.steps, requests, strict=True)
    )
    lowered = [lower_function(kernel.function) for kernel in kernels]
    workspaces = [each.temporaries for each in lowered]
    overlaps = [kernel.overlaps for kernel in kernels]
    plan = plan_memory(program, workspaces, overlaps)
    check_plan(program, plan, workspaces, overlaps)
    code = _functions_of(lowered, split, plan.shared_steps)
    weights = Weights(PREFIX)
    calls = tuple(
        _call(program, position, kernels[position], code, plan, weights)
        for position in range(len(program.steps))
    )
    driver = Driver(
        prefix=PREFIX,
        version=edgekit.__version__,
        arena_bytes=plan.arena_bytes,
        calls=calls,
        inputs=tuple((spec, plan.offset(program, tensor)) for spec, tensor in program.inputs),
        outputs=tuple((spec, plan.offset(program, tensor)) for spec, tensor in program.outputs),
    )
    return Assembly(program, kernels, code.functions, code.temporaries, plan, weights, driver)


def request_for(program: Program, step: Step, *, threads: bool, prefer: Preference) -> Request:
    """What a step's kernel is asked for; small operators stay on one of the threads."""
    split = threads and step.operator.macs(_output_shape(program, step)) >= MINIMUM_MACS
    return Request(prefer, threads=split, vectors=threads)


@dataclass(frozen=True, slots=True, eq=False)
class _Code:
    """Lowered functions by symbol, those that make up each step, and the temporaries that each takes
    (bytes).
    """

    functions: Mapping[str, Any]
    parts: tuple[tuple[Part, ...], ...]
    temporaries: tuple[tuple[int, ...], ...]


class _Functions:
    """Lowered functions by symbol; equal ones are kept once."""

    def __init__(self) -> None:
        self.by_symbol: dict[str, Any] = {}

    def add(self, function: Any) -> str:
        for symbol, known in self.by_symbol.items():
            if same_function(known, function):
                return symbol
        symbol = f"{PREFIX}_k{len(self.by_symbol)}"
        self.by_symbol[symbol] = function
        return symbol


def _output_shape(program: Program, step: Step) -> tuple[int, ...]:
    return program.tensors[step.output].shape


def _functions_of(lowered: Sequence[Lowered], threads: Sequence[bool], sharing: Collection[int]) -> _Code:
    """The functions of every step; those for `threads` are split.

    Pointers are promised to be distinct where no step of the program is in `sharing`: TVM gives all functions
    of an object what it was told of one of them.
    """
    functions = _Functions()
    parts = []
    for each, on_threads in zip(lowered, threads, strict=True):
        phases = split_phases(each) if on_threads else ()
        if phases:
            parts.append(tuple(Part(functions.add(phase.function), phase.extent) for phase in phases))
        else:
            parts.append((Part(functions.add(each.function)),))
    by_symbol = {
        symbol: function.with_attr("tirx.noalias", not sharing)
        for symbol, function in functions.by_symbol.items()
    }
    temporaries = tuple(each.temporaries for each in lowered)
    return _Code(by_symbol, tuple(parts), temporaries)


def _call(program: Program, position: int, kernel: Kernel, code: _Code, plan: Plan, weights: Weights) -> Call:
    step = program.steps[position]
    arguments = []
    for number, tensor in enumerate(program.tensors[index] for index in step.inputs):
        if tensor.data is not None:
            data = kernel.operands.get(number, tensor.data)
            arguments.append(Argument(tensor.dtype, written=False, symbol=weights.add(data)))
        else:
            arguments.append(Argument(tensor.dtype, written=False, offset=plan.offset(program, tensor.id)))
    arguments += [
        Argument(str(values.dtype), written=False, symbol=weights.add(values)) for values in kernel.constants
    ]
    output = program.tensors[step.output]
    output_offset = plan.offset(program, step.output)
    arguments.append(Argument(output.dtype, written=True, offset=output_offset))
    arguments += [
        Argument("uint8", written=True, offset=plan.workspace_offsets[position, index])
        for index in range(len(code.temporaries[position]))
    ]
    return Call(
        step.operator.label,
        code.parts[position],
        tuple(arguments),
        output_offset,
        output.size_bytes,
        output.runs,
    )


def _render(driver: Driver, object_file: bytes, weights: Weights) -> tuple[Mapping[str, bytes], str]:
    """The files, and the hash that names them.

    Over everything but the places where the hash itself stands.
    """
    binary, assembly = weights.binary(), weights.assembly("weights.bin").encode()
    unnamed = "0" * 64
    digest = hashlib.sha256()
    for part in (
        object_file,
        binary,
        assembly,
        render_source(driver, unnamed).encode(),
        render_header(driver, unnamed).encode(),
    ):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    model_hash = digest.hexdigest()
    files = {
        "kernels.o": object_file,
        "weights.bin": binary,
        "weights.S": assembly,
        "model.c": render_source(driver, model_hash).encode(),
        f"{driver.prefix}.h": render_header(driver, model_hash).encode(),
    }
    return files, model_hash


def _compiled_operator(
    program: Program, position: int, kernel: Kernel, call: Call, temporaries: Sequence[int]
) -> CompiledOperator:
    step = program.steps[position]
    output = program.tensors[step.output]
    operands = [data for data in (program.tensors[index].data for index in step.inputs) if data is not None]
    return CompiledOperator(
        id=position,
        name=output.name,
        op=step.operator.label,
        schedule=kernel.name,
        macs=step.operator.macs(output.shape),
        output_offset=call.output_offset,
        output_bytes=call.output_bytes,
        workspace_bytes=sum(temporaries),
        weights_bytes=sum(values.nbytes for values in (*kernel.constants, *operands)),
        output_shape=output.shape,
    )
