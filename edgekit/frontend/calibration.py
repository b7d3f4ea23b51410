"""Whether a model file is one that edgekit has to quantise itself."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions
from edgekit.frontend.source import read_source

__all__ = ["needs_calibration"]


def needs_calibration(path: Path, options: ImportOptions = DEFAULT_IMPORT) -> bool:
    """True for a float ONNX model, which `load_model` quantises on calibration rows.

    Raises:
        ModelError: the file is damaged.
    """
    if path.suffix.lower() != ".onnx" or options.precision == "float32":
        return False
    from edgekit.frontend.onnx_check import check_onnx, is_quantized

    return not is_quantized(check_onnx(read_source(path), options.shapes or None).model)
