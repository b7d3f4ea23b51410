"""Small QDQ graphs in Relax, written by hand, and the Model around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from edgekit.artifacts import Model, Place

__all__ = ["Graph", "qdq_model"]


class Graph:
    """Emits QDQ idioms into a block builder; every method returns a Relax variable."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self.builder = builder

    def emit(self, expression: Any) -> Any:
        return self.builder.emit(expression)

    def quantize(self, value: Any, scale: float, zero_point: int, dtype: str = "int8") -> Any:
        return self.emit(
            relax.op.quantize(
                value,
                relax.const(scale, "float32"),
                relax.const(zero_point, "int32"),
                axis=0,
                out_dtype=dtype,
            )
        )

    def dequantize(self, value: Any, scale: float, zero_point: int) -> Any:
        return self.emit(
            relax.op.dequantize(
                value,
                relax.const(scale, "float32"),
                relax.const(zero_point, "int32"),
                axis=0,
                out_dtype="float32",
            )
        )

    def weights(self, values: np.ndarray[Any, Any], scale: float = 0.01) -> Any:
        return self.dequantize(relax.const(values), scale, 0)

    def requantized(self, value: Any, scale: float, zero_point: int) -> Any:
        """Quantize and dequantize: the end of one integer operator and the start of the next."""
        return self.dequantize(self.quantize(value, scale, zero_point), scale, zero_point)


def qdq_model(
    shapes: Sequence[tuple[int, ...]], body: Callable[..., Any], *, dtype: str = "float32"
) -> Model:
    """A model whose `body(graph, *inputs)` returns the output or a list of outputs."""
    builder = relax.BlockBuilder()
    inputs = [relax.Var(f"x{index}", relax.TensorType(shape, dtype)) for index, shape in enumerate(shapes)]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = body(Graph(builder), *inputs)
            outputs = list(result) if isinstance(result, list) else [result]
            expression = outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)
            final = builder.emit_output(expression)
        builder.emit_func_output(final)
    module = builder.get()
    places = {
        binding.var.name: Place("Op", f"tensor{index}", index)
        for block in module["main"].body.blocks
        for index, binding in enumerate(block.bindings)
    }
    return Model(
        name="graph",
        format="onnx",
        sha256="0" * 64,
        module=module,
        input_names=tuple(f"x{index}" for index in range(len(shapes))),
        output_names=tuple(f"y{index}" for index in range(len(outputs))),
        places=places,
    )
