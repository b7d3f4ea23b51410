"""The lowering: a Relax module in QDQ form becomes a Program of integer operators, and float ones in between.

The graph is walked once, in order. Every Relax variable gets a `Value` (what is known of it) from the rule of
the operator that makes it; integer operators are emitted when the quantize that fixes their output scale is
met. What has no integer form is computed in float32 (`floating`). What TVM cannot compute at all is collected
and reported together, with its place in the source file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tvm import relax

from edgekit.artifacts import ITEM_SIZE, Model, Place, Quantization, TensorSpec
from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import ProgramBuilder, identity_order
from edgekit.compiler.lowering.copies import with_copies
from edgekit.compiler.lowering.floating import FloatOperators, raw_value
from edgekit.compiler.lowering.rules import RULES, UINT8_OFFSET, Site
from edgekit.compiler.lowering.simplify import simplify
from edgekit.compiler.lowering.values import (
    Constant,
    Float,
    NoFloatForm,
    NoIntegerForm,
    Pending,
    QuantizedConstant,
    Real,
    Stored,
    Tabulated,
    Tuple,
    Unknown,
    Value,
)
from edgekit.compiler.program import Program
from edgekit.errors import ModelError, UnsupportedError

__all__ = ["Refusal", "Trace", "lower_model", "lower_partly", "lower_traced"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An operator that can be computed neither in integers nor in float as it is used here, and why."""

    relax_op: str
    place: Place | None
    reason: str

    def __str__(self) -> str:
        if self.place is None:
            return f"{self.relax_op.removeprefix('relax.')}: {self.reason}"
        return f"{self.place.op} #{self.place.index} '{self.place.name}': {self.reason}"


def lower_model(model: Model) -> Program:
    """Lower a QDQ or float model: to integers where there is an integer form, else to float32.

    Raises:
        UnsupportedError: operators that have neither form, all of them named.
        ModelError: inputs or outputs that make no sense.
    """
    program, refusals = lower_partly(model)
    if refusals:
        unique = list(dict.fromkeys(map(str, refusals)))
        listing = "\n  ".join(unique)
        raise UnsupportedError(
            f"{model.name} has operators that cannot be compiled ({len(unique)}):\n  {listing}",
            hint="edgekit analyze MODEL shows every operator; replace the ones named here",
        )
    return program


def lower_partly(model: Model) -> tuple[Program, tuple[Refusal, ...]]:
    """Lower what can be lowered, for `edgekit analyze`: the program so far and what was refused."""
    return _Lowering(model).run()


@dataclass(frozen=True, slots=True)
class Trace:
    """Which variable of the Relax module a tensor of the program holds, in which order of axes."""

    variable: str
    tensor: int
    order: tuple[int, ...] | None
    """Physical axis i is logical axis order[i]; None for tensors in the source's own layout."""


def lower_traced(model: Model) -> tuple[Program, tuple[Trace, ...]]:
    """The program, and what its tensors stand for; for comparing it with the model in float.

    Raises:
        UnsupportedError: an operator cannot be compiled.
    """
    lowering = _Lowering(model)
    program, refusals = lowering.run()
    if refusals:
        raise UnsupportedError(
            f"{model.name} has operators that cannot be compiled", hint="edgekit analyze MODEL lists them"
        )
    traces = [
        Trace(variable.name, value.tensor, None if isinstance(value, Float) else value.order)
        for variable, value in lowering.values.items()
        if isinstance(value, (Real, Stored, Float))
    ]
    return program, tuple(traces)


