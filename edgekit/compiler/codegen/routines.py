"""Assembly routines inside TVM's object: LLVM module assembly that comes with one of its functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm import tirx
from tvm.ir import StringImm

from edgekit.compiler.schedules.kernel import Routine

__all__ = ["embed_routines"]


def embed_routines(function: Any, routines: Iterable[Routine], mtriple: str) -> Any:
    """A lowered function that brings the routines along, each once, in sections of their own.

    So the linker drops those that nothing calls.

    Raises:
        ValueError: two routines of one name differ.
    """
    unique: dict[str, Routine] = {}
    for routine in routines:
        if unique.setdefault(routine.name, routine) != routine:
            raise ValueError(f"two routines are called {routine.name} and are not the same code")
    if not unique:
        return function
    lines = [f'target triple = "{mtriple}"']
    for routine in unique.values():
        lines += (f'module asm "{_escaped(line)}"' for line in _section(routine))
    # Code goes on in the section that LLVM expects.
    lines.append('module asm ".text"')
    body = tirx.AttrStmt(
        tirx.const(0, "int32"), "pragma_import_llvm", StringImm("\n".join(lines) + "\n"), function.body
    )
    embedded = tirx.PrimFunc(function.params, body)
    for key, value in dict(function.attrs).items():
        embedded = embedded.with_attr(key, value)
    return embedded


def _section(routine: Routine) -> list[str]:
    name = routine.name
    return [
        f'.section .text.{name}, "ax", %progbits',
        ".p2align 2",
        f".global {name}",
        f".hidden {name}",
        f".type {name}, %function",
        f"{name}:",
        *routine.text.splitlines(),
        f".size {name}, . - {name}",
    ]


def _escaped(line: str) -> str:
    return line.replace("\\", "\\5C").replace('"', "\\22")
