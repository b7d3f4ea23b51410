"""From a checked ONNX model in QDQ form to a Relax module, through TVM's own ONNX converters.

TVM's converters are used where their result is a plain Relax operator. Those that emit TensorIR straight
away (Clip, Pad, automatic padding) or follow computed shapes are replaced here. Layouts stay as ONNX has them
(NCHW, OIHW); the compiler chooses the board's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tvm
from onnx import NodeProto
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, onnx_input

from edgekit.artifacts import Place
from edgekit.errors import EdgekitError, ModelError
from edgekit.frontend.onnx_check import INPUT_TYPES, CheckedOnnx
from edgekit.frontend.places import build_main, record_places
from edgekit.frontend.shapes import shape_text, show_name
from edgekit.frontend.tflite_operators import same_padding
from edgekit.frontend.unsupported import Unsupported, refuse

__all__ = ["convert_onnx"]

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]

QUANTIZED_TYPES = ("int8", "uint8", "int16", "uint16", "int32")


class _Refused(Exception):
    """One node that cannot be converted, and why; collected, and raised with all the others."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A node with its operands; an operand left out is None."""

    proto: NodeProto
    attributes: Attributes
    inputs: tuple[relax.Expr | None, ...]
    constants: tuple[Array | None, ...]
    """The value of each operand that is constant, dequantised where it is stored quantised."""
    output_shape: tuple[int, ...] | None

    def input(self, position: int) -> relax.Expr:
        value = self.inputs[position] if position < len(self.inputs) else None
        if value is None:
            raise self.wrong(f"lacks input {position}")
        return value

    def constant(self, position: int, what: str) -> Array | None:
        """A constant operand, None when it is left out."""
        if position >= len(self.inputs) or self.inputs[position] is None:
            return None
        value = self.constants[position]
        if value is None:
            raise _Refused(f"its {what} is computed, not constant")
        return value

    def wrong(self, why: str) -> ModelError:
        return ModelError(f"{self.proto.op_type} {show_name(self.proto.output[0])} of the ONNX file {why}.")

    def shape(self, position: int) -> tuple[int, ...]:
        return tuple(int(d) for d in self.input(position).ty.shape)

    def dtype(self, position: int) -> str:
        return str(self.input(position).ty.dtype)

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        return [int(v) for v in self.attributes.get(name, default)]


def _quantization(node: _Node, rank: int, stored: str) -> tuple[relax.Expr, relax.Expr, int]:
    """(scale, zero point, axis) of a QuantizeLinear or DequantizeLinear; per tensor they are scalars."""
    if node.attributes.get("block_size", 0):
        raise _Refused("blocked quantisation has no converter")
    if stored not in QUANTIZED_TYPES:
        raise _Refused(f"quantisation to {stored} has no converter")
    scale = node.constant(1, "scale")
    zero_point = node.constant(2, "zero point")
    if scale is None or scale.dtype != np.float32:
        raise _Refused("its scale is not float32")
    if not np.all(np.isfinite(scale)) or not np.all(scale >= np.finfo(np.float32).tiny):
        raise node.wrong("has a scale that is not above zero")
    zeros = np.zeros_like(scale, dtype=np.int32) if zero_point is None else zero_point.astype(np.int32)
    # Not the shapes: ONNX Runtime writes a scale () with a zero point (1).
    if zeros.size != scale.size or (scale.size > 1 and zeros.ndim != 1):
        raise node.wrong(f"has {scale.size} scales and {zeros.size} zero points")
    if scale.size == 1:
        return relax.const(scale.reshape(()), "float32"), relax.const(zeros.reshape(()), "int32"), 0
    # The default of 1 is out of range for a bias, whose files mean 0.
    axis = int(node.attributes.get("axis", 1)) if rank > 1 else 0
    shape = node.shape(0)
    if scale.ndim != 1 or not -rank <= axis < rank or shape[axis] != scale.size:
        raise node.wrong(f"has {scale.size} scales along axis {axis} of {shape_text(shape)}")
    return relax.const(scale, "float32"), relax.const(zeros, "int32"), axis % rank


