"""From a model file to a `Model`: find out what the file is, check it, convert it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions, Model
from edgekit.errors import ModelError, UsageError
from edgekit.frontend.source import Source, describe_path, read_source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["load_model"]

ACCEPTED = ".tflite (int8) and .onnx (QDQ, or float with --calibration)"


def load_model(
    path: Path,
    options: ImportOptions = DEFAULT_IMPORT,
    *,
    calibration: Sequence[npt.NDArray[np.generic]] | None = None,
) -> Model:
    """Import a model file.

    Args:
        path: A `.tflite` or `.onnx` file.
        options: What the user says of the model: its name, shapes, precision.
        calibration: For a float ONNX model, one array (rows, …) per input, in the order of the inputs, with
            the input's own shape behind the rows (its batch of 1 may be left out). Not used by a model that
            is quantised already.

    Raises:
        ModelError: the file is damaged, of no accepted format, or has dynamic dimensions.
        UnsupportedError: operators without a converter, all of them in one message.
        UsageError: a shape or `calibration` is missing or does not fit.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".tflite", ".onnx"):
        raise ModelError(f"{describe_path(path)} has no known suffix; accepted: {ACCEPTED}.")
    source = read_source(path)
    name = options.name or path.stem
    if suffix == ".tflite":
        return _load_tflite(source, name, options)
    return _load_onnx(source, name, options, calibration)


def _load_tflite(source: Source, name: str, options: ImportOptions) -> Model:
    from edgekit.frontend.tflite_check import check_tflite
    from edgekit.frontend.tflite_graph import parse_tflite
    from edgekit.frontend.tflite_labels import read_labels

    checked = check_tflite(parse_tflite(source.content), options.shapes or None)
    # TVM takes seconds to import, so a bad file is refused before.
    from edgekit.frontend.tflite_convert import convert_tflite

    module, places = convert_tflite(source.content, checked)
    first_output = checked.graph.tensors[checked.graph.outputs[0]]
    labels = read_labels(source.content, first_output.shape[-1]) if first_output.shape else None
    return Model(
        name=name,
        format="tflite",
        sha256=source.sha256,
        module=module,
        input_names=checked.input_names,
        output_names=checked.output_names,
        labels=labels,
        places=places,
    )


def _load_onnx(
    source: Source,
    name: str,
    options: ImportOptions,
    calibration: Sequence[npt.NDArray[np.generic]] | None,
) -> Model:
    from edgekit.frontend.onnx_check import check_onnx, is_quantized
    from edgekit.frontend.onnx_places import places_in_source

    checked = check_onnx(source, options.shapes or None)
    if not is_quantized(checked.model):
        if calibration is None:
            raise UsageError(
                "The ONNX model computes in float32; quantising it takes a few rows of real inputs.",
                hint="Give them: --calibration FILE.npz (or --data).",
            )
        from edgekit.frontend.onnx_quantize import quantize_onnx

        quantized = quantize_onnx(checked, calibration)
        opset = next(o.version for o in quantized.opset_import if o.domain in ("", "ai.onnx"))
        checked = replace(checked, model=quantized, opset=opset)
    from edgekit.frontend.onnx_convert import convert_onnx

    module, places = convert_onnx(checked, places_in_source(checked.nodes, checked.model.graph))
    return Model(
        name=name,
        format="onnx",
        sha256=checked.sha256,
        module=module,
        input_names=checked.inputs,
        output_names=checked.outputs,
        places=places,
    )
