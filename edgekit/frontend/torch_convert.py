"""From a captured torch graph, quantised or not, to a Relax module whose variables know their layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import tvm
from torch import fx
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from edgekit.artifacts import Place
from edgekit.errors import EdgekitError, ModelError
from edgekit.frontend.places import build_main, record_places
from edgekit.frontend.shapes import MAX_ELEMENTS, show_name
from edgekit.frontend.torch_nodes import (
    arguments,
    constant_of,
    module_path,
    operator_name,
    shape_of,
    tensor_of,
)
from edgekit.frontend.unsupported import Unsupported, refuse

__all__ = ["convert_graph", "imported_operators"]

Converter = Callable[[fx.Node], relax.Expr]

INPUT_TYPES = {torch.float32: "float32", torch.int8: "int8", torch.uint8: "uint8", torch.int32: "int32",
               torch.int64: "int64", torch.bool: "bool"}  # fmt: skip

# torch's own decompositions are used instead of TVM 0.27's converters: those make operators that TVM then
# can't compile, forget the correction of a deviation, and know recurrent layers of one layer and direction
# only, without their last states.
_TAKEN_APART = (
    "pixel_shuffle.default",
    "gru.input",
    "lstm.input",
    "rnn_tanh.input",
    "rnn_relu.input",
    "std.correction",
    "std.default",
    "std.dim",
)

_QUANTIZERS = (
    "quantize_per_tensor",
    "dequantize_per_tensor",
    "quantize_per_channel",
    "dequantize_per_channel",
)


class _Importer(ExportedProgramImporter):  # type: ignore[misc]
    """TVM's converters, fed from a graph whose parameters are attributes, so that scales are constants."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[tuple[relax.Var, Place]] = []
        self._refused: list[Unsupported] = []

    def create_convert_map(self) -> dict[str, Converter]:
        table: dict[str, Converter] = super().create_convert_map()
        for name in _TAKEN_APART:
            table.pop(name, None)
        return table | {
            "quantize_per_tensor.default": self._quantize_per_tensor,
            "dequantize_per_tensor.default": self._dequantize_per_tensor,
            "quantize_per_channel.default": self._quantize_per_channel,
            "dequantize_per_channel.default": self._dequantize_per_channel,
            "hardtanh.default": self._bounded,
            "clamp.default": self._bounded,
            "clamp_min.default": self._bounded,
            "clamp_max.default": self._bounded,
            "layer_norm.default": self._normalized_layer,
            "elu.default": self._exponential_unit,
            "celu.default": self._exponential_unit,
            "upsample_nearest2d.vec": self._nearest,
            "masked_fill.Scalar": self._masked,
            "amax.default": self._extremum(relax.op.max),
            "amin.default": self._extremum(relax.op.min),
        }

    # --- converters -----------------------------------------------------------------------------------------

    def _quantize_per_tensor(self, node: fx.Node) -> relax.Expr:
        value, scale, zero_point, _, _, dtype = arguments(node)
        return self.block_builder.emit(
            relax.op.quantize(
                self.env[value],
                relax.const(float(scale), "float32"),
                relax.const(int(zero_point), "int32"),
                0,
                INPUT_TYPES.get(dtype, "int16"),
            )
        )

    def _dequantize_per_tensor(self, node: fx.Node) -> relax.Expr:
        value, scale, zero_point = arguments(node)[:3]
        return self.block_builder.emit(
            relax.op.dequantize(
                self.env[value],
                relax.const(float(scale), "float32"),
                relax.const(int(zero_point), "int32"),
                0,
                "float32",
            )
        )

    def _quantize_per_channel(self, node: fx.Node) -> relax.Expr:
        value, _, _, axis, _, _, dtype = arguments(node)
        scale, zero_point = self._channel_constants(node)
        stored = INPUT_TYPES.get(dtype, "int16")
        return self.block_builder.emit(relax.op.quantize(self.env[value], scale, zero_point, axis, stored))

    def _dequantize_per_channel(self, node: fx.Node) -> relax.Expr:
        value, axis = arguments(node)[0], arguments(node)[3]
        scale, zero_point = self._channel_constants(node)
        return self.block_builder.emit(
            relax.op.dequantize(self.env[value], scale, zero_point, axis, "float32")
        )

    def _channel_constants(self, node: fx.Node) -> tuple[relax.Expr, relax.Expr]:
        scale, zero_point = (constant_of(self._module, value) for value in arguments(node)[1:3])
        return relax.const(scale.float().numpy()), relax.const(zero_point.int().numpy())

    def _bounded(self, node: fx.Node) -> relax.Expr:
        """TVM's own converter of hardtanh knows its bounds only by keyword, and relu6 is one without."""
        low, high = _bounds(node)
        return self.block_builder.emit(relax.op.clip(self.env[arguments(node)[0]], low, high))

    def _normalized_layer(self, node: fx.Node) -> relax.Expr:
        """TVM's own converter takes no layer without parameters."""
        value, shape, gamma, beta, epsilon, *_ = _completed(node)
        ones = relax.const(np.ones(shape, np.float32)) if gamma is None else self.env[gamma]
        zeros = relax.const(np.zeros(shape, np.float32)) if beta is None else self.env[beta]
        axes = list(range(-len(shape), 0))
        return self.block_builder.emit(
            relax.op.nn.layer_norm(self.env[value], ones, zeros, axes, float(epsilon))
        )

    def _exponential_unit(self, node: fx.Node) -> relax.Expr:
        """scale · (x above 0, alpha · (exp(rate · x) − 1) below); TVM's own knows neither scale nor rate."""
        value, alpha, *rest = _completed(node)
        scale, rate = rest if rest else (1.0, 1.0 / float(alpha))
        x = self.env[value]
        below = relax.op.subtract(
            relax.op.exp(relax.op.multiply(x, relax.const(float(rate)))), relax.const(1.0)
        )
        # Above 0 the exponential is at least 1, so that the minimum with 0 takes it away.
        bounded = relax.op.minimum(below, relax.const(0.0))
        scaled = relax.op.multiply(bounded, relax.const(float(alpha) * float(scale)))
        above = relax.op.multiply(relax.op.nn.relu(x), relax.const(float(scale)))
        return self.block_builder.emit(relax.op.add(above, scaled))

    def _nearest(self, node: fx.Node) -> relax.Expr:
        """torch takes the element at floor(i · in / out); TVM's own converter takes the middle."""
        value = arguments(node)[0]
        size = (shape_of(node) or ())[2:]
        return self.block_builder.emit(
            relax.op.image.resize2d(
                self.env[value],
                size,
                layout="NCHW",
                method="nearest_neighbor",
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            )
        )

    def _masked(self, node: fx.Node) -> relax.Expr:
        """TVM's own converter makes a `full_like` of the value, which has no type of its own."""
        value, mask, filling = arguments(node)
        tensor = self.env[value]
        constant = relax.const(np.array(filling, dtype=str(tensor.ty.dtype)))
        return self.block_builder.emit(relax.op.where(self.env[mask], constant, tensor))

    def _extremum(self, operator: Callable[..., relax.Expr]) -> Converter:
        def convert(node: fx.Node) -> relax.Expr:
            value, axes, keep = _completed(node)
            return self.block_builder.emit(operator(self.env[value], list(axes) or None, bool(keep)))

        return convert

    # --- the graph ------------------------------------------------------------------------------------------

    def convert(self, module: fx.GraphModule) -> tuple[tvm.IRModule, dict[str, Place]]:
        self._module = module
        self.block_builder = relax.BlockBuilder()
        nodes = list(module.graph.nodes)
        self._refuse_unknown(nodes)
        parameters = []
        for node in nodes:
            if node.op == "placeholder":
                self.env[node] = _parameter(node)
                parameters.append(self.env[node])
        result = build_main(self.block_builder, parameters, lambda: self._translate(nodes))
        return result, record_places(result, self._written)

    def _refuse_unknown(self, nodes: Sequence[fx.Node]) -> None:
        found = []
        for place, node in _places(nodes):
            if node.op == "call_module":
                found.append(Unsupported(place, "a module that was not traced"))
            elif str(getattr(node.target, "__name__", "")) not in self.convert_map:
                found.append(Unsupported(place, "it has no converter"))
        refuse(found, hint="replace the layer by one of the operators of docs/torch.md")

    def _translate(self, nodes: Sequence[fx.Node]) -> relax.Expr:
        for node in nodes:
            if node.op == "get_attr":
                self.env[node] = self._constant(node)
        for place, node in _places(nodes):
            try:
                value = self.convert_map[str(getattr(node.target, "__name__", ""))](node)
            except EdgekitError:
                raise
            except Exception as error:  # TVM raises whatever its Python and C++ parts come upon.
                raise ModelError(
                    f"{place.op} {show_name(place.name)} (operator {place.index}) of the torch model cannot "
                    f"be converted: {type(error).__name__}."
                ) from error
            self.env[node] = value
            if isinstance(value, relax.Var):
                _check_shape(place, node, value)
                if operator_name(node).partition(".")[0] not in _QUANTIZERS:
                    self._written.append((value, place))
        output = next(node for node in nodes if node.op == "output")
        results = self._flatten_output_args(self.retrieve_args(output)[0])
        return results[0] if len(results) == 1 else relax.Tuple(results)

    def _constant(self, node: fx.Node) -> relax.Expr:
        value = constant_of(self._module, node).detach()
        if value.dtype == torch.float64:
            value = value.float()
        return relax.const(self._convert_pytorch_tensor_to_tvm(value.contiguous()))