def _quantize(node: _Node) -> relax.Expr:
    stored = "uint8" if node.constants[2:3] in ((), (None,)) else str(node.constants[2].dtype)  # type: ignore[union-attr]
    number = int(node.attributes.get("output_dtype", 0))
    if number:
        stored = str(onnx.helper.tensor_dtype_to_np_dtype(number))
    scale, zero_point, axis = _quantization(node, len(node.shape(0)), stored)
    return relax.op.quantize(node.input(0), scale, zero_point, axis, stored)


def _dequantize(node: _Node) -> relax.Expr:
    scale, zero_point, axis = _quantization(node, len(node.shape(0)), node.dtype(0))
    return relax.op.dequantize(node.input(0), scale, zero_point, axis, "float32")


def _reshape(node: _Node) -> relax.Expr:
    if node.output_shape is None:
        raise _Refused("its output shape is computed, not constant")
    return relax.op.reshape(node.input(0), node.output_shape)


def _same(node: _Node) -> relax.Expr:
    if sum(bool(name) for name in node.proto.output) > 1:
        raise _Refused("its second output has no converter")
    return node.input(0)


def _clip(node: _Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        raise _Refused(f"clipping {node.dtype(0)} has no converter")
    limit = float(np.finfo(np.float32).max)
    bounds = []
    for position, default in ((1, -limit), (2, limit)):
        value = node.constant(position, "bound")
        bound = default if value is None or np.isnan(value).any() else float(value.reshape(-1)[0])
        bounds.append(min(max(bound, -limit), limit))
    if bounds == [0.0, limit]:
        return relax.op.nn.relu(node.input(0))
    return relax.op.clip(node.input(0), bounds[0], bounds[1])


def _pad(node: _Node) -> relax.Expr:
    if node.attributes.get("mode", b"constant") != b"constant":
        raise _Refused("only constant padding has a converter")
    rank = len(node.shape(0))
    pads = node.constant(1, "padding")
    axes = node.constant(3, "list of axes")
    fill = node.constant(2, "fill value")
    chosen = list(range(rank)) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    if pads is None or pads.size != 2 * len(chosen):
        raise node.wrong("has paddings that do not fit its input")
    widths = [0] * (2 * rank)
    for i, axis in enumerate(chosen):
        widths[2 * axis], widths[2 * axis + 1] = int(pads[i]), int(pads[len(chosen) + i])
    if min(widths) < 0:
        raise _Refused("negative padding (cropping) has no converter")
    value = 0.0 if fill is None else float(fill.reshape(-1)[0])
    return relax.op.nn.pad(node.input(0), widths, pad_value=value)


def _explicit_pads(node: _Node, kernel: Sequence[int]) -> list[int]:
    """The paddings (begin of each axis, then end of each), whatever `auto_pad` says."""
    spatial = node.shape(0)[2:]
    mode = node.attributes.get("auto_pad", b"NOTSET").decode("ascii", "replace")
    strides = node.integers("strides", [1] * len(spatial))
    dilations = node.integers("dilations", [1] * len(spatial))
    if len(kernel) != len(spatial) or len(strides) != len(spatial) or len(dilations) != len(spatial):
        raise node.wrong(f"has a kernel of {len(kernel)} dimensions on {len(spatial)}")
    if min(*kernel, *strides, *dilations) < 1:
        raise node.wrong("has a kernel, stride or dilation below 1")
    if mode == "NOTSET":
        pads = node.integers("pads", [0] * (2 * len(spatial)))
        if len(pads) != 2 * len(spatial) or min(pads) < 0:
            raise node.wrong("has paddings that do not fit its input")
        return pads
    if mode == "VALID":
        return [0] * (2 * len(spatial))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.wrong(f"has the unknown automatic padding {show_name(mode)}")
    begin, end = [], []
    for n, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
        small, large, _ = same_padding(n, (k - 1) * d + 1, s)
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return begin + end


def _conv(node: _Node) -> relax.Expr:
    rank = len(node.shape(0))
    layouts = {3: ("NCW", "OIW", relax.op.nn.conv1d), 4: ("NCHW", "OIHW", relax.op.nn.conv2d)}
    if rank not in layouts:
        raise _Refused(f"a convolution over {rank - 2} dimensions has no converter")
    data, kernel, function = layouts[rank]
    groups = int(node.attributes.get("group", 1))
    if (
        len(node.shape(1)) != rank
        or node.shape(1)[1] * groups != node.shape(0)[1]
        or node.shape(1)[0] % groups
    ):
        raise node.wrong(
            f"has weights of {shape_text(node.shape(1))} in {groups} groups on {shape_text(node.shape(0))}"
        )
    value = function(
        node.input(0),
        node.input(1),
        strides=node.integers("strides", [1] * (rank - 2)),
        padding=_explicit_pads(node, node.shape(1)[2:]),
        dilation=node.integers("dilations", [1] * (rank - 2)),
        groups=groups,
        data_layout=data,
        kernel_layout=kernel,
    )
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return value
    return relax.op.add(value, relax.op.reshape(node.input(2), [1, -1, *[1] * (rank - 2)]))


def _pool(function: Callable[..., relax.Expr]) -> Callable[[_Node], relax.Expr]:
    def convert(node: _Node) -> relax.Expr:
        if sum(bool(name) for name in node.proto.output) > 1:
            raise _Refused("the indices of its maxima have no converter")
        if len(node.shape(0)) != 4:
            raise _Refused(f"pooling over {len(node.shape(0)) - 2} dimensions has no converter")
        kernel = node.integers("kernel_shape", [])
        return function(
            node.input(0),
            pool_size=kernel,
            strides=node.integers("strides", [1] * len(kernel)),
            padding=_explicit_pads(node, kernel),
            dilation=node.integers("dilations", [1] * len(kernel)),
            ceil_mode=bool(node.attributes.get("ceil_mode", 0)),
            count_include_pad=bool(node.attributes.get("count_include_pad", 0)),
            layout="NCHW",
        )

    return convert


def _concat(node: _Node) -> relax.Expr:
    reals = [node.input(i) for i in range(len(node.inputs))]
    return relax.op.concat(reals, axis=int(node.attributes.get("axis", 0)))


CONVERTERS: Mapping[str, Callable[[_Node], relax.Expr]] = {
    "AveragePool": _pool(relax.op.nn.avg_pool2d),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Dropout": _same,
    "Flatten": _reshape,
    "Identity": _same,
    "MaxPool": _pool(relax.op.nn.max_pool2d),
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
}
"""Converters of edgekit's own, by ONNX operator; the others of `onnx_check.OPERATORS` are TVM's."""


class _Importer(ONNXGraphImporter):  # type: ignore[misc]
    """TVM's ONNX importer, fed node by node so that places are recorded and refusals collected."""

    def __init__(self, checked: CheckedOnnx, places: Mapping[str, Place]) -> None:
        super().__init__({}, "float32", sanitize=False)
        self.opset = checked.opset
        self._checked = checked
        self._places = places
        self._values: dict[str, Array] = {}
        self._refused: list[Unsupported] = []
        graph = checked.model.graph
        self._shapes = {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
            and all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
        }

    def _constant(self, name: str, array: Array) -> None:
        self._values[name] = array
        self._nodes[name] = relax.const(np.array(array))

    def _node(self, proto: NodeProto) -> _Node:
        names = list(proto.input)
        return _Node(
            proto=proto,
            attributes={a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute},
            inputs=tuple(self._nodes[name] if name else None for name in names),
            constants=tuple(self._values.get(name) if name else None for name in names),
            output_shape=self._shapes.get(proto.output[0]),
        )

    def _convert(self, node: _Node) -> relax.Expr:
        op = node.proto.op_type
        if op in CONVERTERS:
            return CONVERTERS[op](node)
        attributes = dict(node.attributes)
        attributes["tvm_custom"] = {"name": node.proto.name, "num_outputs": len(node.proto.output)}
        return self._convert_operator(op, onnx_input(node.inputs), attributes, self.opset)

    def _fold(self, node: _Node, name: str) -> None:
        """Keep the real value of a dequantised constant, for operators that need one (Pad, Clip)."""
        if node.proto.op_type != "DequantizeLinear":
            return
        stored, scale, zero_point = (*node.constants, None)[:3]
        if stored is None or scale is None or stored.size > 64:
            return
        if scale.size == 1:
            zero = 0 if zero_point is None else int(zero_point.reshape(-1)[0])
            real = (stored.astype(np.int64) - zero).astype(np.float32) * scale.reshape(-1)[0]
            self._values[name] = real.astype(np.float32)

    def _place(self, proto: NodeProto) -> Place | None:
        """The source operator of a node; None for one that a quantiser put before its consumer."""
        found = self._places.get(proto.output[0])
        if found is None and proto.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found = self._places.get(proto.input[0])
        return found

    def convert(self) -> tuple[tvm.IRModule, dict[str, Place]]:
        graph = self._checked.model.graph
        for tensor in graph.initializer:
            self._constant(tensor.name, np.asarray(onnx.numpy_helper.to_array(tensor)))
        types = {value.name: value.type.tensor_type for value in graph.input}
        parameters = []
        for position, name in enumerate(self._checked.inputs):
            shape = [d.dim_value for d in types[name].shape.dim]
            variable = relax.Var(
                f"input_{position}", relax.TensorType(shape, INPUT_TYPES[types[name].elem_type])
            )
            self._nodes[name] = variable
            parameters.append(variable)
        written: list[tuple[relax.Var, Place]] = []

        def body() -> relax.Expr:
            written.extend(self._convert_nodes(graph.node))
            refuse(self._refused)
            outputs = [self._nodes[name] for name in self._checked.outputs]
            return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

        module = build_main(self.bb, parameters, body)
        return module, record_places(module, written)

    def _convert_nodes(self, nodes: Sequence[NodeProto]) -> list[tuple[relax.Var, Place]]:
        written: list[tuple[relax.Var, Place]] = []
        places = dict(self._places)
        self._places = places
        for index, proto in enumerate(nodes):
            name = proto.output[0]
            if proto.op_type == "Constant":
                self._constant_node(proto)
                continue
            place = self._place(proto)
            if any(i and i not in self._nodes for i in proto.input):
                continue  # It reads what a refused operator would have written.
            node = self._node(proto)
            try:
                value = self._convert(node)
            except _Refused as refused:
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
            self._fold(node, name)
            if isinstance(value, relax.Tuple | tvm.ir.Call) and not isinstance(value, relax.Var):
                value = self._emit(value)
            if place is not None:
                places[name] = place
                if isinstance(value, relax.Var):
                    written.append((value, place))
            self._check_shape(proto, index, value)
            self._nodes[name] = value
        return written

    def _emit(self, value: relax.Expr) -> relax.Expr:
        value = self.bb.emit(value) if not isinstance(value, relax.Tuple) else value
        if isinstance(value, relax.Tuple):
            return self.bb.emit(value[0])
        if isinstance(value.ty, relax.TupleType):
            return self.bb.emit(relax.TupleGetItem(value, 0))
        return value

    def _constant_node(self, proto: NodeProto) -> None:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute}
        for name, value in attributes.items():
            if name == "value":
                self._constant(proto.output[0], np.asarray(onnx.numpy_helper.to_array(value)))
            elif name in ("value_float", "value_floats"):
                self._constant(proto.output[0], np.asarray(value, dtype=np.float32))
            elif name in ("value_int", "value_ints"):
                self._constant(proto.output[0], np.asarray(value, dtype=np.int64))

    def _check_shape(self, proto: NodeProto, index: int, value: relax.Expr) -> None:
        """Two independent shape inferences, ONNX's and TVM's, must agree."""
        shape = value.ty.shape
        found = (
            None if shape is None else tuple(int(d) if isinstance(d, tvm.tirx.IntImm) else -1 for d in shape)
        )
        wanted = self._shapes.get(proto.output[0])
        if found is None or -1 in found or math.prod(found) < 1:
            raise ModelError(
                f"{proto.op_type} {show_name(proto.output[0])} (operator {index}) has no fixed shape."
            )
        if wanted is not None and found != wanted:
            raise ModelError(
                f"{proto.op_type} {show_name(proto.output[0])} (operator {index}) is {shape_text(wanted)} "
                f"in the ONNX file and {shape_text(found)} after its conversion."
            )


def convert_onnx(checked: CheckedOnnx, places: Mapping[str, Place]) -> tuple[tvm.IRModule, dict[str, Place]]:
    """The Relax module, and the place of each of its variables.

    Args:
        checked: A model in QDQ form.
        places: By output name, the operators of the file as the user has it.

    Raises:
        UnsupportedError: operators in a form that has no converter, all of them at once.
        ModelError: an operator that contradicts itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Importer(checked, places).convert()
