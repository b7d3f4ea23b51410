"""ONNX's shape inference, within bounds."""

from __future__ import annotations

import math

import onnx
from onnx import ModelProto

from edgekit.errors import ModelError
from edgekit.frontend.shapes import MAX_ELEMENTS, shape_text, show_name

__all__ = ["MAX_RANK", "first_line", "infer_shapes", "wrong"]

MAX_RANK = 8


def wrong(why: str) -> ModelError:
    return ModelError(f"The ONNX file makes no sense: {why}.")


def infer_shapes(model: ModelProto) -> ModelProto:
    """The model with the shape of every tensor that ONNX's inference can tell.

    Raises:
        ModelError: operators that contradict their inputs, or a tensor that is too large.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # The C++ core raises several types of its own, some of them bare.
        raise wrong(first_line(error)) from None
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if any(d < 0 for d in dims) or len(dims) > MAX_RANK or math.prod(dims) > MAX_ELEMENTS:
            raise wrong(f"tensor {show_name(value.name)} would be {shape_text(tuple(dims[:16]))}")
    return inferred


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).encode("unicode_escape").decode("ascii")
    return text[:300].rstrip(".:")
