"""What a parsed TFLite file means, checked: dataflow, tensors, quantisation, operators, shapes.

Everything after this module may trust what it gets: every operand exists and was produced before it is
read, every constant has the bytes of its shape, every shape is the one its operator computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgekit.artifacts import Place
from edgekit.errors import ModelError
from edgekit.frontend.shapes import MAX_ELEMENTS, fix_input_shapes, shape_text, show_name, show_text
from edgekit.frontend.tflite_fold import fold, is_foldable
from edgekit.frontend.tflite_graph import QuantizationParameters, TfliteGraph, TfliteOperator, TfliteTensor
from edgekit.frontend.tflite_moves import MOVES
from edgekit.frontend.tflite_operators import OPERATORS, Operands, Rule, activation_of
from edgekit.frontend.unsupported import Unsupported, refuse

__all__ = ["ACTIVATION_FIELD", "RULES", "CheckedGraph", "check_tflite", "place_of"]

RANGES: Mapping[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}

ITEM_BYTES: Mapping[str, int] = {
    "float32": 4, "float16": 2, "int32": 4, "uint8": 1, "int64": 8, "bool": 1, "int16": 2, "int8": 1,
    "uint32": 4, "uint16": 2, "uint64": 8, "float64": 8, "complex64": 8, "complex128": 16, "bfloat16": 2,
}  # fmt: skip

RULES: Mapping[str, Rule] = {**OPERATORS, **MOVES}

ACTIVATION_FIELD: Mapping[str, int] = {
    "ADD": 0, "SUB": 0, "MUL": 0, "DIV": 0, "CONCATENATION": 1, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4,
    "FULLY_CONNECTED": 0, "L2_NORMALIZATION": 0, "AVERAGE_POOL_2D": 5, "MAX_POOL_2D": 5, "TRANSPOSE_CONV": 3,
}  # fmt: skip
"""The number of the fused activation in the options table of the operators that have one."""

QUANTIZE_HINT = (
    "Convert it with full integer quantisation: in TensorFlow set converter.optimizations, "
    "converter.representative_dataset and target_spec.supported_ops = [TFLITE_BUILTINS_INT8]; "
    "or give edgekit the float model as ONNX with --calibration."
)


@dataclass(frozen=True, slots=True)
class CheckedGraph:
    """A graph whose shapes are all fixed, with the operands of every operator resolved, and input names."""

    graph: TfliteGraph
    operands: tuple[Operands, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def place_of(graph: TfliteGraph, operator: TfliteOperator) -> Place:
    return Place(op=operator.op, name=graph.tensors[operator.outputs[0]].name, index=operator.index)


def _wrong(why: str) -> ModelError:
    return ModelError(f"The TFLite file makes no sense: {why}.")


def _tensor_text(tensor: TfliteTensor) -> str:
    return f"tensor {show_name(tensor.name)} ({tensor.index})"


def _check_dataflow(graph: TfliteGraph) -> None:
    """Every tensor has one source, and operators come in an order in which they can run."""
    if not graph.outputs or not graph.operators:
        raise _wrong("it has no output or no operator")
    if len(set(graph.inputs)) != len(graph.inputs) or len(set(graph.outputs)) != len(graph.outputs):
        raise _wrong("an input or output is listed twice")
    ready = {t.index for t in graph.tensors if t.data is not None}
    for i in graph.inputs:
        if i in ready:
            raise _wrong(f"the input {_tensor_text(graph.tensors[i])} is also a constant")
        ready.add(i)
    produced: set[int] = set()
    for operator in graph.operators:
        for i in operator.inputs:
            if i >= 0 and i not in ready:
                raise _wrong(
                    f"operator {operator.index} ({show_text(operator.op)}) reads "
                    f"{_tensor_text(graph.tensors[i])} before anything wrote it "
                    "(a cycle, or operators out of order)"
                )
        for i in operator.outputs:
            if i in ready:
                raise _wrong(f"{_tensor_text(graph.tensors[i])} is written twice")
            ready.add(i)
            produced.add(i)
    for i in graph.outputs:
        if i not in produced:
            raise _wrong(f"the output {_tensor_text(graph.tensors[i])} is computed by no operator")


def _check_quantization(tensor: TfliteTensor, quantization: QuantizationParameters) -> None:
    scales = np.asarray(quantization.scales, dtype=np.float32)
    if not np.all(np.isfinite(scales)) or not np.all(scales >= np.finfo(np.float32).tiny):
        raise _wrong(f"{_tensor_text(tensor)} has a scale that is not finite and above zero")
    if tensor.dtype not in RANGES:
        return
    low, high = RANGES[tensor.dtype]
    if any(not low <= z <= high for z in quantization.zero_points):
        raise _wrong(f"{_tensor_text(tensor)} has a zero point outside {tensor.dtype}")
    if len(scales) == 1:
        return
    axis = quantization.axis
    if not 0 <= axis < len(tensor.shape) or tensor.shape[axis] != len(scales):
        raise _wrong(f"{_tensor_text(tensor)} has {len(scales)} scales for shape {shape_text(tensor.shape)}")


def _check_tensor(tensor: TfliteTensor) -> None:
    elements = 1
    for d in tensor.shape:
        elements *= d
        if d < 0 or elements > MAX_ELEMENTS:
            raise _wrong(f"{_tensor_text(tensor)} has the shape {shape_text(tensor.shape)}")
    if len(tensor.signature) != len(tensor.shape) or any(
        s not in (-1, d) for s, d in zip(tensor.signature, tensor.shape, strict=False)
    ):
        raise _wrong(f"{_tensor_text(tensor)} has a shape and a signature that disagree")
    if 0 in tensor.shape and tensor.data is None:
        raise _wrong(f"{_tensor_text(tensor)} is empty")
    size = ITEM_BYTES.get(tensor.dtype)
    if tensor.data is not None and size is not None and not tensor.is_sparse:
        expected = math.prod(tensor.shape) * size
        if len(tensor.data) != expected:
            raise _wrong(
                f"{_tensor_text(tensor)} has {len(tensor.data)} bytes; "
                f"{shape_text(tensor.shape)} {tensor.dtype} takes {expected}"
            )
    if tensor.quantization is not None:
        _check_quantization(tensor, tensor.quantization)


def _type_problem(tensor: TfliteTensor, allowed: tuple[str, ...]) -> str | None:
    """Why an operand cannot be handled, None when it can."""
    if tensor.is_sparse:
        return "a sparse tensor has no converter"
    if tensor.is_variable:
        return "a variable tensor (state between runs) has no converter"
    if tensor.dtype not in allowed:
        if tensor.dtype == "float32":
            return "it computes partly in float32 and partly in integers"
        return f"{tensor.dtype} data has no converter"
    if tensor.dtype in ("int8", "uint8", "int16"):
        if tensor.quantization is None:
            return f"{show_name(tensor.name)} is {tensor.dtype} without scale and zero point"
        if len(tensor.quantization.scales) != 1:
            return f"{show_name(tensor.name)} is quantised per channel, which only weights may be"
        if tensor.dtype == "int16" and tensor.quantization.zero_points[0] != 0:
            return f"{show_name(tensor.name)} is int16 with a zero point other than 0"
    return None


def _weights_problem(tensor: TfliteTensor, rule: Rule, data: TfliteTensor) -> str | None:
    if tensor.data is None:
        return "its weights are computed, not constant"
    if data.dtype == "float32" and tensor.dtype == "float32" and not tensor.is_sparse:
        return None
    if tensor.is_sparse or tensor.dtype != "int8":
        return f"{'sparse' if tensor.is_sparse else tensor.dtype} weights have no converter"
    if tensor.quantization is None:
        return "its weights have no scale"
    if any(tensor.quantization.zero_points):
        return "its weights have a zero point other than 0"
    if len(tensor.quantization.scales) > 1 and tensor.quantization.axis != rule.channel_axis:
        return f"its weights are quantised along axis {tensor.quantization.axis}, not the output channels"
    return None


def _operator_problem(operands: Operands, rule: Rule) -> str | None:
    op = operands.operator.op
    data = operands.input(rule.data)
    if rule.weights is not None and (why := _weights_problem(operands.input(rule.weights), rule, data)):
        return why
    incoming: tuple[str, ...] = ("int8", "int16")
    outgoing: tuple[str, ...] = ("int8", "int16")
    if op == "QUANTIZE":
        incoming, outgoing = ("float32", "int8", "uint8", "int16"), ("int8", "uint8", "int16")
    elif op == "DEQUANTIZE":
        incoming, outgoing = ("int8", "uint8", "int16"), ("float32",)
    elif op in ("ARG_MAX", "ARG_MIN"):
        outgoing = ("int32", "int64")
    elif data.dtype == "float32":
        incoming, outgoing = ("float32",), ("float32",)
    for position, tensor in enumerate(operands.inputs):
        if tensor is None or position in rule.plain or position in (rule.weights, rule.bias):
            continue
        if why := _type_problem(tensor, incoming):
            return why
    for tensor in operands.outputs:
        if why := _type_problem(tensor, outgoing):
            return why
    bias = operands.optional(rule.bias) if rule.bias is not None else None
    stored = {"float32": "float32", "int16": "int64"}.get(data.dtype, "int32")
    if bias is not None and (bias.data is None or bias.dtype != stored):
        return f"its bias is not a constant of {stored}"
    if (
        bias is not None
        and stored == "int64"
        and np.abs(bias.values().astype(np.float64)).max(initial=0) >= 2**31
    ):
        return "its bias does not fit 32 bits"
    if op in ACTIVATION_FIELD and activation_of(operands, ACTIVATION_FIELD[op]) is None:
        return "its fused activation (TANH or SIGN_BIT) has no integer form"
    return None


def _check_operands(operands: Operands, rule: Rule) -> None:
    """Counts, options and quantisation; types are `_operator_problem`'s."""
    low, high = rule.inputs
    if not low <= len(operands.inputs) <= high:
        raise operands.wrong(f"it has {len(operands.inputs)} inputs")
    if len(operands.operator.outputs) != 1 and rule.shapes is None:
        raise operands.wrong(f"it has {len(operands.operator.outputs)} outputs")
    for position, tensor in enumerate(operands.inputs):
        if tensor is None and position != rule.bias:
            raise operands.wrong(f"input {position} is missing")
    if operands.options is not None and rule.options_type not in (None, operands.operator.options_type):
        raise operands.wrong(f"its options are those of another operator ({operands.operator.options_type})")


