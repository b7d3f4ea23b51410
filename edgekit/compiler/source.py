"""A model as C99 sources that build without TVM: the portable schedule, the same plan, the same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit.artifacts import CompiledModel, Model, Preference
from edgekit.compiler.codegen.c_project import Compiler, render_project
from edgekit.compiler.codegen.c_source import render_kernels
from edgekit.compiler.compile import Assembly, assemble
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.program import Program
from edgekit.compiler.schedules import portable

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["emit_model", "emit_program"]


def emit_model(model: Model, target: Target, *, prefer: Preference = "speed") -> CompiledModel:
    """The model as C99; `files` of the result are all sources. The target decides the Makefile's defaults.

    Raises:
        UnsupportedError: an operator that has no form here, or none in C99.
    """
    return emit_program(lower_model(model), target, name=model.name, prefer=prefer)


def emit_program(
    program: Program, target: Target, *, name: str, prefer: Preference = "speed"
) -> CompiledModel:
    """A lowered program as C99."""
    assembly = assemble(program, (portable.NAME,), threads=False, name=name, prefer=prefer)
    kernels = render_kernels(assembly.functions, _comments(assembly))
    compiler = Compiler(target.toolchain.prefix, target.toolchain.flags)
    draft = assembly.compiled({}, "", name=name, target=target.name)

    def files(model_hash: str) -> dict[str, bytes]:
        project = render_project(
            assembly.driver,
            assembly.weights.arrays(),
            compiler,
            model_hash,
            target=target.name,
            exact=draft.exact,
        )
        return {path: text.encode("ascii") for path, text in {**project, **kernels}.items()}

    digest = hashlib.sha256()
    for path, content in sorted(files("0" * 64).items()):
        digest.update(path.encode() + b"\0" + len(content).to_bytes(8, "little") + content)
    model_hash = digest.hexdigest()
    compiled = assembly.compiled(files(model_hash), model_hash, name=name, target=target.name)
    # Where its constants lie is the C compiler's affair: nothing is between them yet.
    return replace(compiled, weights_bytes=sum(each.nbytes for each in assembly.weights.arrays().values()))


def _comments(assembly: Assembly) -> dict[str, str]:
    """What each function is, and which operators it is for."""
    users: dict[str, list[int]] = {}
    for index, call in enumerate(assembly.driver.calls):
        for part in call.parts:
            users.setdefault(part.symbol, []).append(index)
    comments = {}
    for symbol, indices in users.items():
        first = assembly.program.tensors[assembly.program.steps[indices[0]].output]
        shape = " x ".join(str(size) for size in first.shape)
        which = "operator" if len(indices) == 1 else "operators"
        numbers = ", ".join(str(index) for index in indices)
        comments[symbol] = f"{assembly.driver.calls[indices[0]].operator} to {shape}: {which} {numbers}"
    return comments
