"""Quantise a float ONNX model with ONNX Runtime's static quantiser.

Per-channel symmetric int8 weights, int32 biases, and per-tensor activations: asymmetric int8, or symmetric
int16 (`int16x8`), as QDQ. The ranges of the activations are those of edgekit's own observers, fed row by row,
so that what calibration keeps in memory does not grow with the rows. Same model and rows, same result.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from edgekit.artifacts import CalibrationMethod
from edgekit.errors import ModelError, UnsupportedError
from edgekit.frontend.calibration_rows import InputType, calibration_rows
from edgekit.frontend.observers import OBSERVERS
from edgekit.frontend.onnx_check import CheckedOnnx
from edgekit.frontend.onnx_gates import join_gates
from edgekit.frontend.onnx_infer import infer_shapes
from edgekit.frontend.onnx_prepare import prepare_for_quantization
from edgekit.frontend.onnx_qoperator import INT16_OPSET, PER_CHANNEL_OPSET, raised

__all__ = ["quantize_onnx"]

MAX_ACTIVATIONS = 1 << 27
MAX_MACS = 20_000_000_000

QUANTIZED_OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Elu", "Flatten", "Gather", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "LayerNormalization",
    "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul", "PRelu", "Pad", "ReduceMean", "Relu", "Reshape",
    "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Swish", "Tanh", "Transpose",
    "Unsqueeze",
)  # fmt: skip
"""What has an integer form in the compiler, and what only moves values. The others stay float32 between a
dequantize and a quantize.
"""


def _rows(
    checked: CheckedOnnx, calibration: Sequence[npt.NDArray[np.generic]]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Feeds of one row each, checked at once and made one by one.

    Raises:
        ModelError: another number of arrays than inputs, of rows than rows, or rows that do not fit.
    """
    types = {value.name: value.type.tensor_type for value in checked.model.graph.input}
    inputs = {
        name: InputType(
            tuple(d.dim_value for d in types[name].shape.dim),
            tensor_dtype_to_np_dtype(types[name].elem_type).name,
        )
        for name in checked.inputs
    }
    return calibration_rows(inputs, calibration)


def _check_cost(model: ModelProto) -> None:
    """Bound what one inference takes, as calibration runs the model here.

    Raises:
        ModelError: more activations or multiplications than any board that edgekit serves could take.
    """
    values = (*model.graph.value_info, *model.graph.output)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    elements = {name: math.prod(shape) for name, shape in shapes.items()}
    shapes |= {t.name: tuple(t.dims) for t in model.graph.initializer}
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and len(node.input) > 1:
            # Each output element sums over one filter, or over one row of a matrix: at most its longest side.
            shape = shapes.get(node.input[1], ())
            depth = math.prod(shape[1:]) if node.op_type.startswith("Conv") else max(shape, default=1)
            macs += elements.get(node.output[0], 0) * depth
    if sum(elements.values()) > MAX_ACTIVATIONS or macs > MAX_MACS:
        raise ModelError(
            f"One inference of the float model takes {sum(elements.values()):,} activations and about "
            f"{macs:,} multiplications; at most {MAX_ACTIVATIONS:,} and {MAX_MACS:,} are calibrated."
        )


def _onnxruntime() -> ModuleType:
    """ONNX Runtime; since 1.29 it reports names and hashes of models to its makers unless told not to."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without the quantiser's warnings of what it leaves in float, which edgekit reports by itself."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _optimize(model: ModelProto, directory: Path) -> ModelProto:
    """Fold constants and batch normalisations with ONNX Runtime's semantics-preserving rewrites."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    path = directory / "optimized.onnx"
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path, load_external_data=False)


def _float_tensors(model: ModelProto) -> list[str]:
    """Names of the float32 tensors that are no constants."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    computed = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    return [
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
        and value.name not in constants
        and value.name in computed
    ]


def _observe(
    model: ModelProto,
    feeds: Iterator[dict[str, npt.NDArray[Any]]],
    method: CalibrationMethod,
    levels: int,
    symmetric: bool,
) -> dict[str, tuple[float, float]]:
    """The range of every activation, by name."""
    onnxruntime = _onnxruntime()
    inputs = {value.name for value in model.graph.input}
    observers = {name: OBSERVERS[method](levels, symmetric) for name in dict.fromkeys(_float_tensors(model))}
    watched = [name for name in observers if name not in inputs]
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in watched)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for feed in feeds:
        results = session.run(None, feed)
        for name, values in (*feed.items(), *zip(watched, results, strict=True)):
            if name in observers:
                observers[name].add(values)
    return {name: observer.range() for name, observer in observers.items()}


def quantize_onnx(
    checked: CheckedOnnx,
    calibration: Sequence[npt.NDArray[np.generic]],
    *,
    precision: Literal["int8", "int16x8"] = "int8",
    method: CalibrationMethod = "minmax",
) -> ModelProto:
    """The model in QDQ form, with the shapes of its tensors.

    Args:
        checked: A float model.
        calibration: One array (rows, …) per input, in order.
        precision: Of the activations; weights are int8 either way.
        method: How the range of an activation follows from its values.

    Raises:
        ModelError: calibration data that does not fit the model's inputs.
        ModelError: ONNX Runtime cannot run the model.
        UnsupportedError: the operator set is too old for the precision and cannot be converted.
    """
    _onnxruntime()
    from onnxruntime.quantization import CalibrationMethod as Method, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    feeds = _rows(checked, calibration)
    _check_cost(checked.model)
    wide = precision == "int16x8"
    model = raised(checked.model, INT16_OPSET if wide else PER_CHANNEL_OPSET)
    with tempfile.TemporaryDirectory(prefix="edgekit-quantize-") as name:
        try:
            model = _optimize(model, Path(name))
            prepare_for_quantization(model)
            model = infer_shapes(model)
            add_pre_process_metadata(model)
            ranges = _observe(model, feeds, method, 65536 if wide else 256, wide)
            found = {
                tensor: TensorData(lowest=np.float32(low), highest=np.float32(high))
                for tensor, (low, high) in ranges.items()
            }
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=False,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt16 if wide else QuantType.QInt8,
                tensors_range=TensorsData(Method.MinMax, found),
                nodes_to_quantize=[],
                nodes_to_exclude=[],
                op_types_to_quantize=list(QUANTIZED_OPERATORS),
                extra_options={
                    "ActivationSymmetric": wide,
                    "WeightSymmetric": True,
                    "QuantizeBias": True,
                    # Otherwise a pool or a reshape that reads the model's input stays in float.
                    "ForceQuantizeNoInputCheck": True,
                },
            )
            with _unlogged():
                quantizer.quantize_model()
            quantizer.model.topological_sort()
            join_gates(quantizer.model.model)
            return infer_shapes(quantizer.model.model)
        except (ModelError, UnsupportedError):
            raise
        except Exception as error:  # ONNX Runtime's pybind exceptions share no base class.
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            shown = text.encode("unicode_escape").decode("ascii")[:300]
            raise ModelError(f"ONNX Runtime cannot quantise the model: {shown}.") from error
