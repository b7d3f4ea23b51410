"""From a checked TFLite graph to a Relax module in QDQ form, through TVM's own TFLite frontend.

TVM's converters are kept where they give what the compiler wants; the others are replaced here. What every
quantised operator becomes:

    dequantize(inputs) → one float operator → quantize(output's scale) → clip(int8) for a fused activation

- A weight is always `dequantize(constant)` in the layout of its operator: HWIO for conv2d, HWOI for
  depthwise (HWIO with one input channel), (depth, units) for matmul. A bias is `dequantize(int32 constant)`
  with the scale s_input·s_weights, which LiteRT's kernels take it for, whatever the file declares.
- reshape, squeeze, expand_dims and transpose stay on the integers: they move bytes.
- A fused activation is an integer clip behind the quantize, left out where it changes nothing. Its bounds
  are those of LiteRT's CalculateActivationRangeQuantized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite
import tvm
from tvm import relax
from tvm.relax.frontend.tflite.tflite_frontend import ExprTable, OperatorConverter, TensorWrapper

from edgekit.artifacts import Place
from edgekit.errors import EdgekitError, ModelError, UnsupportedError
from edgekit.frontend.places import build_main, record_places
from edgekit.frontend.tflite_check import ACTIVATION_FIELD, CheckedGraph, place_of
from edgekit.frontend.tflite_functions import FUNCTIONS
from edgekit.frontend.tflite_graph import TfliteTensor
from edgekit.frontend.tflite_move_converters import CONVERTERS, Move
from edgekit.frontend.tflite_moves import MOVES
from edgekit.frontend.tflite_operators import (
    Activation,
    Operands,
    activation_of,
    arg_axis,
    concatenation_axis,
    matmul_adjoints,
    pad_widths,
    permutation,
    reduce_axes,
    resize_modes,
    softmax_beta,
    transposed_window,
    window_of,
)

__all__ = ["activation_range", "convert_tflite"]


def activation_range(
    activation: Activation, scale: float, zero_point: int, dtype: str = "int8"
) -> tuple[int, int]:
    """The stored bounds of a fused activation, as LiteRT's CalculateActivationRangeQuantized computes them.

    max(type's least, zp + round(low/scale)) and min(type's most, zp + round(high/scale)), in float32, ties
    away from zero.
    """

    def quantized(real: float) -> int:
        ratio = float(np.float32(real) / np.float32(scale))
        return zero_point + int(math.copysign(math.floor(abs(ratio) + 0.5), ratio))

    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    if activation in (Activation.RELU, Activation.RELU6):
        low = max(low, quantized(0.0))
    if activation == Activation.RELU6:
        high = min(high, quantized(6.0))
    if activation == Activation.RELU_N1_TO_1:
        low, high = max(low, quantized(-1.0)), min(high, quantized(1.0))
    return low, high


def _reals(tensor: TfliteTensor) -> npt.NDArray[np.float32]:
    """Constant weights of a float operator; where they are stored as integers, what these stand for."""
    values = tensor.values()
    if tensor.quantization is None or tensor.dtype == "float32":
        return np.asarray(values, dtype=np.float32)
    scales = np.asarray(tensor.quantization.scales, dtype=np.float32)
    if scales.size > 1:
        scales = scales.reshape([-1 if a == tensor.quantization.axis else 1 for a in range(values.ndim)])
    return np.asarray(values.astype(np.float32) * scales, dtype=np.float32)


class QdqConverter(OperatorConverter):  # type: ignore[misc]
    """TVM's TFLite converter over a checked graph, with the QDQ forms that it lacks."""

    def __init__(
        self,
        model: Any,
        subgraph: Any,
        expressions: ExprTable,
        builder: relax.BlockBuilder,
        checked: CheckedGraph,
    ) -> None:
        super().__init__(model, subgraph, expressions, builder)
        self.checked = checked
        stock = self.convert_map
        # Explicit, so that no file reaches a converter that is not in this list.
        self.converters: Mapping[str, Callable[[Operands, Any], relax.Expr | list[relax.Expr]]] = {
            "ADD": self._elementwise(relax.op.add),
            "AVERAGE_POOL_2D": self._average_pool,
            "ARG_MAX": self._arg(relax.op.argmax),
            "ARG_MIN": self._arg(relax.op.argmin),
            "BATCH_MATMUL": self._batch_matmul,
            "CONCATENATION": self._concatenation,
            "CONV_2D": self._conv2d,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "DEQUANTIZE": lambda o, _: self._real(o.input(0)),
            "DIV": self._elementwise(relax.op.divide),
            "EXPAND_DIMS": self._move,
            "FULLY_CONNECTED": self._fully_connected,
            "L2_NORMALIZATION": self._l2_normalization,
            "LOG_SOFTMAX": self._log_softmax,
            "MAXIMUM": self._elementwise(relax.op.maximum),
            "MAX_POOL_2D": self._max_pool,
            "MEAN": self._reduction(relax.op.mean),
            "MINIMUM": self._elementwise(relax.op.minimum),
            "MUL": self._elementwise(relax.op.multiply),
            "PAD": self._pad,
            "PADV2": self._pad,
            "PRELU": self._prelu,
            "QUANTIZE": self._quantize,
            "REDUCE_MAX": self._extreme(relax.op.max),
            "REDUCE_MIN": self._extreme(relax.op.min),
            "RELU": lambda _, op: stock["RELU"](op=op),
            "RELU6": lambda _, op: stock["RELU6"](op=op),
            "RELU_N1_TO_1": lambda _, op: stock["RELU_N1_TO_1"](op=op),
            "RESHAPE": self._move,
            "RESIZE_BILINEAR": self._resize,
            "RESIZE_NEAREST_NEIGHBOR": self._resize,
            "SOFTMAX": self._softmax,
            "SQUEEZE": self._move,
            "SQUARED_DIFFERENCE": self._elementwise(lambda a, b: relax.op.square(relax.op.subtract(a, b))),
            "SUM": self._reduction(relax.op.sum),
            "SUB": self._elementwise(relax.op.subtract),
            "TRANSPOSE": self._transpose,
            **{name: self._function(function) for name, function in FUNCTIONS.items()},
            "TRANSPOSE_CONV": self._transpose_conv,
            **{name: self._moved(move) for name, move in CONVERTERS.items()},
        }

    # TVM keys its expressions by tensor name, which files need not give or keep unique.

    def get_expr(self, input_tensor_idx: int) -> relax.Expr:
        return self._stored(self.checked.graph.tensors[int(input_tensor_idx)])

    def has_expr(self, input_tensor_idx: int) -> bool:
        return bool(self.exp_tab.has_expr(str(int(input_tensor_idx))))

    def get_tensor_shape(self, tensor_wrapper: TensorWrapper) -> npt.NDArray[np.int32]:
        return np.asarray(self.checked.graph.tensors[tensor_wrapper.tensor_idx].shape, dtype=np.int32)

    def convert_op_to_relax(self) -> list[tuple[relax.Var, Place]]:
        """Convert every operator in order; (the variable of its output, its place) of each."""
        written: list[tuple[relax.Var, Place]] = []
        for operands in self.checked.operands:
            operator = operands.operator
            try:
                value = self.converters[operator.op](operands, self.subgraph.Operators(operator.index))
                # Bound to a variable here: TVM would copy the expression into each of its users.
                variables = [self.bb.emit(each) for each in _outputs_of(value)]
            except EdgekitError:
                raise
            except Exception as error:  # TVM raises whatever its Python and C++ parts come upon.
                raise operands.wrong(f"TVM cannot convert it ({type(error).__name__})") from error
            for variable, output in zip(variables, operands.outputs, strict=True):
                found = tuple(int(d) for d in variable.ty.shape)
                if found != output.shape or str(variable.ty.dtype) != output.dtype:
                    raise ModelError(f"{operands.place()}: TVM's frontend gives {found} {variable.ty.dtype}.")
                self.exp_tab.set_expr(str(output.index), variable)
                written.append((variable, place_of(self.checked.graph, operator)))
        return written

    # Tensors as expressions.

    def _stored(self, tensor: TfliteTensor) -> relax.Expr:
        """The integers of a tensor, as a variable or a constant."""
        if self.has_expr(tensor.index):
            return self.exp_tab.get_expr(str(tensor.index))
        return relax.const(np.array(tensor.values()), tensor.dtype)

    @staticmethod
    def _dequantized(stored: relax.Expr, scale: Any, zero_point: int, axis: int = 0) -> relax.Expr:
        return relax.op.dequantize(
            stored, relax.const(scale, "float32"), relax.const(zero_point, "int32"), axis, "float32"
        )

    def _real(self, tensor: TfliteTensor) -> relax.Expr:
        """An activation in float32."""
        stored = self._stored(tensor)
        if tensor.quantization is None or tensor.dtype == "float32":
            return stored
        q = tensor.quantization
        return self._dequantized(stored, q.scales[0], q.zero_points[0])

    def _weights(
        self, operands: Operands, layout: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], axis: int
    ) -> relax.Expr:
        """Constant weights in the layout wanted; the output channels are along `axis` of it."""
        tensor = operands.input(1)
        if operands.output.dtype == "float32":
            return relax.const(np.ascontiguousarray(layout(_reals(tensor))), "float32")
        assert tensor.quantization is not None
        scales = tensor.quantization.scales
        scale: Any = np.asarray(scales, dtype=np.float32) if len(scales) > 1 else scales[0]
        return self._dequantized(
            relax.const(np.ascontiguousarray(layout(tensor.values())), "int8"),
            scale,
            0,
            axis if len(scales) > 1 else 0,
        )

    def _with_bias(self, operands: Operands, value: relax.Expr) -> relax.Expr:
        bias = self._bias(operands, 2, operands.input(0))
        return value if bias is None else relax.op.add(value, bias)

    def _bias(self, operands: Operands, position: int, data: TfliteTensor) -> relax.Expr | None:
        bias = operands.optional(position)
        if bias is None:
            return None
        if bias.dtype == "float32":
            return relax.const(np.array(bias.values()), "float32")
        x, w = data.quantization, operands.input(1).quantization
        assert x is not None
        assert w is not None
        scales = np.float32(x.scales[0]) * np.asarray(w.scales, dtype=np.float32)
        # Where the weights have one scale the bias keeps one too, as the converters write it.
        scale: Any = scales if len(scales) > 1 else float(scales[0])
        # The int64 of a 16x8 layer was checked to fit: Relax dequantises no wider type.
        constant = relax.const(np.array(bias.values()).astype(np.int32), "int32")
        return self._dequantized(constant, scale, 0)

    def _quantized(self, operands: Operands, value: relax.Expr) -> relax.Expr:
        """Quantise to the output's scale, then clamp to the fused activation; in a float model only clamp."""
        output = operands.output
        if output.dtype == "float32":
            return self._activated(operands, value)
        assert output.quantization is not None
        scale, zero_point = output.quantization.scales[0], output.quantization.zero_points[0]
        stored = relax.op.quantize(
            value, relax.const(scale, "float32"), relax.const(zero_point, "int32"), 0, output.dtype
        )
        field = ACTIVATION_FIELD.get(operands.operator.op)
        activation = Activation.NONE if field is None else activation_of(operands, field)
        assert activation is not None
        low, high = activation_range(activation, scale, zero_point, output.dtype)
        limits = np.iinfo(output.dtype)
        if activation == Activation.NONE or (low, high) == (limits.min, limits.max):
            return stored
        return relax.op.clip(stored, float(low), float(high))

    @staticmethod
    def _activated(operands: Operands, value: relax.Expr) -> relax.Expr:
        field = ACTIVATION_FIELD.get(operands.operator.op)
        activation = Activation.NONE if field is None else activation_of(operands, field)
        if activation == Activation.RELU:
            return relax.op.nn.relu(value)
        if activation == Activation.RELU6:
            return relax.op.clip(value, 0.0, 6.0)
        return value if activation == Activation.NONE else relax.op.clip(value, -1.0, 1.0)

    # Converters: (operands, TVM's operator) → the expression of the output.

    def _elementwise(self, function: Callable[..., relax.Expr]) -> Callable[[Operands, Any], relax.Expr]:
        def convert(operands: Operands, _: Any) -> relax.Expr:
            value = function(self._real(operands.input(0)), self._real(operands.input(1)))
            return self._quantized(operands, value)

        return convert

    def _function(
        self, function: Callable[[relax.Expr, Operands], relax.Expr]
    ) -> Callable[[Operands, Any], relax.Expr]:
        def convert(operands: Operands, _: Any) -> relax.Expr:
            return self._quantized(operands, function(self._real(operands.input(0)), operands))

        return convert

    def _prelu(self, operands: Operands, _: Any) -> relax.Expr:
        """Slopes along one axis; those of a whole row are along the axis of the flattened row."""
        data, slopes = operands.input(0), operands.input(1)
        axes = [axis - len(slopes.shape) for axis, size in enumerate(slopes.shape) if size != 1]
        if slopes.quantization is None:
            real = relax.const(np.array(slopes.values()).reshape(-1), "float32")
        else:
            constant = relax.const(np.array(slopes.values()).reshape(-1), "int8")
            scale, zero_point = slopes.quantization.scales[0], slopes.quantization.zero_points[0]
            real = self._dequantized(constant, scale, zero_point)
        if len(axes) <= 1:
            value = relax.op.nn.prelu(self._real(data), real, axes[0] if axes else -1)
            return self._quantized(operands, value)
        row = math.prod(slopes.shape)
        if data.shape[-len(slopes.shape) :] != slopes.shape and data.shape[1:] != slopes.shape[1:]:
            raise UnsupportedError(f"{operands.place()}: its slopes vary along some of several axes.")
        flat = relax.op.reshape(self._real(data), (math.prod(data.shape) // row, row))
        stored = self._quantized(operands, relax.op.nn.prelu(flat, real, 1))
        return relax.op.reshape(stored, data.shape)

    def _convolution(self, operands: Operands, weights: relax.Expr, layout: str, groups: int) -> relax.Expr:
        window = window_of(operands)
        value = relax.op.nn.conv2d(
            self._real(operands.input(0)),
            weights,
            strides=list(window.strides),
            padding=list(window.pads),
            dilation=list(window.dilation),
            groups=groups,
            data_layout="NHWC",
            kernel_layout=layout,
        )
        return self._quantized(operands, self._with_bias(operands, value))

    def _conv2d(self, operands: Operands, _: Any) -> relax.Expr:
        weights = self._weights(operands, lambda w: w.transpose(1, 2, 3, 0), axis=3)
        groups = operands.input(0).shape[3] // operands.input(1).shape[3]
        return self._convolution(operands, weights, "HWIO", groups)

    def _depthwise(self, operands: Operands, _: Any) -> relax.Expr:
        channels = operands.input(0).shape[3]
        if channels == 1:
            # One group: an ordinary convolution from one channel.
            weights = self._weights(operands, lambda w: w.transpose(1, 2, 0, 3), axis=3)
            return self._convolution(operands, weights, "HWIO", 1)
        weights = self._weights(operands, lambda w: w.transpose(1, 2, 3, 0), axis=2)
        return self._convolution(operands, weights, "HWOI", channels)

    def _transpose_conv(self, operands: Operands, _: Any) -> relax.Expr:
        """As NCHW, which is the layout in which TVM can compute it in float32, too."""
        window = transposed_window(operands)
        top, left, bottom, right = window.pads
        extra = (max(-bottom, 0), max(-right, 0))
        if any(more >= stride for more, stride in zip(extra, window.strides, strict=True)):
            raise UnsupportedError(f"{operands.place()}: its output goes on beyond what its input reaches.")
        data = operands.input(2)
        value = relax.op.nn.conv2d_transpose(
            relax.op.permute_dims(self._real(data), [0, 3, 1, 2]),
            self._weights(operands, lambda w: w.transpose(3, 0, 1, 2), axis=1),
            strides=list(window.strides),
            padding=[top, left, max(bottom, 0), max(right, 0)],
            output_padding=list(extra),
            data_layout="NCHW",
            kernel_layout="IOHW",
        )
        bias = self._bias(operands, 3, data)
        if bias is not None:
            value = relax.op.add(value, relax.op.reshape(bias, (1, operands.output.shape[3], 1, 1)))
        return self._quantized(operands, relax.op.permute_dims(value, [0, 2, 3, 1]))

    def _fully_connected(self, operands: Operands, _: Any) -> relax.Expr:
        """The input flattened to (rows, depth) as LiteRT does, whatever its rank."""
        x = operands.input(0)
        units, depth = operands.input(1).shape
        rows = math.prod(x.shape) // depth
        stored = self._stored(x)
        if x.shape != (rows, depth):
            stored = relax.op.reshape(stored, (rows, depth))
        real = stored
        if x.quantization is not None and x.dtype != "float32":
            real = self._dequantized(stored, x.quantization.scales[0], x.quantization.zero_points[0])
        value = relax.op.matmul(real, self._weights(operands, lambda w: w.transpose(1, 0), axis=1))
        stored = self._quantized(operands, self._with_bias(operands, value))
        return (
            stored
            if operands.output.shape == (rows, units)
            else relax.op.reshape(stored, operands.output.shape)
        )

    def _average_pool(self, operands: Operands, _: Any) -> relax.Expr:
        """TVM's own converter averages int32 and truncates."""
        return self._pool(operands, relax.op.nn.avg_pool2d)

    def _max_pool(self, operands: Operands, _: Any) -> relax.Expr:
        return self._pool(operands, relax.op.nn.max_pool2d)

    def _pool(self, operands: Operands, function: Callable[..., relax.Expr]) -> relax.Expr:
        window = window_of(operands)
        value = function(
            self._real(operands.input(0)),
            pool_size=list(window.kernel),
            strides=list(window.strides),
            padding=list(window.pads),
            layout="NHWC",
        )
        return self._quantized(operands, value)

    def _reduction(self, function: Callable[..., relax.Expr]) -> Callable[[Operands, Any], relax.Expr]:
        def convert(operands: Operands, _: Any) -> relax.Expr:
            keep = operands.options is not None and operands.options.boolean(0)
            value = function(self._real(operands.input(0)), list(reduce_axes(operands)), keep)
            return self._quantized(operands, value)

        return convert

    def _l2_normalization(self, operands: Operands, _: Any) -> relax.Expr:
        """Each row by its length, at least 10⁻⁶. `reference/l2normalization.h`"""
        value = self._real(operands.input(0))
        length = relax.op.sqrt(relax.op.sum(relax.op.multiply(value, value), [-1], True))
        length = relax.op.maximum(length, relax.const(1e-6, "float32"))
        return self._quantized(operands, relax.op.divide(value, length))

    def _log_softmax(self, operands: Operands, _: Any) -> relax.Expr:
        return self._quantized(operands, relax.op.nn.log_softmax(self._real(operands.input(0)), -1))

    def _extreme(self, function: Callable[..., relax.Expr]) -> Callable[[Operands, Any], relax.Expr]:
        def convert(operands: Operands, _: Any) -> relax.Expr:
            keep = operands.options is not None and operands.options.boolean(0)
            return function(self._stored(operands.input(0)), list(reduce_axes(operands)), keep)

        return convert

    def _arg(self, function: Callable[..., relax.Expr]) -> Callable[[Operands, Any], relax.Expr]:
        def convert(operands: Operands, _: Any) -> relax.Expr:
            place = function(self._stored(operands.input(0)), arg_axis(operands), False)
            return place if operands.output.dtype == "int64" else relax.op.astype(place, "int32")

        return convert

    def _resize(self, operands: Operands, _: Any) -> relax.Expr:
        """On the stored integers, which is what makes it LiteRT's fixed-point resize."""
        aligned, centred = resize_modes(operands)
        nearest = operands.operator.op == "RESIZE_NEAREST_NEIGHBOR"
        half_pixel = "tf_half_pixel_for_nn" if nearest else "half_pixel"
        return relax.op.image.resize2d(
            self._stored(operands.input(0)),
            operands.output.shape[1:3],
            layout="NHWC",
            method="nearest_neighbor" if nearest else "linear",
            coordinate_transformation_mode="align_corners"
            if aligned
            else (half_pixel if centred else "asymmetric"),
            rounding_method="round" if aligned else "floor",
        )

    def _batch_matmul(self, operands: Operands, _: Any) -> relax.Expr:
        reals = []
        for position, adjoint in enumerate(matmul_adjoints(operands)):
            tensor = operands.input(position)
            q = tensor.quantization
            assert q is not None
            if tensor.data is not None:
                # A batch of one keeps a constant matrix from being taken for the weights of a dense layer.
                values = np.array(tensor.values())
                values = np.swapaxes(values, -1, -2) if adjoint else values
                shape = values.shape if values.ndim > 2 else (1, *values.shape)
                stored = relax.const(np.ascontiguousarray(values.reshape(shape)), tensor.dtype)
            else:
                stored = self._stored(tensor)
                rank = len(tensor.shape)
                if adjoint:
                    stored = self.bb.emit(
                        relax.op.permute_dims(stored, [*range(rank - 2), rank - 1, rank - 2])
                    )
            reals.append(self._dequantized(stored, q.scales[0], q.zero_points[0]))
        stored = self.bb.emit(self._quantized(operands, relax.op.matmul(*reals)))
        return relax.op.reshape(stored, operands.output.shape)

    def _pad(self, operands: Operands, _: Any) -> relax.Expr:
        fill = 0.0
        value = operands.optional(2)
        if value is not None and value.dtype == "float32":
            fill = float(value.values().ravel()[0])
        elif value is not None:
            assert value.quantization is not None
            stored = int(value.values().ravel()[0])
            fill = float(
                np.float32(value.quantization.scales[0]) * (stored - value.quantization.zero_points[0])
            )
        widths = [width for pair in pad_widths(operands) for width in pair]
        return self._quantized(
            operands, relax.op.nn.pad(self._real(operands.input(0)), widths, pad_value=fill)
        )

    def _concatenation(self, operands: Operands, _: Any) -> relax.Expr:
        reals = [self._real(operands.input(i)) for i in range(len(operands.inputs))]
        return self._quantized(operands, relax.op.concat(reals, axis=concatenation_axis(operands)))

    def _softmax(self, operands: Operands, _: Any) -> relax.Expr:
        value = self._real(operands.input(0))
        beta = softmax_beta(operands)
        if beta != 1.0:
            value = relax.op.multiply(value, relax.const(beta, "float32"))
        return self._quantized(operands, relax.op.nn.softmax(value, axis=-1))

    def _quantize(self, operands: Operands, _: Any) -> relax.Expr:
        return self._quantized(operands, self._real(operands.input(0)))

    def _move(self, operands: Operands, _: Any) -> relax.Expr:
        return relax.op.reshape(self._stored(operands.input(0)), operands.output.shape)

    def _moved(self, move: Move) -> Callable[[Operands, Any], relax.Expr | list[relax.Expr]]:
        def convert(operands: Operands, _: Any) -> relax.Expr | list[relax.Expr]:
            plain = MOVES[operands.operator.op].plain
            stored = [self._stored(operands.input(i)) for i in range(len(operands.inputs)) if i not in plain]
            return move(operands, stored, self.bb)

        return convert

    def _transpose(self, operands: Operands, _: Any) -> relax.Expr:
        return relax.op.permute_dims(self._stored(operands.input(0)), list(permutation(operands)))


def _outputs_of(value: relax.Expr | list[relax.Expr]) -> list[relax.Expr]:
    """A converter gives one expression, or one for each output."""
    return value if isinstance(value, list) else [value]


def convert_tflite(content: bytes, checked: CheckedGraph) -> tuple[tvm.IRModule, dict[str, Place]]:
    """The Relax module, and the place of each of its variables.

    Inputs are the parameters `input_0`, `input_1`, … of `main`; a single output is returned as it is,
    several as a tuple.
    """
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = checked.graph
    builder = relax.BlockBuilder()
    expressions = ExprTable()
    parameters = []
    for position, index in enumerate(graph.inputs):
        tensor = graph.tensors[index]
        variable = relax.Var(f"input_{position}", relax.TensorType(tensor.shape, tensor.dtype))
        expressions.set_expr(str(index), variable)
        parameters.append(variable)
    converter = QdqConverter(model, model.Subgraphs(0), expressions, builder, checked)
    written: list[tuple[relax.Var, Place]] = []

    def body() -> relax.Expr:
        written.extend(converter.convert_op_to_relax())
        outputs = [converter.get_expr(index) for index in graph.outputs]
        return outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)

    module = build_main(builder, parameters, body)
    return module, record_places(module, written)
