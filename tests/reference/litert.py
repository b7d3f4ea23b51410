"""Run a TFLite model on LiteRT's reference kernels: the oracle of edgekit's int8 arithmetic."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReferenceModel", "run_reference"]


class ReferenceModel:
    """A model loaded with `OpResolverType.BUILTIN_REF`, every intermediate tensor kept.

    LiteRT's optimised kernels and XNNPACK answer differently from its reference ones; they are no oracle but
    for the int8 SUM, whose reference kernel has no sense in LiteRT 2.3 (most answers are −1).
    """

    def __init__(self, content: bytes, *, optimised: bool = False) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._interpreter: Any = Interpreter(
            model_content=content,
            experimental_op_resolver_type=(
                OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if optimised else OpResolverType.BUILTIN_REF
            ),
            experimental_preserve_all_tensors=True,
        )
        self._interpreter.allocate_tensors()
        self.inputs: list[Any] = self._interpreter.get_input_details()
        self.outputs: list[Any] = self._interpreter.get_output_details()

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs in the model's order; inputs are reshaped to the shapes the model states."""
        for detail, values in zip(self.inputs, inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], values.reshape(detail["shape"]))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(detail["index"]).copy() for detail in self.outputs]

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """All tensors of the last run that hold data, by name."""
        details = self._interpreter.get_tensor_details()
        return {detail["name"]: value for detail in details if (value := self._value(detail)) is not None}

    def _value(self, detail: Any) -> NDArray[Any] | None:
        try:
            return np.array(self._interpreter.get_tensor(detail["index"]))
        except ValueError:  # LiteRT's way to say that a tensor holds no data
            return None


def run_reference(content: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of one inference on LiteRT's reference kernels."""
    return ReferenceModel(content).run(inputs)
