"""Whether a model is one that edgekit has to quantise itself."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions, TorchProgram
from edgekit.frontend.source import read_source

__all__ = ["needs_calibration"]


def needs_calibration(source: Path | TorchProgram, options: ImportOptions = DEFAULT_IMPORT) -> bool:
    """True for a float ONNX, TFLite or torch model, which `load_model` quantises on calibration rows.

    Raises:
        ModelError: the file is damaged.
    """
    if options.precision == "float32":
        return False
    if isinstance(source, TorchProgram):
        from edgekit.frontend.torch_graph import is_quantized as is_quantized_torch

        return not is_quantized_torch(source.program)
    if source.suffix.lower() == ".tflite":
        from edgekit.frontend.tflite_check import check_tflite, is_float
        from edgekit.frontend.tflite_graph import parse_tflite

        return is_float(check_tflite(parse_tflite(read_source(source).content), options.shapes or None))
    if source.suffix.lower() != ".onnx":
        return False
    from edgekit.frontend.onnx_check import check_onnx, is_quantized

    return not is_quantized(check_onnx(read_source(source), options.shapes or None).model)
