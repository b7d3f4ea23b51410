"""From an ONNX file to a `Model`: checked, rewritten, quantised where it has to be, converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekit.artifacts import ImportOptions, Model
from edgekit.errors import UsageError
from edgekit.frontend.onnx_check import check_onnx, is_quantized
from edgekit.frontend.onnx_places import places_in_source
from edgekit.frontend.source import Source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["load_onnx"]


def load_onnx(
    source: Source, name: str, options: ImportOptions, calibration: Sequence[npt.NDArray[np.generic]] | None
) -> Model:
    """Import an ONNX file.

    Raises:
        ModelError: the file is damaged, contradicts itself or has dynamic dimensions.
        UnsupportedError: operators without a converter, all of them in one message.
        UsageError: a float model without rows to calibrate on.
    """
    checked = check_onnx(source, options.shapes or None)
    if not is_quantized(checked.model) and options.precision != "float32":
        if calibration is None:
            raise UsageError(
                "The ONNX model computes in float32; quantising it takes a few rows of real inputs.",
                hint="Give them: --calibration FILE.npz (or --data); or keep it: --precision float32.",
            )
        from edgekit.frontend.onnx_quantize import quantize_onnx

        quantized = quantize_onnx(
            checked, calibration, precision=options.precision, method=options.calibration_method
        )
        opset = next(o.version for o in quantized.opset_import if o.domain in ("", "ai.onnx"))
        checked = replace(checked, model=quantized, opset=opset)
    # TVM takes seconds to import, so a bad file is refused before.
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
