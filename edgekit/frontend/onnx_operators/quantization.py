"""QuantizeLinear and DequantizeLinear, of the standard domain and of ONNX Runtime's own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from tvm import relax

from edgekit.frontend.onnx_node import Converter, Node, Refused
from edgekit.frontend.onnx_operators.arithmetic import round_half_even
from edgekit.frontend.shapes import shape_text

__all__ = ["QUANTIZATION"]

QUANTIZED_TYPES = ("int8", "uint8", "int16", "uint16", "int32")


def _quantization(node: Node, stored: str) -> tuple[relax.Expr, relax.Expr, int]:
    """(scale, zero point, axis) of a QuantizeLinear or DequantizeLinear; per tensor they are scalars."""
    rank = node.rank(0)
    if node.integer("block_size", 0):
        raise Refused("blocked quantisation has no converter")
    if stored not in QUANTIZED_TYPES:
        raise Refused(f"quantisation to {stored} has no converter")
    scale = node.constant(1, "scale")
    zero_point = node.constant(2, "zero point")
    if scale is None or scale.dtype != np.float32:
        raise Refused("its scale is not float32")
    if not np.all(np.isfinite(scale)) or not np.all(scale >= np.finfo(np.float32).tiny):
        raise node.wrong("has a scale that is not above zero")
    zeros = np.zeros_like(scale, dtype=np.int32) if zero_point is None else zero_point.astype(np.int32)
    # Not the shapes: ONNX Runtime writes a scale () with a zero point (1).
    if zeros.size != scale.size or (scale.size > 1 and zeros.ndim != 1):
        raise node.wrong(f"has {scale.size} scales and {zeros.size} zero points")
    if scale.size == 1:
        return relax.const(scale.reshape(()), "float32"), relax.const(zeros.reshape(()), "int32"), 0
    # The default of 1 is out of range for a bias, whose files mean 0.
    axis = node.integer("axis", 1) if rank > 1 else 0
    shape = node.shape(0)
    if scale.ndim != 1 or not -rank <= axis < rank or shape[axis] != scale.size:
        raise node.wrong(f"has {scale.size} scales along axis {axis} of {shape_text(shape)}")
    return relax.const(scale, "float32"), relax.const(zeros, "int32"), axis % rank


def _quantize(node: Node) -> relax.Expr:
    zero_point = node.known(2)
    stored = "uint8" if zero_point is None else str(zero_point.dtype)
    number = node.integer("output_dtype", 0)
    if number:
        stored = str(onnx.helper.tensor_dtype_to_np_dtype(number))
    if node.dtype(0) != "float32":
        raise Refused(f"quantising {node.dtype(0)} has no converter")
    if node.known(1) is None and math.prod(node.shape(1)) == 1 and stored in ("int8", "uint8"):
        return _quantize_by_computed(node, stored)
    scale, zeros, axis = _quantization(node, stored)
    return relax.op.quantize(node.input(0), scale, zeros, axis, stored)


def _quantize_by_computed(node: Node, stored: str) -> relax.Expr:
    """With a scale and a zero point that come from the data, as dynamic quantisation has them."""
    op = relax.op
    steps = node.emit(op.divide(node.input(0), op.reshape(node.input(1), [])))
    value = round_half_even(steps)
    if node.has(2):
        value = op.add(value, op.astype(op.reshape(node.input(2), []), "float32"))
    low, high = (0, 255) if stored == "uint8" else (-128, 127)
    return op.astype(op.astype(op.clip(value, float(low), float(high)), "int32"), stored)


def _dequantize_by_computed(node: Node) -> relax.Expr:
    op = relax.op
    value = op.astype(node.input(0), "float32")
    if node.has(2):
        value = op.subtract(value, op.astype(op.reshape(node.input(2), []), "float32"))
    return op.multiply(value, op.reshape(node.input(1), []))


def _dequantize(node: Node) -> relax.Expr:
    if node.known(1) is None and math.prod(node.shape(1)) == 1 and node.dtype(1) == "float32":
        return _dequantize_by_computed(node)
    scale, zeros, axis = _quantization(node, node.dtype(0))
    return relax.op.dequantize(node.input(0), scale, zeros, axis, "float32")


QUANTIZATION: Mapping[str, Converter] = {"DequantizeLinear": _dequantize, "QuantizeLinear": _quantize}
