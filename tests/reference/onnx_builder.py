"""Build small ONNX models in QDQ form, and run them on ONNX Runtime without its optimisations.

Every activation is quantised to int8 (or uint8) where it is made: operator, QuantizeLinear, DequantizeLinear.
Layout is NCHW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.reference.int8 import Quantized

__all__ = ["QdqBuilder", "run_onnxruntime"]

OPSET = 17


class QdqBuilder:
    """Collects nodes; names of tensors are handed around. Values named here are real (dequantised)."""

    def __init__(self, dtype: str = "int8") -> None:
        self._dtype = np.dtype(dtype)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, shape: Sequence[int], quantized: Quantized) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return self.quantized(name, quantized)

    def output(self, name: str, shape: Sequence[int | None]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, values: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weights(self, stored: NDArray[Any], scales: Sequence[float], axis: int) -> str:
        """Dequantised int8 weights or int32 bias, one scale or one along `axis`; zero point 0."""
        scale = np.array(scales[0] if len(scales) == 1 else scales, np.float32)
        zero = np.zeros(scale.shape, stored.dtype)
        operands = [self.constant(values) for values in (stored, scale, zero)]
        return self.node("DequantizeLinear", operands, axis=axis)

    def quantized(self, name: str, quantized: Quantized) -> str:
        """QuantizeLinear and DequantizeLinear behind a real tensor."""
        scale = self.constant(np.array(quantized.scale, np.float32))
        offset = 128 if self._dtype == np.uint8 else 0
        zero = self.constant(np.array(quantized.zero_point + offset, self._dtype))
        stored = self.node("QuantizeLinear", [name, scale, zero])
        return self.node("DequantizeLinear", [stored, scale, zero])

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, list(inputs), [name], name=f"{operator}_{name}", **attributes)
        )
        return name

    def several(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """A node of several outputs, named by the caller."""
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), list(outputs), name=name, **attributes))

    def build(self) -> bytes:
        graph = helper.make_graph(self._nodes, "test", self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def run_onnxruntime(content: bytes, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Outputs of ONNX Runtime with ORT_DISABLE_ALL: every node as the file says, in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(inputs))]