def _check_same_quantization(operands: Operands, rule: Rule) -> None:
    """Operators that move or select integers cannot change their scale (LiteRT's own condition)."""
    first = operands.input(rule.data).quantization
    second = {"PADV2": 2, "MAXIMUM": 1, "MINIMUM": 1}.get(operands.operator.op)
    fill = () if second is None else (operands.input(second),)
    for tensor in (*fill, *operands.outputs):
        other = tensor.quantization
        if first is None or other is None:
            continue
        close = math.isclose(first.scales[0], other.scales[0], rel_tol=1e-5)
        if not close or first.zero_points[0] != other.zero_points[0]:
            raise operands.wrong("its input and output have different scales or zero points")


def _shaped(
    operands: Operands, shapes: tuple[tuple[int, ...], ...], *, declared: bool
) -> tuple[TfliteTensor, ...]:
    """The outputs with the shapes that the operator computes; where `declared`, the file must say the same.

    A dynamic batch need not be marked on every tensor behind the input, so once it is fixed to something
    else than the file's own shapes, those say nothing any more.
    """
    if len(shapes) != len(operands.outputs):
        raise operands.wrong(f"it computes {len(shapes)} tensors and has {len(operands.outputs)} outputs")
    outputs = []
    for shape, tensor in zip(shapes, operands.outputs, strict=True):
        if any(d < 1 for d in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise operands.wrong(f"its output would be {shape_text(shape)}")
        if declared and shape != tensor.shape:
            raise operands.wrong(f"it computes {shape_text(shape)} and declares {shape_text(tensor.shape)}")
        outputs.append(replace(tensor, shape=shape, signature=shape))
    return tuple(outputs)


def _unique_names(tensors: tuple[TfliteTensor, ...], indices: tuple[int, ...], what: str) -> tuple[str, ...]:
    """The file's own names; a missing or repeated one gets its position."""
    names: list[str] = []
    for position, i in enumerate(indices):
        name = tensors[i].name or f"{what}_{position}"
        names.append(name if name not in names else f"{name}_{position}")
    return tuple(names)


def _batches_of_one(
    inputs: Mapping[str, TfliteTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """The file's own shape of inputs whose only dynamic dimension is a leading one of 1.

    TensorFlow's converter marks every batch so, and LiteRT runs the file as it stands with a batch of 1;
    any other dynamic dimension holds a 1 that means nothing.
    """
    return {
        name: tensor.shape
        for name, tensor in inputs.items()
        if name not in shapes and tensor.shape[:1] == (1,) and tensor.signature == (-1, *tensor.shape[1:])
    }


def is_float(checked: CheckedGraph) -> bool:
    """Whether a checked model carries no quantisation of its activations."""
    stored = ("int8", "uint8", "int16")
    return not any(
        tensor is not None and tensor.data is None and tensor.dtype in stored
        for operands in checked.operands
        for tensor in (*operands.inputs, *operands.outputs)
    )


def check_tflite(graph: TfliteGraph, shapes: Mapping[str, tuple[int, ...]] | None) -> CheckedGraph:
    """Check a parsed file and fix all its shapes.

    Raises:
        ModelError: the file contradicts itself, or an input has a dynamic dimension.
        UnsupportedError: operators without a converter, all of them at once.
        UsageError: `shapes` does not fit the model.
    """
    _check_dataflow(graph)
    for tensor in graph.tensors:
        _check_tensor(tensor)

    def resolve(operator: TfliteOperator, tensors: list[TfliteTensor]) -> Operands:
        inputs = tuple(tensors[i] if i >= 0 else None for i in operator.inputs)
        return Operands(operator, inputs, tuple(tensors[i] for i in operator.outputs))

    tensors = list(graph.tensors)
    found: list[Unsupported] = []
    constants = {t.index for t in graph.tensors if t.data is not None}
    folded: set[int] = set()
    for operator in graph.operators:
        if is_foldable(resolve(operator, tensors), constants):
            constants.update(operator.outputs)
            folded.add(operator.index)
            if operator.op == "DEQUANTIZE":
                # Weights, which have to be constant when the next operator is looked at.
                tensors[operator.outputs[0]] = fold(resolve(operator, tensors))
            continue
        rule = RULES.get(operator.op)
        if rule is None:
            found.append(Unsupported(place_of(graph, operator), "no converter"))
            continue
        operands = resolve(operator, tensors)
        _check_operands(operands, rule)
        if why := _operator_problem(operands, rule):
            found.append(Unsupported(place_of(graph, operator), why))
    quantize = any("float32" in item.reason for item in found)
    refuse(found, hint=QUANTIZE_HINT if quantize else None)

    input_names = _unique_names(graph.tensors, graph.inputs, "input")
    named = dict(zip(input_names, (tensors[i] for i in graph.inputs), strict=True))
    declared = {
        name: tuple(None if s == -1 else s for s in tensor.signature) for name, tensor in named.items()
    }
    fixed = fix_input_shapes(declared, {**_batches_of_one(named, shapes or {}), **(shapes or {})})
    reshaped = any(fixed[name] != tensors[i].shape for name, i in zip(input_names, graph.inputs, strict=True))
    for name, i in zip(input_names, graph.inputs, strict=True):
        tensors[i] = replace(tensors[i], shape=fixed[name], signature=fixed[name])
    checked: list[Operands] = []
    for operator in graph.operators:
        operands = resolve(operator, tensors)
        if operator.index in folded:
            tensors[operands.output.index] = fold(operands)
            continue
        rule = RULES[operator.op]
        if rule.same_quantization:
            _check_same_quantization(operands, rule)
        outputs = _shaped(operands, rule.output_shapes(operands), declared=not reshaped)
        for output in outputs:
            tensors[output.index] = output
        checked.append(replace(operands, outputs=outputs))
    return CheckedGraph(
        graph=replace(graph, tensors=tuple(tensors)),
        operands=tuple(checked),
        input_names=input_names,
        output_names=_unique_names(graph.tensors, graph.outputs, "output"),
    )
