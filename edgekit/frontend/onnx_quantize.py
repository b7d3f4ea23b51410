"""Quantise a float ONNX model with ONNX Runtime's static quantiser.

Per-channel symmetric int8 weights, per-tensor asymmetric int8 activations (min-max over the calibration
rows), int32 biases, as QDQ. Same model and rows, same result.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto

from edgekit.errors import ModelError, UnsupportedError, UsageError
from edgekit.frontend.onnx_check import CheckedOnnx, infer_shapes
from edgekit.frontend.shapes import shape_text, show_name

__all__ = ["quantize_onnx"]

MINIMUM_OPSET = 13
"""The first with per-channel DequantizeLinear."""

MAX_ACTIVATIONS = 1 << 27
MAX_MACS = 20_000_000_000

QUANTIZED_OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool",
    "MatMul", "MaxPool", "Mul", "Pad", "ReduceMean", "Relu", "Reshape", "Sigmoid", "Softmax", "Squeeze",
    "Sub", "Tanh", "Transpose", "Unsqueeze",
)  # fmt: skip


class _Rows:
    """Calibration rows as ONNX Runtime's CalibrationDataReader asks for them."""

    def __init__(self, feeds: Iterator[dict[str, npt.NDArray[np.float32]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        return next(self._feeds, None)

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> dict[str, npt.NDArray[np.float32]]:
        return next(self._feeds)


def _rows(
    checked: CheckedOnnx, calibration: Sequence[npt.NDArray[np.generic]]
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Feeds of one row each, checked at once and made one by one.

    Raises:
        UsageError: another number of arrays than inputs, of rows than rows, or a shape that does not fit.
    """
    if len(calibration) != len(checked.inputs):
        raise UsageError(
            f"The model has {len(checked.inputs)} inputs and --calibration {len(calibration)} arrays."
        )
    types = {value.name: value.type.tensor_type for value in checked.model.graph.input}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, array in zip(checked.inputs, calibration, strict=True):
        shape = tuple(d.dim_value for d in types[name].shape.dim)
        if types[name].elem_type != TensorProto.FLOAT:
            raise UnsupportedError(f"Input {show_name(name)} of the float model is not float32.")
        row = tuple(int(d) for d in array.shape[1:])
        if array.ndim == 0 or row not in (shape, shape[1:] if shape[:1] == (1,) else shape):
            raise UsageError(
                f"The calibration data for input {show_name(name)} has rows of {shape_text(row)}; "
                f"the model takes {shape_text(shape)}."
            )
        if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array)):
            raise ModelError(
                f"The calibration data for input {show_name(name)} has values that are no numbers."
            )
        shapes[name] = shape
    counts = {len(array) for array in calibration}
    if len(counts) != 1 or counts == {0}:
        raise UsageError("The calibration data has no rows, or another number of rows for each input.")
    pairs = list(zip(checked.inputs, calibration, strict=True))
    return (
        {name: np.asarray(array[i], dtype=np.float32).reshape(shapes[name]) for name, array in pairs}
        for i in range(counts.pop())
    )


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


def _upgrade(model: ModelProto, opset: int) -> ModelProto:
    if opset >= MINIMUM_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, MINIMUM_OPSET)
    except Exception:  # The C++ converter raises bare exceptions for every operator it has no rule for.
        raise UnsupportedError(
            f"The ONNX file uses operator set {opset}, which cannot be quantised.",
            hint="Export it again, e.g. torch.onnx.export(..., opset_version=17).",
        ) from None


def _onnxruntime() -> ModuleType:
    """ONNX Runtime; since 1.29 it reports names and hashes of models to its makers unless told not to."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


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


def quantize_onnx(checked: CheckedOnnx, calibration: Sequence[npt.NDArray[np.generic]]) -> ModelProto:
    """The model in QDQ form, with the shapes of its tensors.

    Args:
        checked: A float model.
        calibration: One array (rows, …) per input, in order.

    Raises:
        UsageError: calibration data that does not fit the model's inputs.
        ModelError: ONNX Runtime cannot run the model.
    """
    _onnxruntime()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    feeds = _rows(checked, calibration)
    _check_cost(checked.model)
    model = _upgrade(checked.model, checked.opset)
    with tempfile.TemporaryDirectory(prefix="edgekit-quantize-") as name:
        directory = Path(name)
        try:
            model = infer_shapes(_optimize(model, directory))
            add_pre_process_metadata(model)
            quantized = directory / "quantized.onnx"
            quantize_static(
                model,
                quantized,
                _Rows(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED_OPERATORS),
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                # Not CalibMaxIntermediateOutputs: ONNX Runtime 1.31 throws away what it collected so far.
                extra_options={
                    "ActivationSymmetric": False,
                    "WeightSymmetric": True,
                    "QuantizeBias": True,
                    # Otherwise a pool or a reshape that reads the model's input stays in float.
                    "ForceQuantizeNoInputCheck": True,
                },
            )
            return infer_shapes(onnx.load(quantized, load_external_data=False))
        except (ModelError, UnsupportedError):
            raise
        except Exception as error:  # ONNX Runtime's pybind exceptions share no base class.
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            shown = text.encode("unicode_escape").decode("ascii")[:300]
            raise ModelError(f"ONNX Runtime cannot quantise the model: {shown}.") from error