def imported_operators() -> frozenset[str]:
    """Names of the ATen operators that have converters."""
    return frozenset(_Importer().convert_map)


def convert_graph(module: fx.GraphModule) -> tuple[tvm.IRModule, dict[str, Place]]:
    """The Relax module, and the place of each of its variables.

    Raises:
        UnsupportedError: operators without a converter, all of them at once.
        ModelError: an operator that TVM can't take as it is, or that it takes for another shape.
    """
    return _Importer().convert(module)


def _parameter(node: fx.Node) -> relax.Var:
    tensor = tensor_of(node)
    shape = None if tensor is None else tuple(tensor.shape)
    if shape is None or not all(isinstance(size, int) for size in shape):
        raise ModelError(f"The torch model's input {show_name(node.name)} has no fixed shape.")
    assert tensor is not None
    if tensor.dtype not in INPUT_TYPES or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(
            f"The torch model's input {show_name(node.name)} is {tensor.dtype} {shape}.",
            hint="module.float() and float32 example inputs; or int8, uint8, int32, int64 or bool",
        )
    return relax.Var(node.name, relax.TensorType(shape, INPUT_TYPES[tensor.dtype]))


def _places(nodes: Sequence[fx.Node]) -> list[tuple[Place, fx.Node]]:
    """Each operator and where it stands in the user's model; `index` counts operators the user wrote."""
    found = []
    index = 0
    taken: set[str] = set()
    for node in nodes:
        if node.op not in ("call_function", "call_module"):
            continue
        operator = operator_name(node).partition(".")[0]
        path = module_path(node)
        name = path if path and path not in taken else f"{path}.{node.name}" if path else node.name
        found.append((Place(op=operator, name=name, index=index), node))
        if operator not in _QUANTIZERS:
            taken.add(name)
            index += 1
    return found


