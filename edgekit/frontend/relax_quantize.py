"""Quantise a float Relax module: observe its activations on real rows, then put QDQ around what has integers.

For front ends whose format has no quantiser of its own here (float TFLite). The form is the one that all
quantised models have: int8 weights with a symmetric scale per output channel, activations with one scale per
tensor (int8 asymmetric, or int16 symmetric for `int16x8`), biases left as reals for the compiler to count in
steps of input scale times weight scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from edgekit.artifacts import CalibrationMethod, Place
from edgekit.errors import ModelError
from edgekit.frontend.observers import OBSERVERS, Observer, affine
from edgekit.frontend.places import build_main, record_places

__all__ = ["quantize_module"]

Array = npt.NDArray[Any]

COMPUTE = frozenset({
    "relax.add", "relax.clip", "relax.concat", "relax.image.resize2d", "relax.maximum", "relax.mean",
    "relax.minimum", "relax.multiply", "relax.nn.avg_pool2d", "relax.nn.conv2d", "relax.nn.conv2d_transpose",
    "relax.nn.gelu", "relax.nn.leakyrelu", "relax.nn.prelu", "relax.nn.relu", "relax.nn.relu6",
    "relax.nn.softmax", "relax.sigmoid", "relax.matmul", "relax.subtract", "relax.tanh",
})  # fmt: skip
"""What has an integer form that computes; its result gets a scale of its own."""

MOVES = frozenset({
    "relax.expand_dims", "relax.nn.max_pool2d", "relax.nn.pad", "relax.permute_dims", "relax.reshape",
    "relax.split", "relax.squeeze", "relax.strided_slice",
})  # fmt: skip
"""What only moves or selects values; its result keeps the scale of its input."""

WEIGHTED = frozenset({"relax.nn.conv2d", "relax.nn.conv2d_transpose", "relax.matmul"})
CLAMPS = frozenset({"relax.clip", "relax.nn.relu", "relax.nn.relu6"})

FIXED: Mapping[str, tuple[float, float]] = {
    "relax.nn.softmax": (0.0, 255 / 256),
    "relax.sigmoid": (0.0, 255 / 256),
    "relax.tanh": (-1.0, 127 / 128),
}
"""Ranges that follow from the function, as TFLite's converter has them."""

WEIGHT_SCALE_RATIO = 2.0**-10
"""Least scale of a channel as a share of its layer's largest, so that the bias of a channel of zeros fits."""


@dataclass(frozen=True, slots=True)
class _Scale:
    scale: float
    zero_point: int


def _bindings(function: Any) -> Iterator[Any]:
    for block in function.body.blocks:
        yield from block.bindings


def _op(expression: Any) -> str:
    return str(getattr(getattr(expression, "op", None), "name", ""))


def _constant(expression: Any) -> Array | None:
    data: Any = getattr(expression, "value", None)
    return np.asarray(data.numpy()) if hasattr(data, "numpy") else None


def _is_float(variable: Any) -> bool:
    return str(getattr(variable.ty, "dtype", "")) == "float32"


