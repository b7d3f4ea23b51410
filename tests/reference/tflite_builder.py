"""Build small int8 TFLite models in memory, one method an operator.

Uses the flatbuffer object API that LiteRT ships (`ai_edge_litert.schema_py_generated`). Every activation is
per-tensor int8 unless a method says otherwise; layouts are TFLite's: activations (N, H, W, C), convolution
weights (C_out, KH, KW, C_in), depthwise weights (1, KH, KW, C_in·multiplier), fully connected weights
(C_out, C_in).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

__all__ = ["Activation", "Padding", "Tensor", "TfliteBuilder", "output_extent"]

Padding = Literal["SAME", "VALID"]
Activation = Literal["NONE", "RELU", "RELU_N1_TO_1", "RELU6"]

_ACTIVATIONS = {
    "NONE": schema.ActivationFunctionType.NONE,
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU_N1_TO_1": schema.ActivationFunctionType.RELU_N1_TO_1,
    "RELU6": schema.ActivationFunctionType.RELU6,
}
_PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int64": schema.TensorType.INT64,
    "int16": schema.TensorType.INT16,
}
# The first version of each operator whose kernel takes int8.
_VERSIONS = {
    "BATCH_MATMUL": 2,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3,
    "REDUCE_MAX": 2,
    "REDUCE_MIN": 2,
    "ARG_MAX": 2,
    "ARG_MIN": 2,
    "SLICE": 2,
    "SPLIT": 2,
    "SPLIT_V": 2,
    "STRIDED_SLICE": 2,
    "PACK": 2,
    "UNPACK": 2,
    "GATHER": 2,
    "REVERSE_V2": 3,
    "TILE": 2,
    "BROADCAST_TO": 3,
    "MIRROR_PAD": 2,
    "SPACE_TO_DEPTH": 2,
    "DEPTH_TO_SPACE": 1,
    "SPACE_TO_BATCH_ND": 2,
    "BATCH_TO_SPACE_ND": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "TRANSPOSE_CONV": 3,
    "ABS": 2,
    "ADD": 2,
    "DIV": 2,
    "EXP": 2,
    "GELU": 2,
    "LEAKY_RELU": 2,
    "LOG": 2,
    "LOGISTIC": 2,
    "MAXIMUM": 2,
    "MINIMUM": 2,
    "MUL": 2,
    "RSQRT": 2,
    "SQRT": 2,
    "SQUARED_DIFFERENCE": 2,
    "SUB": 2,
    "TANH": 2,
    "AVERAGE_POOL_2D": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "SUM": 2,
    "LOG_SOFTMAX": 2,
    "L2_NORMALIZATION": 2,
    "PAD": 2,
    "PADV2": 2,
    "CONCATENATION": 2,
    "RELU": 2,
    "RELU6": 2,
    "RELU_N1_TO_1": 2,
    "SOFTMAX": 2,
    "DEQUANTIZE": 2,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the graph being built. Scale is 0 where the tensor is not quantised."""

    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


