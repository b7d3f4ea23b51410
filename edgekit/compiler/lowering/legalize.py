"""One Relax call as functions in TIR: what TVM itself would compute it with.

The call is put in a module of its own, decomposed and legalised there, and read back as functions over
tensors. Calls of constants only are evaluated on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax, tirx
from tvm.ir import GlobalVar

from edgekit.artifacts import ITEM_SIZE
from edgekit.compiler.lowering.decompose import DECOMPOSITIONS
from edgekit.compiler.lowering.tir import calls_runtime, keep_output, plain
from edgekit.compiler.lowering.values import NoFloatForm

__all__ = ["Function", "Legalized", "Operand", "evaluate", "legalize"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that the call reads and that is known when the program runs."""

    position: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One result of a legalised call. `function` takes the inputs in order and then the output.

    Inputs below the number of operands are operands, those above are earlier functions, arrays are
    constants. Without a `function` it is a view: its only input in another shape.
    """

    function: Any | None
    inputs: tuple[int | NDArray[np.generic], ...]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Legalized:
    """The functions of a call in order. Results count as inputs do: operands, functions, constants."""

    functions: tuple[Function, ...]
    results: tuple[int | NDArray[np.generic], ...]
    is_tuple: bool


Argument = Any
"""An Operand, an array, a tuple of arguments, or a Relax expression that is taken as it is."""

# Legalisation differs by target only in what it calls of the runtime: plain loops are wanted.
_TARGET = {"kind": "llvm"}

_RUNTIME = "TVM computes it by calling its runtime, which no board has"

_PASSES = (
    relax.transform.DecomposeOpsForInference,
    relax.transform.CanonicalizeBindings,
    relax.transform.LegalizeOps,
    relax.transform.RewriteDataflowReshape,
)


def legalize(call: Any, arguments: Sequence[Argument], source: Any) -> Legalized:
    """Legalise one call.

    Args:
        call: the Relax call; its own arguments are not looked at.
        arguments: what stands in for them.
        source: the module that the call is from, whose functions a `call_tir` may name.

    Raises:
        NoFloatForm: TVM does not know how to compute it, or only by calling its runtime.
    """
    parameters: dict[int, Any] = {}
    expressions = [_expression(argument, parameters) for argument in arguments]
    order = [parameters[position] for position in sorted(parameters)]
    module = _lowered(call, expressions, order, source, _PASSES)
    main = module["main"]
    known: dict[Any, Any] = dict(zip(main.params, range(len(order)), strict=True))
    reader = _Reader(module, known, len(order))
    for block in main.body.blocks:
        for binding in block.bindings:
            known[binding.var] = reader.value(binding.value)
    result = reader.value(main.body.body)
    is_tuple = isinstance(result, tuple)
    results = result if isinstance(result, tuple) else (result,)
    if any(isinstance(each, tuple) for each in results):
        raise NoFloatForm("its results are tuples of tuples")
    return Legalized(tuple(reader.functions), results, is_tuple)


def evaluate(call: Any, arguments: Sequence[Argument], source: Any) -> Any:
    """The result of a call of constants: an array or a tuple of arrays.

    Raises:
        NoFloatForm: TVM does not know how to compute it.
    """
    expressions = [_expression(argument, {}) for argument in arguments]
    passes = (*_PASSES, relax.transform.FoldConstant)
    body = _lowered(call, expressions, [], source, passes)["main"].body
    known: dict[Any, Any] = {}

    def array(expression: Any) -> Any:
        if isinstance(expression, relax.Var):
            return known.get(expression)
        if isinstance(expression, relax.Tuple):
            return tuple(array(field) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            whole = array(expression.tuple_value)
            return None if whole is None else whole[expression.index]
        data: Any = getattr(expression, "value", None)
        return data.numpy() if hasattr(data, "numpy") else None

    for block in body.blocks:
        for binding in block.bindings:
            known[binding.var] = array(binding.value)
    result = array(body.body)
    if result is None or (isinstance(result, tuple) and any(each is None for each in result)):
        raise NoFloatForm("TVM cannot evaluate it for constants")
    return result


def _expression(argument: Argument, parameters: dict[int, Any]) -> Any:
    if isinstance(argument, Operand):
        if argument.position not in parameters:
            kind = relax.TensorType(argument.shape, argument.dtype)
            parameters[argument.position] = relax.Var(f"a{argument.position}", kind)
        return parameters[argument.position]
    if isinstance(argument, np.ndarray):
        # Not ascontiguousarray, which gives a number one dimension.
        return relax.const(np.asarray(argument, order="C"), str(argument.dtype))
    if isinstance(argument, tuple):
        return relax.Tuple([_expression(field, parameters) for field in argument])
    return argument


def _lowered(
    call: Any,
    expressions: Sequence[Any],
    parameters: Sequence[Any],
    source: Any,
    passes: Sequence[Any],
) -> Any:
    try:
        builder = relax.BlockBuilder()
        with builder.function("main", list(parameters)):
            with builder.dataflow():
                final = builder.emit_output(builder.emit(_in_other_words(builder, call, expressions)))
            builder.emit_func_output(final)
        module = builder.get()
        if expressions and isinstance(expressions[0], GlobalVar):
            module.update_func(expressions[0], source[expressions[0]])
        with tvm.target.Target(_TARGET), tvm.transform.PassContext(opt_level=3):
            for each in passes:
                module = each()(module)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        lines = str(error).strip().splitlines()
        raise NoFloatForm(f"TVM refuses it: {lines[-1] if lines else type(error).__name__}") from None
    return module


def _in_other_words(builder: Any, call: Any, expressions: Sequence[Any]) -> Any:
    decompose = DECOMPOSITIONS.get(str(getattr(call.op, "name", "")))
    if decompose is not None:
        return decompose(builder, call, expressions)
    return relax.Call(call.op, list(expressions), call.attrs, call.ty_args)


class _Reader:
    """Reads the bindings of a legalised function back."""

    def __init__(self, module: Any, known: dict[Any, Any], operands: int) -> None:
        self.module = module
        self.known = known
        self.operands = operands
        self.functions: list[Function] = []

    def value(self, expression: Any) -> Any:
        """An index, an array, or a tuple of them."""
        if isinstance(expression, relax.Var):
            return self.known[expression]
        if isinstance(expression, relax.Tuple):
            return tuple(self.value(field) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return self.value(expression.tuple_value)[expression.index]
        data: Any = getattr(expression, "value", None)
        if hasattr(data, "numpy"):
            return data.numpy()
        if isinstance(expression, relax.Call):
            return self._call(expression)
        raise NoFloatForm(f"TVM makes a {type(expression).__name__} of it")

    def _call(self, call: Any) -> Any:
        name = str(getattr(call.op, "name", call.op))
        if name == "relax.reshape":
            shape, dtype = _tensor_type(call)
            source = self.value(call.args[0])
            return (
                source.reshape(shape)
                if isinstance(source, np.ndarray)
                else self._add(None, (source,), shape, dtype)
            )
        if "packed" in name:
            raise NoFloatForm(_RUNTIME)
        if name != "relax.call_tir":
            raise NoFloatForm(f"TVM has no legalisation of {name.removeprefix('relax.')}")
        function = self.module[call.args[0]]
        if len(call.args) > 2 or not isinstance(function, tirx.PrimFunc) or calls_runtime(function):
            raise NoFloatForm(_RUNTIME)
        function = plain(function)
        inputs = tuple(self.value(field) for field in call.args[1].fields)
        outputs = [(_shape(buffer), str(buffer.ty.dtype)) for buffer in function.params[len(inputs) :]]
        if len(outputs) == 1:
            return self._add(function, inputs, *outputs[0])
        return tuple(
            self._add(keep_output(function, len(inputs), index), inputs, *output)
            for index, output in enumerate(outputs)
        )

    def _add(self, function: Any | None, inputs: tuple[Any, ...], shape: tuple[int, ...], dtype: str) -> int:
        if dtype not in ITEM_SIZE:
            raise NoFloatForm(f"a result of type {dtype}")
        self.functions.append(Function(function, inputs, shape, dtype))
        return self.operands + len(self.functions) - 1


def _shape(buffer: Any) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in buffer.ty.shape)
    except (TypeError, ValueError):
        raise NoFloatForm("the shape of its result depends on the input") from None


def _tensor_type(call: Any) -> tuple[tuple[int, ...], str]:
    try:
        return tuple(int(size) for size in call.ty.shape), str(call.ty.dtype)
    except (TypeError, ValueError):
        raise NoFloatForm("the shape of its result depends on the input") from None
