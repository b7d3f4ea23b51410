"""From a TFLite file to a `Model`: checked, converted, quantised where it is float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.artifacts import ImportOptions, Model
from edgekit.errors import UsageError
from edgekit.frontend.calibration_rows import InputType, calibration_rows
from edgekit.frontend.source import Source
from edgekit.frontend.tflite_check import check_tflite, is_float
from edgekit.frontend.tflite_graph import parse_tflite
from edgekit.frontend.tflite_labels import read_labels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["load_tflite"]


def load_tflite(
    source: Source, name: str, options: ImportOptions, calibration: Sequence[npt.NDArray[np.generic]] | None
) -> Model:
    """Import a TFLite file: int8, float, or with float data and int8 weights (which then are float, too).

    Raises:
        ModelError: the file is damaged, contradicts itself or has dynamic dimensions.
        UnsupportedError: operators without a converter, all of them in one message.
        UsageError: a float model without rows to calibrate on.
    """
    checked = check_tflite(parse_tflite(source.content), options.shapes or None)
    quantise = is_float(checked) and options.precision != "float32"
    if quantise and calibration is None:
        raise UsageError(
            "The TFLite model computes in float32; quantising it takes a few rows of real inputs.",
            hint="Give them: --calibration FILE.npz (or --data); or keep it: --precision float32.",
        )
    # TVM takes seconds to import, so a bad file is refused before.
    from edgekit.frontend.tflite_convert import convert_tflite

    module, places = convert_tflite(source.content, checked)
    tensors = checked.graph.tensors
    if quantise and calibration is not None and options.precision != "float32":
        from edgekit.frontend.relax_quantize import quantize_module

        inputs = {
            name: InputType(tensors[i].shape, tensors[i].dtype)
            for name, i in zip(checked.input_names, checked.graph.inputs, strict=True)
        }
        rows = calibration_rows(inputs, calibration)
        module, places = quantize_module(
            module,
            places,
            (list(row.values()) for row in rows),
            precision=options.precision,
            method=options.calibration_method,
        )
    first_output = tensors[checked.graph.outputs[0]]
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