class _Quantizer:
    def __init__(
        self,
        module: tvm.IRModule,
        places: Mapping[str, Place],
        precision: Literal["int8", "int16x8"],
        method: CalibrationMethod,
    ) -> None:
        self.function: Any = module["main"]
        self.places = places
        self.wide = precision == "int16x8"
        self.method = method
        self.levels = 65536 if self.wide else 256
        self.stored = "int16" if self.wide else "int8"
        self.users: dict[str, list[Any]] = {}
        self.made: dict[str, Any] = {}
        for binding in _bindings(self.function):
            self.made[binding.var.name] = binding.value
            for name in _read(binding.value):
                self.users.setdefault(name, []).append(binding)
        self.scales: dict[str, _Scale] = {}

    # --- calibration ----------------------------------------------------------------------------------------

    def observed(self) -> list[Any]:
        """The float variables that get a scale, parameters first."""
        variables = [*self.function.params, *(binding.var for binding in _bindings(self.function))]
        return [v for v in variables if _is_float(v)]

    def calibrate(self, rows: Iterator[Sequence[Array]]) -> None:
        """Run the float module row by row and decide every scale."""
        variables = self.observed()
        run = _probe(self.function, variables)
        observers: dict[str, Observer] = {
            v.name: OBSERVERS[self.method](self.levels, self.wide) for v in variables
        }
        for row in rows:
            for variable, values in zip(variables, run(row), strict=True):
                observers[variable.name].add(values)
        for name, observer in observers.items():
            fixed = FIXED.get(_op(self.made.get(name)))
            low, high = fixed if fixed is not None and not self.wide else observer.range()
            self.scales[name] = _Scale(*affine(low, high, self.levels, self.wide))
        for binding in _bindings(self.function):
            if _op(binding.value) in MOVES or isinstance(binding.value, relax.Var | relax.TupleGetItem):
                source = next(iter(_read(binding.value)), "")
                if source in self.scales:
                    self.scales[binding.var.name] = self.scales[source]
                elif isinstance(binding.value, relax.TupleGetItem):
                    whole = next(iter(_read(self.made.get(source))), "")
                    if whole in self.scales:
                        self.scales[binding.var.name] = self.scales[whole]

    # --- rewriting ------------------------------------------------------------------------------------------

    def fused(self, binding: Any) -> bool:
        """Whether the only reader of a result swallows it: a bias behind a product, a clamp behind those."""
        users = self.users.get(binding.var.name, [])
        if len(users) != 1 or any(binding.var.same_as(v) for v in _results(self.function)):
            return False
        reader, kind = users[0].value, _op(binding.value)
        if kind in WEIGHTED and _op(reader) == "relax.add":
            other = [a for a in reader.args if not a.same_as(binding.var)]
            bias = _constant(other[0]) if other else None
            return bias is not None and bias.size in (1, *(int(d) for d in binding.var.ty.shape))
        behind = kind in COMPUTE - CLAMPS - set(FIXED)
        return behind and _op(reader) in CLAMPS

    def rewrite(self) -> tuple[tvm.IRModule, dict[str, Place]]:
        builder = relax.BlockBuilder()
        known: dict[str, relax.Expr] = {}
        """What a variable of the float module is now: the dequantised value where it is quantised."""
        parameters = [relax.Var(p.name, p.ty) for p in self.function.params]
        written: list[tuple[relax.Var, Place]] = []

        def quantised(value: relax.Expr, name: str, place: Place | None) -> relax.Expr:
            scale = self.scales[name]
            pair = relax.const(scale.scale, "float32"), relax.const(scale.zero_point, "int32")
            stored = builder.emit(relax.op.quantize(value, *pair, 0, self.stored))
            if place is not None:
                written.append((stored, place))
            return builder.emit(relax.op.dequantize(stored, *pair, 0, "float32"))

        def operand(expression: Any, quantise: bool) -> relax.Expr:
            if isinstance(expression, relax.Tuple):
                return relax.Tuple([operand(field, quantise) for field in expression.fields])
            if not isinstance(expression, relax.Var) or expression.name not in known:
                return expression
            value = known[expression.name]
            if quantise and expression.name in raw and expression.name in self.scales:
                value = quantised(value, expression.name, None)
                known[expression.name] = value
                raw.discard(expression.name)
            return value

        raw: set[str] = set()

        def body() -> relax.Expr:
            for old, new in zip(self.function.params, parameters, strict=True):
                known[old.name] = new
                if _is_float(old):
                    raw.add(old.name)
            for binding in _bindings(self.function):
                name, place = binding.var.name, self.places.get(binding.var.name)
                if isinstance(binding.value, relax.Var):
                    known[name] = known[binding.value.name]
                    if binding.value.name in raw:
                        raw.add(name)
                    continue
                kind = _op(binding.value)
                integer = kind in COMPUTE | MOVES and self._fits(binding)
                value = builder.emit(self._call(binding.value, integer, operand))
                part = isinstance(binding.value, relax.TupleGetItem) and name in self.scales
                if part or (integer and _is_float(binding.var) and not self.fused(binding)):
                    value = quantised(value, name, place)
                elif _is_float(binding.var) and not integer:
                    raw.add(name)
                if place is not None and isinstance(value, relax.Var):
                    written.append((value, place))
                known[name] = value
            results = [known[v.name] for v in _results(self.function)]
            return results[0] if len(results) == 1 else relax.Tuple(results)

        module = build_main(builder, parameters, body)
        return module, record_places(module, written)

    def _fits(self, binding: Any) -> bool:
        """Whether the operands are what the integer form takes."""
        value = binding.value
        if _op(value) in WEIGHTED and _constant(value.args[1]) is None:
            return _op(value) == "relax.matmul"
        return all(_is_float(a) for a in value.args if isinstance(a, relax.Var) and not _is_tuple(a))

    def _call(self, value: Any, integer: bool, operand: Any) -> relax.Expr:
        if not isinstance(value, tvm.ir.Call):
            if isinstance(value, relax.TupleGetItem):
                return relax.TupleGetItem(operand(value.tuple_value, False), value.index)
            return operand(value, False)
        kind = _op(value)
        args = []
        for position, argument in enumerate(value.args):
            constant = _constant(argument)
            if not integer:
                args.append(operand(argument, False))
            elif constant is not None and kind in WEIGHTED and position == 1:
                args.append(_weights(constant, _channel_axis(value, constant)))
            elif constant is not None and constant.dtype == np.float32 and not self._is_bias(value):
                args.append(self._stored_constant(constant))
            else:
                args.append(operand(argument, True))
        return tvm.ir.Call(value.op, args, value.attrs, value.ty_args)

    def _is_bias(self, value: Any) -> bool:
        """Whether it is the addition of a bias to the product before it."""
        return _op(value) == "relax.add" and any(
            isinstance(a, relax.Var)
            and _op(self.made.get(a.name)) in WEIGHTED
            and len(self.users[a.name]) == 1
            for a in value.args
        )

    def _stored_constant(self, values: Array) -> relax.Expr:
        low, high = float(values.min()), float(values.max())
        scale, zero_point = affine(low, high, self.levels, self.wide)
        least = -(self.levels // 2)
        stored = np.clip(np.rint(values / scale) + zero_point, least, least + self.levels - 1)
        pair = relax.const(scale, "float32"), relax.const(zero_point, "int32")
        return relax.op.dequantize(relax.const(stored.astype(self.stored)), *pair, 0, "float32")


def _is_tuple(variable: Any) -> bool:
    return isinstance(variable.ty, relax.TupleType)


def _read(value: Any) -> list[str]:
    """Names of the variables that an expression reads."""
    if isinstance(value, relax.Var):
        return [value.name]
    if isinstance(value, relax.Tuple):
        return [name for field in value.fields for name in _read(field)]
    if isinstance(value, relax.TupleGetItem):
        return _read(value.tuple_value)
    if isinstance(value, tvm.ir.Call):
        return [name for argument in value.args for name in _read(argument)]
    return []


def _results(function: Any) -> list[Any]:
    """The variables that a function returns."""
    body = function.body.body
    found = {binding.var: binding.value for binding in _bindings(function)}
    if isinstance(body, relax.Var) and isinstance(found.get(body), relax.Tuple):
        body = found[body]
    return list(body.fields) if isinstance(body, relax.Tuple) else [body]


def _channel_axis(call: Any, weights: Array) -> int | None:
    """The axis of the output channels of constant weights; None where there is none of its own."""
    if _op(call) == "relax.matmul":
        return 1 if weights.ndim == 2 else None
    return str(call.attrs.kernel_layout).index("O")


def _weights(values: Array, axis: int | None) -> relax.Expr:
    """Symmetric int8, −127 to 127, with one scale a channel."""
    rest = None if axis is None else tuple(a for a in range(values.ndim) if a != axis)
    largest = np.abs(values.astype(np.float64)).max(axis=rest, keepdims=rest is not None)
    scale = np.maximum(largest, max(float(np.max(largest)) * WEIGHT_SCALE_RATIO, 1e-30)) / 127
    stored = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    factors = np.asarray(scale, dtype=np.float32).reshape(-1 if axis is not None else ())
    zeros = np.zeros_like(factors, dtype=np.int32)
    return relax.op.dequantize(
        relax.const(stored, "int8"), relax.const(factors), relax.const(zeros), axis or 0, "float32"
    )


def _probe(function: Any, variables: Sequence[Any]) -> Any:
    """Compile a module that returns the values of variables; (inputs of one row) → their values."""
    builder = relax.BlockBuilder()
    parameters = list(function.params)

    def body() -> relax.Expr:
        for binding in _bindings(function):
            builder.emit_normalized(relax.VarBinding(binding.var, binding.value))
        return relax.Tuple(list(variables))

    module = build_main(builder, parameters, body)
    try:
        machine = relax.VirtualMachine(tvm.compile(module, tvm.target.Target({"kind": "llvm"})), tvm.cpu())
    except Exception as error:  # TVM raises whatever its Python and C++ parts come upon.
        raise ModelError(f"the float model cannot be run to calibrate it: {type(error).__name__}") from error

    def run(row: Sequence[Array]) -> list[Array]:
        results = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(x)) for x in row))
        return [np.asarray(result.numpy()) for result in results]

    return run


def quantize_module(
    module: tvm.IRModule,
    places: Mapping[str, Place],
    rows: Iterator[Sequence[Array]],
    *,
    precision: Literal["int8", "int16x8"] = "int8",
    method: CalibrationMethod = "minmax",
) -> tuple[tvm.IRModule, dict[str, Place]]:
    """The module in QDQ form, and the places of its variables.

    Args:
        module: Its `main` computes in float32.
        places: By variable of `main`, the operator of the source.
        rows: The inputs of `main`, row after row; each is run once.
        precision: Of the activations; weights are int8 either way.
        method: How the range of an activation follows from its values.

    Raises:
        ModelError: TVM cannot run the float module.
    """
    quantizer = _Quantizer(module, places, precision, method)
    quantizer.calibrate(rows)
    return quantizer.rewrite()