def output_extent(extent: int, kernel: int, stride: int, dilation: int, padding: Padding) -> int:
    """Output length of a window along one axis; may be 0 or less when VALID leaves no room."""
    if padding == "SAME":
        return -(-extent // stride)
    return (extent - (kernel - 1) * dilation - 1) // stride + 1


class TfliteBuilder:
    """Collects tensors and operators of one subgraph, then `build()` gives the file's bytes."""

    def __init__(self) -> None:
        self._buffers: list[Any] = [schema.BufferT()]
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}
        self._inputs: list[int] = []
        self._outputs: list[int] = []

    # --- tensors ---------------------------------------------------------------------------------

    def input(
        self,
        shape: Sequence[int],
        scale: float = 0.0,
        zero_point: int = 0,
        *,
        dtype: str = "int8",
        name: str | None = None,
    ) -> Tensor:
        tensor = self._tensor(shape, dtype, scale, zero_point, name or f"input{len(self._inputs)}")
        self._inputs.append(tensor.index)
        return tensor

    def output(self, *tensors: Tensor) -> None:
        """Mark tensors as outputs of the model, in this order."""
        self._outputs.extend(tensor.index for tensor in tensors)

    def constant(
        self,
        values: NDArray[Any],
        scales: Sequence[float] = (),
        zero_point: int = 0,
        *,
        axis: int = 0,
        name: str | None = None,
    ) -> Tensor:
        """A constant; one scale is per tensor, several are per channel along `axis`."""
        scale = float(scales[0]) if len(scales) else 0.0
        tensor = self._tensor(values.shape, values.dtype.name, scale, zero_point, name)
        if len(scales) > 1:
            self._tensors[tensor.index].quantization = _quantization(scales, [zero_point] * len(scales), axis)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(buffer)
        self._tensors[tensor.index].buffer = len(self._buffers) - 1
        return tensor

    # --- operators -------------------------------------------------------------------------------

    def conv2d(
        self,
        x: Tensor,
        weights: NDArray[np.int8],
        bias: NDArray[Any],
        weight_scales: Sequence[float],
        scale: float,
        zero_point: int,
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: Padding = "SAME",
        activation: Activation = "NONE",
    ) -> Tensor:
        options = schema.Conv2DOptionsT()
        self._window(options, stride, dilation, padding, activation)
        shape = self._window_shape(x, weights.shape[1:3], stride, dilation, padding, weights.shape[0])
        inputs = self._weights_and_bias(x, weights, bias, weight_scales, axis=0)
        return self._operator("CONV_2D", inputs, options, shape, scale, zero_point, x.dtype)

    def depthwise_conv2d(
        self,
        x: Tensor,
        weights: NDArray[np.int8],
        bias: NDArray[Any],
        weight_scales: Sequence[float],
        scale: float,
        zero_point: int,
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        padding: Padding = "SAME",
        activation: Activation = "NONE",
    ) -> Tensor:
        options = schema.DepthwiseConv2DOptionsT()
        self._window(options, stride, dilation, padding, activation)
        options.depthMultiplier = weights.shape[3] // x.shape[3]
        shape = self._window_shape(x, weights.shape[1:3], stride, dilation, padding, weights.shape[3])
        inputs = self._weights_and_bias(x, weights, bias, weight_scales, axis=3)
        return self._operator("DEPTHWISE_CONV_2D", inputs, options, shape, scale, zero_point, x.dtype)

    def transpose_conv(
        self,
        x: Tensor,
        weights: NDArray[np.int8],
        bias: NDArray[Any] | None,
        weight_scales: Sequence[float],
        scale: float,
        zero_point: int,
        output: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: Padding = "SAME",
        activation: Activation = "NONE",
    ) -> Tensor:
        """Weights (C_out, KH, KW, C_in); `output` is the height and width that it gives."""
        options = schema.TransposeConvOptionsT()
        options.strideH, options.strideW = stride
        options.padding = _PADDINGS[padding]
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        shape = (x.shape[0], *output, weights.shape[0])
        w, *rest = self._weights_and_bias(x, weights, bias, weight_scales, axis=0)[1:]
        inputs = [self.constant(np.array(shape, np.int32)), w, x, *rest]
        return self._operator("TRANSPOSE_CONV", inputs, options, shape, scale, zero_point)

    def fully_connected(
        self,
        x: Tensor,
        weights: NDArray[np.int8],
        bias: NDArray[Any] | None,
        weight_scales: Sequence[float],
        scale: float,
        zero_point: int,
        *,
        activation: Activation = "NONE",
        keep_num_dims: bool = False,
    ) -> Tensor:
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        options.keepNumDims = keep_num_dims
        rows = int(np.prod(x.shape)) // weights.shape[1]
        shape = (*x.shape[:-1], weights.shape[0]) if keep_num_dims else (rows, weights.shape[0])
        inputs = self._weights_and_bias(x, weights, bias, weight_scales, axis=0)
        return self._operator("FULLY_CONNECTED", inputs, options, shape, scale, zero_point, x.dtype)

    def add(
        self, a: Tensor, b: Tensor, scale: float, zero_point: int, *, activation: Activation = "NONE"
    ) -> Tensor:
        """Sum with numpy's broadcasting."""
        options = schema.AddOptionsT()
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self._operator("ADD", [a, b], options, shape, scale, zero_point)

    def binary(
        self,
        name: Literal["ADD", "DIV", "MUL", "SQUARED_DIFFERENCE", "SUB"],
        a: Tensor,
        b: Tensor,
        scale: float,
        zero_point: int,
        *,
        activation: Activation = "NONE",
    ) -> Tensor:
        """An arithmetic operator of two tensors, with numpy's broadcasting."""
        if name == "SQUARED_DIFFERENCE":
            options: Any = schema.SquaredDifferenceOptionsT()
        else:
            options = getattr(schema, f"{name.capitalize()}OptionsT")()
            options.fusedActivationFunction = _ACTIVATIONS[activation]
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self._operator(name, [a, b], options, shape, scale, zero_point)

    def extremum(self, name: Literal["MAXIMUM", "MINIMUM"], a: Tensor, b: Tensor) -> Tensor:
        options = schema.MaximumMinimumOptionsT()
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self._operator(name, [a, b], options, shape, a.scale, a.zero_point)

    def prelu(self, x: Tensor, slopes: Tensor, scale: float, zero_point: int) -> Tensor:
        return self._operator("PRELU", [x, slopes], None, x.shape, scale, zero_point)

    def function(
        self,
        name: str,
        x: Tensor,
        scale: float,
        zero_point: int,
        *,
        slope: float | None = None,
        approximate: bool = False,
    ) -> Tensor:
        """An elementwise function of one tensor by its schema name."""
        options: Any = None
        if name == "LEAKY_RELU":
            options = schema.LeakyReluOptionsT()
            options.alpha = slope
        if name == "GELU":
            options = schema.GeluOptionsT()
            options.approximate = approximate
        return self._operator(name, [x], options, x.shape, scale, zero_point)

    def average_pool(
        self,
        x: Tensor,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: Padding = "VALID",
        activation: Activation = "NONE",
    ) -> Tensor:
        return self._pool("AVERAGE_POOL_2D", x, kernel, stride, padding, activation)

    def max_pool(
        self,
        x: Tensor,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: Padding = "VALID",
        activation: Activation = "NONE",
    ) -> Tensor:
        return self._pool("MAX_POOL_2D", x, kernel, stride, padding, activation)

    def reduction(
        self,
        name: Literal["MEAN", "SUM"],
        x: Tensor,
        axes: Sequence[int],
        scale: float,
        zero_point: int,
        *,
        keep_dims: bool = True,
    ) -> Tensor:
        options = schema.ReducerOptionsT()
        options.keepDims = keep_dims
        reduced = {axis % len(x.shape) for axis in axes}
        shape = [
            1 if i in reduced else extent for i, extent in enumerate(x.shape) if keep_dims or i not in reduced
        ]
        indices = self.constant(np.array(axes, np.int32))
        return self._operator(name, [x, indices], options, shape, scale, zero_point, x.dtype)

    def mean(
        self, x: Tensor, axes: Sequence[int], scale: float, zero_point: int, *, keep_dims: bool = True
    ) -> Tensor:
        return self.reduction("MEAN", x, axes, scale, zero_point, keep_dims=keep_dims)

    def normalized(self, name: Literal["L2_NORMALIZATION", "LOG_SOFTMAX"], x: Tensor) -> Tensor:
        """Rows along the last axis, in the quantisation that LiteRT asks for."""
        logarithm = name == "LOG_SOFTMAX"
        options: Any = schema.LogSoftmaxOptionsT() if logarithm else schema.L2NormOptionsT()
        scale, zero_point = (1 / 16, 127) if logarithm else (1 / 128, 0)
        if x.dtype == "float32":
            scale, zero_point = 0.0, 0
        return self._operator(name, [x], options, x.shape, scale, zero_point, x.dtype)

    def pad(self, x: Tensor, paddings: Sequence[tuple[int, int]]) -> Tensor:
        table = self.constant(np.array(paddings, np.int32).reshape(len(paddings), 2))
        shape = [extent + before + after for extent, (before, after) in zip(x.shape, paddings, strict=True)]
        return self._operator("PAD", [x, table], schema.PadOptionsT(), shape, x.scale, x.zero_point)

    def padv2(self, x: Tensor, paddings: Sequence[tuple[int, int]], value: int) -> Tensor:
        """Pad with a stored value (int8, in the input's quantisation)."""
        table = self.constant(np.array(paddings, np.int32).reshape(len(paddings), 2))
        fill = self.constant(np.array([value], np.int8).reshape(()), [x.scale], x.zero_point)
        shape = [extent + before + after for extent, (before, after) in zip(x.shape, paddings, strict=True)]
        return self._operator("PADV2", [x, table, fill], schema.PadV2OptionsT(), shape, x.scale, x.zero_point)

    def concatenation(self, tensors: Sequence[Tensor], axis: int, scale: float, zero_point: int) -> Tensor:
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        shape = list(tensors[0].shape)
        shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
        return self._operator("CONCATENATION", list(tensors), options, shape, scale, zero_point)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        options = schema.ReshapeOptionsT()
        options.newShape = list(shape)
        target = self.constant(np.array(shape, np.int32))
        return self._operator("RESHAPE", [x, target], options, shape, x.scale, x.zero_point)

    def relu(self, x: Tensor, scale: float, zero_point: int) -> Tensor:
        return self._operator("RELU", [x], None, x.shape, scale, zero_point, x.dtype)

    def relu6(self, x: Tensor, scale: float, zero_point: int) -> Tensor:
        return self._operator("RELU6", [x], None, x.shape, scale, zero_point, x.dtype)

    def softmax(self, x: Tensor, *, beta: float = 1.0) -> Tensor:
        options = schema.SoftmaxOptionsT()
        options.beta = beta
        return self._operator("SOFTMAX", [x], options, x.shape, 1.0 / 256.0, -128)

    def quantize(self, x: Tensor, scale: float, zero_point: int) -> Tensor:
        """Float32 to int8, or int8 to int8 of another scale."""
        return self._operator("QUANTIZE", [x], schema.QuantizeOptionsT(), x.shape, scale, zero_point)

    def dequantize(self, x: Tensor) -> Tensor:
        return self._operator("DEQUANTIZE", [x], schema.DequantizeOptionsT(), x.shape, 0.0, 0, "float32")

    def batch_matmul(
        self, a: Tensor, b: Tensor, scale: float, zero_point: int, *, adjoints: tuple[bool, bool]
    ) -> Tensor:
        options = schema.BatchMatMulOptionsT()
        options.adjX, options.adjY = adjoints
        shapes = [
            (*each.shape[:-2], each.shape[-1], each.shape[-2]) if adjoint else each.shape
            for each, adjoint in zip((a, b), adjoints, strict=True)
        ]
        batch = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
        shape = (*batch, shapes[0][-2], shapes[1][-1])
        return self._operator("BATCH_MATMUL", [a, b], options, shape, scale, zero_point, a.dtype)

    def move(
        self,
        name: str,
        x: Sequence[Tensor],
        options: Any,
        shapes: Sequence[Sequence[int]],
        *,
        before: Sequence[NDArray[Any]] = (),
        after: Sequence[NDArray[Any]] = (),
        dtype: str | None = None,
    ) -> list[Tensor]:
        """An operator that keeps its input's quantisation, with constants of integers around its inputs."""
        inputs = [*map(self.constant, before), *x, *map(self.constant, after)]
        kept = (x[0].scale, x[0].zero_point) if dtype is None else (0.0, 0)
        first = self._operator(name, inputs, options, shapes[0], *kept, dtype or x[0].dtype)
        rest = [self._tensor(shape, first.dtype, *kept, None) for shape in shapes[1:]]
        self._operators[-1].outputs = [tensor.index for tensor in (first, *rest)]
        return [first, *rest]

    # --- the file --------------------------------------------------------------------------------

    def build(self) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors = self._tensors
        graph.inputs = self._inputs
        graph.outputs = self._outputs
        graph.operators = self._operators
        model = schema.ModelT()
        model.version = 3
        model.description = "built by edgekit's tests"
        model.operatorCodes = [_operator_code(name) for name in self._codes]
        model.subgraphs = [graph]
        model.buffers = self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    # --- helpers ---------------------------------------------------------------------------------

    def _tensor(
        self, shape: Sequence[int], dtype: str, scale: float, zero_point: int, name: str | None
    ) -> Tensor:
        tensor = schema.TensorT()
        tensor.shape = [int(extent) for extent in shape]
        tensor.type = _TYPES[dtype]
        tensor.buffer = 0
        tensor.name = name or f"t{len(self._tensors)}"
        if scale:
            tensor.quantization = _quantization([scale], [zero_point], 0)
        self._tensors.append(tensor)
        extents = tuple(int(extent) for extent in shape)
        return Tensor(len(self._tensors) - 1, extents, dtype, float(np.float32(scale)), zero_point)

    def _operator(
        self,
        name: str,
        inputs: Sequence[Tensor | None],
        options: Any,
        shape: Sequence[int],
        scale: float,
        zero_point: int,
        dtype: str = "int8",
    ) -> Tensor:
        out = self._tensor(shape, dtype, scale, zero_point, None)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(name, len(self._codes))
        operator.inputs = [-1 if tensor is None else tensor.index for tensor in inputs]
        operator.outputs = [out.index]
        if options is not None:
            operator.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self._operators.append(operator)
        return out

    def _weights_and_bias(
        self,
        x: Tensor,
        weights: NDArray[np.int8],
        bias: NDArray[Any] | None,
        scales: Sequence[float],
        *,
        axis: int,
    ) -> list[Tensor | None]:
        w = self.constant(weights, scales, axis=axis)
        if bias is None:
            # The converter writes an absent bias as tensor −1 in FULLY_CONNECTED; convolutions refuse that.
            return [x, w, None] if weights.ndim == 2 else [x, w]
        bias_scales = [float(np.float32(x.scale) * np.float32(scale)) for scale in scales]
        return [x, w, self.constant(bias, bias_scales)]

    @staticmethod
    def _window(
        options: Any,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: Padding,
        activation: Activation,
    ) -> None:
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.padding = _PADDINGS[padding]
        options.fusedActivationFunction = _ACTIVATIONS[activation]

    @staticmethod
    def _window_shape(
        x: Tensor,
        kernel: Sequence[int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        padding: Padding,
        channels: int,
    ) -> tuple[int, ...]:
        height, width = (
            output_extent(x.shape[1 + i], kernel[i], stride[i], dilation[i], padding) for i in range(2)
        )
        return (x.shape[0], height, width, channels)

    def _pool(
        self,
        name: str,
        x: Tensor,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: Padding,
        activation: Activation,
    ) -> Tensor:
        options = schema.Pool2DOptionsT()
        options.filterHeight, options.filterWidth = kernel
        options.strideH, options.strideW = stride
        options.padding = _PADDINGS[padding]
        options.fusedActivationFunction = _ACTIVATIONS[activation]
        shape = self._window_shape(x, kernel, stride, (1, 1), padding, x.shape[3])
        return self._operator(name, [x], options, shape, x.scale, x.zero_point, x.dtype)


def _quantization(scales: Sequence[float], zero_points: Sequence[int], axis: int) -> Any:
    quantization = schema.QuantizationParametersT()
    quantization.scale = [float(np.float32(scale)) for scale in scales]
    quantization.zeroPoint = [int(zero_point) for zero_point in zero_points]
    quantization.quantizedDimension = axis
    return quantization


def _operator_code(name: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = _VERSIONS.get(name, 1)
    return code
