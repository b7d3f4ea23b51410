"""What each ONNX operator becomes in Relax: one converter an operator, gathered in `CONVERTERS`.

A converter gets a `Node` and returns the expression of its output (a list where it has several). All of them
emit plain Relax operators, so that the compiler's rules and TVM's own legalisation both apply. What a
converter cannot say in them it refuses with the reason (`Refused`).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.frontend.onnx_node import Converter
from edgekit.frontend.onnx_operators.arithmetic import ARITHMETIC
from edgekit.frontend.onnx_operators.movement import MOVEMENT
from edgekit.frontend.onnx_operators.quantization import QUANTIZATION
from edgekit.frontend.onnx_operators.reductions import REDUCTIONS
from edgekit.frontend.onnx_operators.resize import RESIZE
from edgekit.frontend.onnx_operators.windows import WINDOWS

__all__ = ["CONVERTERS"]

CONVERTERS: Mapping[str, Converter] = {
    **ARITHMETIC,
    **MOVEMENT,
    **QUANTIZATION,
    **REDUCTIONS,
    **RESIZE,
    **WINDOWS,
}