class _Lowering:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.function: Any = model.module["main"]
        self.builder = ProgramBuilder()
        self.floats = FloatOperators(self.builder, model.module)
        self.values: dict[Any, Value] = {}
        self.refusals: list[Refusal] = []
        self.inputs: list[tuple[TensorSpec, int]] = []

    def run(self) -> tuple[Program, tuple[Refusal, ...]]:
        self._declare_inputs()
        for binding in _bindings(self.function):
            self.values[binding.var] = self._value_of_binding(binding)
        outputs = self._outputs()
        inputs = tuple((self._input_spec(spec, tensor), tensor) for spec, tensor in self.inputs)
        program = Program(tuple(self.builder.tensors), tuple(self.builder.steps), inputs, tuple(outputs))
        return (program if self.refusals else with_copies(simplify(program))), tuple(self.refusals)

    # --- inputs and outputs ---------------------------------------------------------------------------------

    def _declare_inputs(self) -> None:
        for name, parameter in zip(self.model.input_names, self.function.params, strict=True):
            shape, dtype = _static_type(parameter, name)
            quantization = self._boundary_quantization(parameter) if dtype == "float32" else None
            if quantization is not None:
                # The quantize at the boundary is the host's work: the program takes integers.
                scale, zero_point, source_dtype = quantization
                offset = UINT8_OFFSET if source_dtype == "uint8" else 0
                stored = Quantization(scale, zero_point - offset)
                tensor = self.builder.tensor(name, shape, "int8", stored)
                spec = TensorSpec(name, shape, "int8", stored)
                self.values[parameter] = Real(tensor, identity_order(len(shape)), stored)
            else:
                tensor = self.builder.tensor(name, shape, dtype, None)
                spec = TensorSpec(name, shape, dtype)
                self.values[parameter] = self._input_value(parameter, tensor, dtype)
            self.inputs.append((spec, tensor))

    def _input_value(self, parameter: Any, tensor: int, dtype: str) -> Value:
        if dtype in ITEM_SIZE:
            return raw_value(self.builder, tensor)
        self.refusals.append(Refusal("input", Place("input", parameter.name, 0), f"an input of type {dtype}"))
        return Unknown()

    def _input_spec(self, spec: TensorSpec, tensor: int) -> TensorSpec:
        """The spec with the quantisation that the first dequantize of the input stated."""
        if spec.quantization is not None:
            return spec
        quantization = self.builder.tensors[tensor].quantization
        if spec.dtype == "uint8":
            signed = next(step.output for step in self.builder.steps if step.inputs == (tensor,))
            inner = self.builder.tensors[signed].quantization
            quantization = inner and Quantization(inner.scale, inner.zero_point + UINT8_OFFSET)
        return TensorSpec(spec.name, spec.shape, spec.dtype, quantization)

    def _boundary_quantization(self, parameter: Any) -> tuple[float, int, str] | None:
        """The one 8-bit quantisation that every reader of a float input applies first, else None."""
        found: set[tuple[float, int, str]] = set()
        for binding in _bindings(self.function):
            call = binding.value
            arguments = list(getattr(call, "args", ()))
            # `in` would compare with ==, which TVM's expressions overload.
            if not any(parameter.same_as(argument) for argument in arguments):
                continue
            if _op_name(call) != "relax.quantize" or str(call.attrs.out_dtype) not in ("int8", "uint8"):
                return None
            scale, zero_point = (self._constant(argument) for argument in arguments[1:3])
            if scale is None or zero_point is None or scale.array.size != 1:
                return None
            found.add(
                (float(scale.array.reshape(())), int(zero_point.array.reshape(())), str(call.attrs.out_dtype))
            )
        return found.pop() if len(found) == 1 else None

    def _outputs(self) -> list[tuple[TensorSpec, int]]:
        body = self.function.body.body
        value = self._value(body)
        fields = value.fields if isinstance(value, Tuple) else (value,)
        if len(fields) != len(self.model.output_names):
            raise ModelError(
                f"{self.model.name} returns {len(fields)} tensors and names {len(self.model.output_names)}"
            )
        outputs = []
        for name, field in zip(self.model.output_names, fields, strict=True):
            output = self._output(name, field)
            if output is not None:
                outputs.append(output)
        return outputs

    def _output(self, name: str, value: Value) -> tuple[TensorSpec, int] | None:
        if isinstance(value, Unknown):
            return None
        if isinstance(value, (Pending, Tabulated, Constant, QuantizedConstant)):
            because = f"it makes the output '{name}', which is not quantised"
            try:
                tensor_id = self.floats.float_of(value, because)
            except NoFloatForm as refusal:
                place = value.place if isinstance(value, (Pending, Tabulated)) else None
                self.refusals.append(Refusal("output", place, f"{because}; in float: {refusal}"))
                return None
            value = Float(tensor_id)
        if isinstance(value, Float):
            tensor = self.builder.tensors[value.tensor]
            return TensorSpec(name, tensor.shape, tensor.dtype), value.tensor
        if not isinstance(value, (Stored, Real)):
            raise ModelError(f"the output '{name}' of {self.model.name} is no tensor")
        order = identity_order(len(value.order))
        index = self.builder.in_order(value.tensor, value.order, order, None)
        tensor = self.builder.tensors[index]
        quantization = value.quantization if isinstance(value, Real) else tensor.quantization
        if isinstance(value, Stored) and value.offset == UINT8_OFFSET:
            if quantization is not None:
                quantization = Quantization(quantization.scale, quantization.zero_point + UINT8_OFFSET)
            shift = op.Requantize(0, UINT8_OFFSET, None, op.Clamp(0, 255))
            index = self.builder.step(shift, (index,), None, name, tensor.shape, quantization, "uint8")
            return TensorSpec(name, tensor.shape, "uint8", quantization), index
        return TensorSpec(name, tensor.shape, tensor.dtype, quantization), index

    # --- bindings -------------------------------------------------------------------------------------------

    def _value_of_binding(self, binding: Any) -> Value:
        expression = binding.value
        place = self.model.places.get(binding.var.name)
        if isinstance(expression, (relax.If, relax.Function)):
            kind = type(expression).__name__.lower()
            self.refusals.append(Refusal(kind, place, "what it computes depends on the input"))
            return Unknown()
        if not isinstance(expression, relax.Call):
            return self._value(expression)
        name = _op_name(expression)
        args = [self._value(argument) for argument in expression.args]
        if any(_holds_unknown(argument) for argument in args):
            return Unknown()
        try:
            site = Site(
                builder=self.builder,
                call=expression,
                name=place.name if place is not None else binding.var.name,
                place=_compute_place(place, args),
                shape=_result_shape(binding.var),
                rounding="double" if self.model.format == "tflite" else "single",
            )
            value = self._value_of_call(name, site, replace(site, place=place), args)
        except NoFloatForm as refusal:
            self.refusals.append(Refusal(name, place, str(refusal)))
            return Unknown()
        self.floats.remember(value, replace(site, place=place), args)
        return value

    def _value_of_call(self, name: str, site: Site, own_site: Site, args: list[Value]) -> Value:
        """The call in integers, else in float; `own_site` has the call's own place."""
        try:
            return self._integer_form(name, site, args)
        except NoIntegerForm as refusal:
            because = str(refusal)
        try:
            return self._float_form(name, own_site, args, because)
        except NoFloatForm as refusal:
            raise NoFloatForm(f"{because}; in float: {refusal}") from None

    def _integer_form(self, name: str, site: Site, args: list[Value]) -> Value:
        rule = RULES.get(name)
        if rule is None:
            raise NoIntegerForm("it has no integer form yet")
        return rule(site, args)

    def _float_form(self, name: str, site: Site, args: list[Value], because: str) -> Value:
        if name == "relax.quantize" and isinstance(args[0], Pending):
            # What is quantised has no integer form at this scale: the quantize itself may have one.
            real = Float(self.floats.float_of(args[0], because))
            try:
                return self._integer_form(name, site, [real, *args[1:]])
            except NoIntegerForm:
                pass
        return self.floats.apply(site, args, because)

    def _value(self, expression: Any) -> Value:
        if isinstance(expression, relax.Var) and expression in self.values:
            return self.values[expression]
        constant = self._constant(expression)
        if constant is not None:
            return constant
        if isinstance(expression, relax.Tuple):
            return Tuple(tuple(self._value(field) for field in expression.fields))
        if isinstance(expression, relax.TupleGetItem):
            whole = self._value(expression.tuple_value)
            return whole.fields[expression.index] if isinstance(whole, Tuple) else Unknown()
        return Tuple(())  # shapes and immediates: rules read them from the call

    def _constant(self, expression: Any) -> Constant | None:
        data: Any = getattr(expression, "value", None)
        if hasattr(data, "numpy"):
            return Constant(data.numpy())
        known = self.values.get(expression) if isinstance(expression, relax.Var) else None
        return known if isinstance(known, Constant) else None


