"""The node tests of the `onnx` package as models that a board could run.

ONNX's tests feed everything as an input, also what decides shapes (the sizes of a reshape, the axes of a
reduction) and the parameters of a layer. A program for a board has fixed shapes, and files have these as
constants: here they become constants too, by the values of the test.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

__all__ = ["NETWORK_OPERATORS", "Case", "Result", "node_cases"]

Array = npt.NDArray[Any]

PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Clip": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "GRU": (4,),
    "GatherND": (1,),
    "If": (0,),
    "LSTM": (4,),
    "Loop": (0, 1),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QLinearMatMul": (1, 2, 3, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "RNN": (4,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "ReverseSequence": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Positions of operands that are constants in files, by operator; reductions take their axes so, too."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test: a model, what goes in and what must come out."""

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    rtol: float
    atol: float


Outcome = Literal["passed", "unsupported", "wrong"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one test; `reason` is empty for one that passed."""

    name: str
    operator: str
    outcome: Outcome
    reason: str


def _constant_names(model: onnx.ModelProto) -> set[str]:
    found = set()
    for node in model.graph.node:
        positions: Sequence[int] = PARAMETERS.get(node.op_type, ())
        if node.op_type.startswith("Reduce"):
            positions = (1,)
        found |= {node.input[i] for i in positions if i < len(node.input)}
    return found


def _with_constants(model: onnx.ModelProto, values: Mapping[str, Any]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constant = _constant_names(copy)
    left = [value for value in copy.graph.input if value.name not in constant]
    if not left or (copy.graph.node and copy.graph.node[0].op_type == "Constant"):
        return copy
    for value in copy.graph.input:
        if value.name in constant and isinstance(values.get(value.name), np.ndarray | np.generic):
            copy.graph.initializer.append(
                onnx.numpy_helper.from_array(np.asarray(values[value.name]), value.name)
            )
    known = {tensor.name for tensor in copy.graph.initializer}
    del copy.graph.input[:]
    copy.graph.input.extend(v for v in model.graph.input if v.name not in known)
    return copy


def _array(value: Any) -> Any:
    """Types that numpy lacks come as ONNX's own tensors."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _operator(name: str, model: onnx.ModelProto) -> str:
    """The operator that a test is about; those named _expanded are about one that is written out."""
    if "_expanded" in name:
        return "what ONNX writes out (expanded)"
    kinds = [node.op_type for node in model.graph.node if node.op_type != "Constant"]
    return kinds[0] if kinds else "Constant"


def node_cases(pattern: str = "") -> Iterator[Case]:
    """All node tests of the installed `onnx` whose names match a regular expression, in order of name."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    for test in sorted(collected, key=lambda t: str(t.name)):
        if test.model is None or not re.search(pattern, test.name):
            continue
        for inputs, outputs in test.data_sets or ():
            given = dict(zip((v.name for v in test.model.graph.input), map(_array, inputs), strict=False))
            model = _with_constants(test.model, given)
            yield Case(
                name=test.name,
                operator=_operator(test.name, test.model),
                model=model,
                inputs=tuple(given[v.name] for v in model.graph.input),
                outputs=tuple(map(_array, outputs)),
                rtol=test.rtol,
                atol=test.atol,
            )
            break


NETWORK_OPERATORS: tuple[str, ...] = (
    "Conv", "ConvTranspose", "MatMul", "Gemm", "Sub", "Mul", "Add", "Max", "Min", "Split", "Slice",
    "Transpose", "Resize", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu",
    "Swish", "Elu", "LayerNormalization", "Softmax", "QLinearConv", "QLinearMatMul", "GRU", "LSTM", "RNN",
)  # fmt: skip
