"""What runs in float: operators without an integer form, between dequantize and quantize in one program.

Every value has a float form, a tensor in the source's own (logical) order: dequantised int8, a constant, or
the result of the float operator that stands for a pending one. Integers and booleans that are no quantised
reals (indices, masks) are tensors of their own type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.artifacts import ITEM_SIZE, Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import ProgramBuilder, identity_order
from edgekit.compiler.lowering.legalize import Function, Legalized, Operand, evaluate, legalize
from edgekit.compiler.lowering.rules import UINT8_OFFSET, Site
from edgekit.compiler.lowering.rules.tables import as_float
from edgekit.compiler.lowering.tir import holds_float, multiply_accumulates
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    NoFloatForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tabulated,
    Tuple,
    Value,
)

__all__ = ["FloatOperators", "raw_value"]


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """The call that made a pending value, and which of its results that is (None: the only one)."""

    value: Pending
    site: Site
    args: tuple[Value, ...]
    field: int | None


class FloatOperators:
    """Emits float operators into a program under construction."""

    def __init__(self, builder: ProgramBuilder, module: Any) -> None:
        self._builder = builder
        self._module = module
        self._origins: dict[int, _Origin] = {}
        self._tensors: dict[object, int] = {}
        self._applied: dict[int, Value] = {}

    def remember(self, value: Value, site: Site, args: Sequence[Value]) -> None:
        """Keep the call behind a pending value: its float form is made of it, should it be wanted."""
        fields = value.fields if isinstance(value, Tuple) else (value,)
        for position, field in enumerate(fields):
            if isinstance(field, Pending) and id(field) not in self._origins:
                place = position if isinstance(value, Tuple) else None
                self._origins[id(field)] = _Origin(field, site, tuple(args), place)

    def apply(self, site: Site, args: Sequence[Value], because: str) -> Value:
        """The result of the call as float operators.

        Raises:
            NoFloatForm: it cannot be computed in float either.
        """
        if _op_name(site) in _VIEWS:
            source = self.float_of(args[0], because)
            return raw_value(self._builder, self._builder.view(source, site.shape))
        operands: list[int] = []
        arguments = [
            self._argument(expression, value, operands, because)
            for expression, value in zip(site.call.args, args, strict=True)
        ]
        if not operands:
            return _constant_value(evaluate(site.call, arguments, self._module))
        legalized = legalize(site.call, arguments, self._module)
        made = self._emit(site, legalized, operands, because)
        fields = tuple(
            Constant(result) if isinstance(result, np.ndarray) else raw_value(self._builder, made[result])
            for result in legalized.results
        )
        return Tuple(fields) if legalized.is_tuple else fields[0]

    def float_of(self, value: Value, because: str) -> int:
        """The tensor that holds `value` as it is computed with, in logical order.

        Raises:
            NoFloatForm: there is none.
        """
        if isinstance(value, Float):
            return value.tensor
        if isinstance(value, Stored):
            return self._stored(value)
        if isinstance(value, Real):
            return self._real(value, because)
        if isinstance(value, Pending):
            return self._pending(value, because)
        if isinstance(value, Tabulated):
            if value not in self._tensors:
                self._tensors[value] = as_float(self._builder, value, because)
            return self._tensors[value]
        if isinstance(value, (Constant, QuantizedConstant)):
            return self._constant(_array(value), "constant")
        raise NoFloatForm("one of its operands is no tensor")

    # --- operands -------------------------------------------------------------------------------------------

    def _argument(self, expression: Any, value: Value, operands: list[int], because: str) -> Any:
        """What legalisation takes for an argument; tensors of the program are added to `operands`."""
        if isinstance(value, Tuple):
            if not value.fields:
                return expression
            # Of a tuple that the call names itself the fields may be numbers, which are no values.
            inner = getattr(expression, "fields", None) or [None] * len(value.fields)
            return tuple(
                self._argument(part, field, operands, because)
                for part, field in zip(inner, value.fields, strict=True)
            )
        if isinstance(value, (Constant, QuantizedConstant)):
            return _array(value)
        index = self.float_of(value, because)
        tensor = self._builder.tensors[index]
        if tensor.data is not None:
            return tensor.data
        if index not in operands:
            operands.append(index)
        return Operand(operands.index(index), tensor.shape, tensor.dtype)

    def _stored(self, value: Stored) -> int:
        builder = self._builder
        index = builder.in_order(value.tensor, value.order, identity_order(len(value.order)), None)
        if value.offset == 0:
            return index
        key = ("uint8", index)
        if key not in self._tensors:
            tensor = builder.tensors[index]
            shift = op.Requantize(0, UINT8_OFFSET, None, op.Clamp(0, 255))
            self._tensors[key] = builder.step(shift, (index,), None, tensor.name, tensor.shape, None, "uint8")
        return self._tensors[key]

    def _real(self, value: Real, because: str) -> int:
        builder = self._builder
        index = builder.in_order(value.tensor, value.order, identity_order(len(value.order)), None)
        tensor, quantization = builder.tensors[index], value.quantization
        if tensor.data is not None:
            return self._constant(_reals(tensor.data, quantization), tensor.name)
        key = ("float32", index, quantization)
        if key not in self._tensors:
            operator = op.Dequantize(quantization.scale, quantization.zero_point)
            self._tensors[key] = builder.step(
                operator, (index,), None, tensor.name, tensor.shape, None, "float32", float_because=because
            )
        return self._tensors[key]

    def _pending(self, value: Pending, because: str) -> int:
        origin = self._origins.get(id(value))
        if origin is None:
            raise NoFloatForm("it takes the unquantised result of an operator in two parts")
        whole = self._applied.get(id(origin.site.call))
        if whole is None:
            whole = self.apply(origin.site, origin.args, because)
            self._applied[id(origin.site.call)] = whole
        if origin.field is not None and isinstance(whole, Tuple):
            whole = whole.fields[origin.field]
        return self.float_of(whole, because)

    def _constant(self, array: NDArray[np.generic], name: str) -> int:
        dtype = str(array.dtype)
        if dtype not in ITEM_SIZE:
            raise NoFloatForm(f"a constant of type {dtype}")
        return self._builder.tensor(name, array.shape, dtype, None, data=array)

    # --- results --------------------------------------------------------------------------------------------

    def _emit(self, site: Site, legalized: Legalized, operands: Sequence[int], because: str) -> list[int]:
        """Tensors of the operands and then of the functions, whose steps are added."""
        made = list(operands)
        for function in legalized.functions:
            inputs = tuple(
                self._constant(each, f"{site.name}_constant") if isinstance(each, np.ndarray) else made[each]
                for each in function.inputs
            )
            made.append(self._emit_function(site, function, inputs, because))
        return made

    def _emit_function(self, site: Site, function: Function, inputs: tuple[int, ...], because: str) -> int:
        builder = self._builder
        if function.function is None:
            return builder.view(inputs[0], function.shape)
        operator = op.FloatFunction(
            function.function,
            _title(site),
            computes_in_float=holds_float(function.function),
            work=multiply_accumulates(function.function),
            trained=sum(_trained(builder.tensors[index].data) for index in inputs),
        )
        return builder.step(
            operator,
            inputs,
            site.place,
            site.name,
            function.shape,
            None,
            function.dtype,
            float_because=because,
        )


def raw_value(builder: ProgramBuilder, index: int) -> Value:
    """A tensor in logical order as a value; one of 8 or 16 bits may hold quantised reals."""
    tensor = builder.tensors[index]
    order = identity_order(len(tensor.shape))
    if tensor.dtype in ("int8", "int16"):
        return Stored(index, order)
    if tensor.dtype == "uint8":
        shift = op.Requantize(UINT8_OFFSET, 0, None, op.FullRange)
        signed = builder.step(shift, (index,), None, tensor.name, tensor.shape, None)
        return Stored(signed, order, UINT8_OFFSET)
    return Float(index)


_VIEWS = frozenset({
    "relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.nn.batch_flatten",
})  # fmt: skip


def _op_name(site: Site) -> str:
    return str(getattr(site.call.op, "name", "function"))


def _title(site: Site) -> str:
    name = _op_name(site)
    if name == "relax.call_tir":
        name = str(site.call.args[0].name_hint)
    return name.rpartition(".")[2]


def _trained(data: NDArray[np.generic] | None) -> int:
    return int(data.size) if data is not None and data.dtype == np.float32 else 0


def _reals(stored: NDArray[np.generic], quantization: Quantization) -> NDArray[np.generic]:
    steps = stored.astype(np.int64) - quantization.zero_point
    return np.asarray(steps * np.float64(np.float32(quantization.scale)), np.float32)


def _array(value: Constant | QuantizedConstant) -> NDArray[np.generic]:
    if isinstance(value, QuantizedConstant):
        return np.asarray(value.reals(), np.float32)
    return value.array


def _constant_value(result: Any) -> Value:
    if isinstance(result, tuple):
        return Tuple(tuple(Constant(np.asarray(each)) for each in result))
    return Constant(np.asarray(result))