def _compute_place(place: Place | None, args: list[Value]) -> Place | None:
    """The place of the operator that computes.

    A quantize that finishes a pending one is not what the user wrote.
    """
    for argument in args:
        if isinstance(argument, Pending) and argument.place is not None:
            return argument.place
    return place


def _holds_unknown(value: Value) -> bool:
    if isinstance(value, Tuple):
        return any(_holds_unknown(field) for field in value.fields)
    return isinstance(value, Unknown)


def _bindings(function: Any) -> Iterator[Any]:
    for block in function.body.blocks:
        yield from block.bindings


def _op_name(call: Any) -> str:
    return str(getattr(getattr(call, "op", None), "name", type(call).__name__))


def _static_type(parameter: Any, name: str) -> tuple[tuple[int, ...], str]:
    try:
        shape = tuple(int(size) for size in parameter.ty.shape)
    except (TypeError, ValueError):
        raise ModelError(
            f"the input '{name}' has a dimension that is not fixed", hint=f"fix it: --shape {name}=1,…"
        ) from None
    return shape, str(parameter.ty.dtype)


def _result_shape(variable: Any) -> tuple[int, ...]:
    shape = getattr(variable.ty, "shape", None)
    if shape is None:
        return ()
    try:
        return tuple(int(size) for size in shape)
    except (TypeError, ValueError):
        raise NoFloatForm("the shape of its result depends on the input") from None
