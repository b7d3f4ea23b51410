"""Build the imported Relax function, and know which source operator each of its variables comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import tvm
from tvm import relax

from edgekit.artifacts import Place

__all__ = ["build_main", "record_places"]


def build_main(
    builder: relax.BlockBuilder, parameters: Sequence[relax.Var], body: Callable[[], relax.Expr]
) -> tvm.IRModule:
    """A module whose `main` takes the parameters and returns what `body` emits into the builder.

    An error of `body` is raised once the builder's scopes are closed: TVM prints a warning for each that is
    left open by an exception.
    """
    failure: Exception | None = None
    with builder.function("main", list(parameters)):
        with builder.dataflow():
            try:
                result = body()
            except Exception as error:
                failure, result = error, parameters[0]
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    module = builder.get()
    if failure is not None:
        raise failure
    return module


def _variables(value: relax.Expr) -> Iterator[str]:
    """Names of the variables that a bound expression reads. The block builder nests nothing but tuples."""
    if isinstance(value, relax.Var):
        yield value.name
    elif isinstance(value, relax.Tuple):
        for field in value.fields:
            yield from _variables(field)
    elif isinstance(value, relax.TupleGetItem):
        yield from _variables(value.tuple_value)
    elif isinstance(value, tvm.ir.Call):
        for argument in value.args:
            yield from _variables(argument)


def record_places(module: tvm.IRModule, written: Sequence[tuple[relax.Var, Place]]) -> dict[str, Place]:
    """Variable name → place, for every variable of `main` that leads to an operator of the source.

    Args:
        module: The module as the block builder gave it.
        written: For each source operator, the variable of its output.

    A variable that no operator wrote itself (a dequantised weight, a step on the way) belongs to the first
    operator that reads it; the copy that makes an output belongs to the operator it copies.
    """
    parameters = {parameter.name for parameter in module["main"].params}
    own = {variable.name: place for variable, place in written}
    places = dict(own)
    bindings = [binding for block in module["main"].body.blocks for binding in block.bindings]
    for binding in reversed(bindings):
        place = places.get(binding.var.name)
        if place is None:
            continue
        for name in _variables(binding.value):
            if name not in own and name not in parameters:
                places[name] = place
    for binding in bindings:
        if isinstance(binding.value, relax.Var) and binding.value.name in places:
            places[binding.var.name] = places[binding.value.name]
    return places
