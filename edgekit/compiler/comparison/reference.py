"""What the tensors of a quantised model mean in real numbers: the same graph computed in float32.

Two references exist. A float source model is the better one: its tensors are found by their names in the
source file. Where there is none (a file that was quantised elsewhere), the QDQ graph itself is computed with
its activations left unrounded; its weights are then the dequantised ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from edgekit.artifacts import Model

__all__ = ["FloatGraph", "Unrounded", "absorbed_activation", "bindings_of", "operator_of", "unrounded"]

Array = NDArray[Any]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MOVEMENTS = frozenset(
    f"relax.{name}"
    for name in ("reshape", "permute_dims", "flatten", "squeeze", "expand_dims", "concat", "strided_slice")
)
"""What gives the same on reals as on the integers that stand for them."""


def operator_of(value: Any) -> str:
    return str(getattr(getattr(value, "op", None), "name", type(value).__name__))


def bindings_of(module: Any) -> Iterator[Any]:
    for block in module["main"].body.blocks:
        yield from block.bindings


@dataclass(frozen=True, slots=True)
class Unrounded:
    """A module without the rounding of its activations."""

    module: Any
    names: Mapping[str, str]
    """A variable of the model to the variable that has its value in reals."""
    origins: Mapping[str, str]
    """A quantised variable of the model to the variable that was quantised."""


def unrounded(model: Model) -> Unrounded:
    """The module without the rounding of its activations.

    A quantize followed by dequantize (movements of data in between or not) becomes nothing. Constants keep
    their dequantize, so that the weights are those of the quantised model.
    """
    function = model.module["main"]
    builder = relax.BlockBuilder()
    parameters = [relax.Var(each.name, each.ty) for each in function.params]
    known: dict[Any, Any] = dict(zip(function.params, parameters, strict=True))
    real: dict[Any, Any] = {}
    names: dict[str, str] = {}
    origins: dict[str, str] = {}

    def replaced(expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return known.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([replaced(each) for each in expression.fields])
        return expression

    with builder.function("main", parameters):
        with builder.dataflow():
            last: Any = None
            for binding in bindings_of(model.module):
                value, variable = binding.value, binding.var
                operator = operator_of(value)
                arguments = list(getattr(value, "args", ()))
                if operator == "relax.quantize" and isinstance(arguments[0], relax.Var):
                    exact = known.get(arguments[0], arguments[0])
                    bounds = _absorbed_by(value)
                    if math.isfinite(bounds[0]):
                        exact = builder.emit(relax.op.clip(exact, bounds[0], min(bounds[1], _FLOAT32_MAX)))
                    real[variable] = exact
                    origins[variable.name] = arguments[0].name
                elif operator == "relax.dequantize" and arguments[0] in real:
                    known[variable] = real[arguments[0]]
                    names[variable.name] = real[arguments[0]].name
                    origins[variable.name] = origins.get(arguments[0].name, variable.name)
                    continue
                elif operator in _MOVEMENTS and isinstance(value, relax.Call) and _all_real(arguments, real):
                    moved = [_as_real(argument, real) for argument in arguments]
                    real[variable] = builder.emit(relax.Call(value.op, moved, value.attrs, value.ty_args))
                if isinstance(value, relax.Call):
                    new = relax.Call(
                        value.op, [replaced(each) for each in arguments], value.attrs, value.ty_args
                    )
                elif isinstance(value, relax.TupleGetItem):
                    new = relax.TupleGetItem(replaced(value.tuple_value), value.index)
                else:
                    new = replaced(value)
                last = known[variable] = builder.emit(new)
                names[variable.name] = real[variable].name if variable in real else last.name
            output = builder.emit_output(last)
        builder.emit_func_output(output)
    return Unrounded(builder.get(), names, origins)


def absorbed_activation(scale: float, zero_point: int, lowest: int, highest: int) -> tuple[float, float]:
    """The real bounds of the activation that a quantiser folded into a range; infinite where it did not.

    A range that begins at 0 is a ReLU's, one of 0 to 6 a ReLU6's: files leave these operators out.
    """
    if zero_point != lowest:
        return -math.inf, math.inf
    high = scale * (highest - lowest)
    return 0.0, 6.0 if math.isclose(high, 6.0, rel_tol=0.01) else math.inf


def _absorbed_by(quantize: Any) -> tuple[float, float]:
    dtype = str(quantize.attrs.out_dtype)
    constants = [each.value.numpy() for each in quantize.args[1:3] if hasattr(each, "value")]
    if [each.size for each in constants] != [1, 1]:
        return -math.inf, math.inf
    scale, zero_point = (float(each.reshape(())) for each in constants)
    limits = np.iinfo(dtype)
    return absorbed_activation(scale, int(zero_point), int(limits.min), int(limits.max))


def _all_real(arguments: Sequence[Any], real: Mapping[Any, Any]) -> bool:
    first = arguments[0]
    if isinstance(first, relax.Tuple):
        return all(isinstance(each, relax.Var) and each in real for each in first.fields)
    return isinstance(first, relax.Var) and first in real


def _as_real(argument: Any, real: Mapping[Any, Any]) -> Any:
    if isinstance(argument, relax.Tuple):
        return relax.Tuple([_as_real(each, real) for each in argument.fields])
    return real[argument] if isinstance(argument, relax.Var) and argument in real else argument


def _elements(variable: Any) -> int | None:
    """How many values a variable has; None for tuples and where that is not known."""
    shape = getattr(variable.ty, "shape", None)
    try:
        return None if shape is None else math.prod(int(size) for size in shape)
    except (TypeError, ValueError):
        return None


class FloatGraph:
    """A Relax function compiled for this machine, which gives the values of chosen variables."""

    def __init__(self, module: Any, wanted: Sequence[str]) -> None:
        function = module["main"]
        builder = relax.BlockBuilder()
        parameters = list(function.params)
        by_name = {binding.var.name: binding.var for binding in bindings_of(module)}
        by_name |= {each.name: each for each in parameters}
        known_names = [name for name in dict.fromkeys(wanted) if name in by_name]
        self.sizes = {name: size for name in known_names if (size := _elements(by_name[name])) is not None}
        self.names = tuple(self.sizes)
        """Of the wanted variables, those that are one tensor."""
        self.input_types = [str(each.ty.dtype) for each in parameters]
        known: dict[Any, Any] = {}

        def replaced(expression: Any) -> Any:
            if isinstance(expression, relax.Var):
                return known.get(expression, expression)
            if isinstance(expression, relax.Tuple):
                return relax.Tuple([replaced(each) for each in expression.fields])
            return expression

        with builder.function("main", parameters):
            with builder.dataflow():
                for binding in bindings_of(module):
                    value = binding.value
                    if isinstance(value, relax.Call):
                        arguments = [replaced(each) for each in value.args]
                        value = relax.Call(value.op, arguments, value.attrs, value.ty_args)
                    elif isinstance(value, relax.TupleGetItem):
                        value = relax.TupleGetItem(replaced(value.tuple_value), value.index)
                    else:
                        value = replaced(value)
                    known[binding.var] = builder.emit(value)
                outputs = [replaced(by_name[name]) for name in self.names]
                output = builder.emit_output(relax.Tuple(outputs))
            builder.emit_func_output(output)
        with tvm.transform.PassContext(opt_level=2):
            executable = tvm.compile(builder.get(), target="llvm")
        self._machine: Any = relax.VirtualMachine(executable, tvm.cpu())

    def run(self, inputs: Sequence[Array]) -> Mapping[str, Array]:
        """The values of the wanted variables for one row."""
        answers = self._machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(each)) for each in inputs))
        return {name: answers[index].numpy() for index, name in enumerate(self.names)}