def _completed(node: fx.Node) -> list[Any]:
    """All arguments of an operator in the order of its schema, defaults filled in."""
    given = arguments(node)
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    return [
        given[position] if position < len(given) else node.kwargs.get(argument.name, argument.default_value)
        for position, argument in enumerate(schema)
    ]


def _bounds(node: fx.Node) -> tuple[float, float]:
    """Real bounds of hardtanh and of the clamps, ±float32's largest where there is none."""
    limit = float(torch.finfo(torch.float32).max)
    _, *bounds = _completed(node)
    low, high = {"clamp_min.default": (*bounds, None), "clamp_max.default": (None, *bounds)}.get(
        operator_name(node), tuple(bounds)
    )
    return -limit if low is None else float(low), limit if high is None else float(high)


def _check_shape(place: Place, node: fx.Node, value: relax.Var) -> None:
    """Two independent shape inferences, torch's and TVM's, must agree."""
    tensor = tensor_of(node)
    shape = getattr(value.ty, "shape", None)
    if tensor is None or shape is None:
        return
    found = tuple(int(size) if isinstance(size, tvm.tirx.IntImm) else -1 for size in shape)
    if found != tuple(tensor.shape):
        raise ModelError(
            f"{place.op} {show_name(place.name)} (operator {place.index}) is {tuple(tensor.shape)} in torch "
            f"and {found} after its conversion."
        )
