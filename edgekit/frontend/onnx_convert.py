"""From a checked ONNX model, float or in QDQ form, to a Relax module.

Node by node, by the converters of `onnx_operators`. Layouts stay as ONNX has them (NCHW, OIHW); the compiler
chooses the board's.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import tvm
from onnx import NodeProto
from tvm import relax

from edgekit.artifacts import Place
from edgekit.errors import EdgekitError, ModelError
from edgekit.frontend.onnx_check import INPUT_TYPES, CheckedOnnx
from edgekit.frontend.onnx_graph import shapes_of
from edgekit.frontend.onnx_node import Array, Node, Refused
from edgekit.frontend.onnx_operators import CONVERTERS
from edgekit.frontend.places import build_main, record_places
from edgekit.frontend.shapes import shape_text, show_name
from edgekit.frontend.unsupported import Unsupported, refuse

__all__ = ["convert_onnx"]

CONSTANT_TYPES = (
    "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool",
)  # fmt: skip


def _is_empty(value: relax.Expr | None) -> bool:
    return value is not None and value.ty.shape is not None and 0 in value.ty.shape


def _without_elements(value: relax.Expr) -> relax.Expr:
    """A result of no elements is a constant: nothing has to be computed for it."""
    if not _is_empty(value):
        return value
    dtype = str(value.ty.dtype)
    return relax.const(np.zeros([int(size) for size in value.ty.shape], dtype=dtype), dtype)


class _Importer:
    """Converts node by node, records places and collects refusals."""

    def __init__(self, checked: CheckedOnnx, places: Mapping[str, Place]) -> None:
        self._builder = relax.BlockBuilder()
        self._checked = checked
        self._places = dict(places)
        self._expressions: dict[str, relax.Expr] = {}
        self._constants: dict[str, Array] = {}
        self._refused: list[Unsupported] = []
        self._shapes = shapes_of(checked.model.graph)

    def _node(self, proto: NodeProto) -> Node:
        return Node(
            proto=proto,
            attributes={a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute},
            inputs=tuple(self._expression(name) if name else None for name in proto.input),
            constants=tuple(self._constants.get(name) if name else None for name in proto.input),
            output_shape=self._shapes.get(proto.output[0]),
            opset=self._checked.opset,
            emit=self._builder.emit,
        )

    def _expression(self, name: str) -> relax.Expr:
        """A tensor as an expression; constants become one when something reads them."""
        if name not in self._expressions:
            array = self._constants[name]
            if str(array.dtype) not in CONSTANT_TYPES:
                raise Refused(f"its operand {show_name(name)} is {array.dtype}, which has no converter")
            self._expressions[name] = relax.const(np.array(array), str(array.dtype))
        return self._expressions[name]

    def _convert(self, proto: NodeProto) -> list[relax.Expr]:
        converter = CONVERTERS.get(proto.op_type) if proto.domain in ("", "ai.onnx") else None
        if converter is None:
            raise Refused("what it does depends on values that are computed, not constant")
        node = self._node(proto)
        # Not constants: a Resize has an empty region.
        computed = (
            value for name, value in zip(proto.input, node.inputs, strict=True) if name not in self._constants
        )
        empty = proto.op_type != "Concat" and any(map(_is_empty, computed))
        value = converter(node)
        values = value if isinstance(value, list) else [value]
        if len(values) < node.outputs:
            raise Refused(f"its output {len(values) + 1} has no converter")
        bound = [_without_elements(self._bound(expression)) for expression in values]
        if empty and not all(map(_is_empty, bound)):
            raise Refused("an operand without elements has no converter")
        self._keep_real(node, proto.output[0])
        return bound

    def _bound(self, value: relax.Expr) -> relax.Expr:
        # Constants and variables stay what they are.
        return self._builder.emit(value) if isinstance(value, tvm.ir.Call | relax.TupleGetItem) else value

    def _keep_real(self, node: Node, name: str) -> None:
        """Keep the real value of a dequantised constant, for operators that need one (Pad, Clip)."""
        if node.proto.op_type != "DequantizeLinear":
            return
        stored, scale, zero_point = (*node.constants, None)[:3]
        if stored is None or scale is None or stored.size > 64:
            return
        if scale.size == 1:
            zero = 0 if zero_point is None else int(zero_point.reshape(-1)[0])
            real = (stored.astype(np.int64) - zero).astype(np.float32) * scale.reshape(-1)[0]
            self._constants[name] = real.astype(np.float32)

    def _place(self, proto: NodeProto) -> Place | None:
        """The source operator of a node; None for one that a quantiser put before its consumer."""
        found = next((self._places[name] for name in proto.output if name in self._places), None)
        if found is None and proto.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found = self._places.get(proto.input[0])
        return found

    def convert(self) -> tuple[tvm.IRModule, dict[str, Place]]:
        graph = self._checked.model.graph
        for tensor in graph.initializer:
            self._constants[tensor.name] = np.asarray(onnx.numpy_helper.to_array(tensor))
        types = {value.name: value.type.tensor_type for value in graph.input}
        parameters = []
        for position, name in enumerate(self._checked.inputs):
            shape = [d.dim_value for d in types[name].shape.dim]
            variable = relax.Var(
                f"input_{position}", relax.TensorType(shape, INPUT_TYPES[types[name].elem_type])
            )
            self._expressions[name] = variable
            parameters.append(variable)
        written: list[tuple[relax.Var, Place]] = []

        def body() -> relax.Expr:
            written.extend(self._convert_nodes(graph.node))
            refuse(self._refused)
            outputs = [self._expressions[name] for name in self._checked.outputs]
            return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

        module = build_main(self._builder, parameters, body)
        return module, record_places(module, written)

    def _convert_nodes(self, nodes: Sequence[NodeProto]) -> list[tuple[relax.Var, Place]]:
        written: list[tuple[relax.Var, Place]] = []
        for index, proto in enumerate(nodes):
            name = next((output for output in proto.output if output), "")
            place = self._place(proto)
            if any(i and i not in self._expressions and i not in self._constants for i in proto.input):
                continue  # It reads what a refused operator would have written.
            try:
                values = self._convert(proto)
            except Refused as refused:
                at = place or Place(op=proto.op_type, name=name, index=index)
                self._refused.append(Unsupported(at, str(refused)))
                continue
            except EdgekitError:
                raise
            except Exception as error:  # TVM raises whatever its Python and C++ parts come upon.
                raise ModelError(
                    f"{proto.op_type} {show_name(name)} (operator {index}) of the ONNX file cannot be "
                    f"converted: {type(error).__name__}."
                ) from error
            for output, value in zip(proto.output, values, strict=False):
                if not output:
                    continue
                if place is not None:
                    self._places[output] = place
                    if isinstance(value, relax.Var):
                        written.append((value, place))
                self._check_shape(proto, index, output, value)
                self._expressions[output] = value
        return written

    def _check_shape(self, proto: NodeProto, index: int, output: str, value: relax.Expr) -> None:
        """Two independent shape inferences, ONNX's and TVM's, must agree."""
        shape = value.ty.shape
        found = (
            None if shape is None else tuple(int(d) if isinstance(d, tvm.tirx.IntImm) else -1 for d in shape)
        )
        wanted = self._shapes.get(output)
        if found is None or -1 in found:
            raise ModelError(f"{proto.op_type} {show_name(output)} (operator {index}) has no fixed shape.")
        if wanted is not None and found != wanted:
            raise ModelError(
                f"{proto.op_type} {show_name(output)} (operator {index}) is {shape_text(wanted)} "
                f"in the ONNX file and {shape_text(found)} after its conversion."
            )


def convert_onnx(checked: CheckedOnnx, places: Mapping[str, Place]) -> tuple[tvm.IRModule, dict[str, Place]]:
    """The Relax module, and the place of each of its variables.

    Args:
        checked: A float model, or one in QDQ form.
        places: By output name, the operators of the file as the user has it.

    Raises:
        UnsupportedError: operators in a form that has no converter, all of them at once.
        ModelError: an operator that contradicts itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Importer(checked, places).convert()
