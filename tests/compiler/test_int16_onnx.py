"""16x8 from ONNX: what was quantised with int16 activations, as a program against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.artifacts import DEFAULT_COMPILE, ImportOptions, Serving
from edgekit.compiler import lower_model
from edgekit.data import to_stored
from edgekit.frontend import load_model
from edgekit.frontend.onnx_check import check_onnx
from edgekit.frontend.onnx_quantize import quantize_onnx
from edgekit.frontend.source import read_source
from edgekit.stages import STAGES
from edgekit.target import load_target
from edgekit.verify import infer
from tests.frontend.onnx_models import OnnxBuilder
from tests.frontend.test_onnx_numbers import _run_reference

ROWS = 20


def test_convolutions_and_dense_layers_answer_as_onnx_runtime_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    b = OnnxBuilder(rng)
    x = b.node("Relu", [b.conv(b.input("x", (1, 3, 10, 10)), 3, 8, pads=[1, 1, 1, 1], strides=[2, 2])])
    x = b.node("Relu", [b.conv(x, 8, 8, group=8, pads=[1, 1, 1, 1])])
    x = b.conv(x, 8, 6, kernel=1)
    b.output(b.node("Gemm", [b.node("Flatten", [x]), b.weights(150, 5), b.weights(5)]), (1, 5))
    path = tmp_path / "float.onnx"
    path.write_bytes(b.build().SerializeToString())
    calibration = [rng.standard_normal((60, 3, 10, 10)).astype(np.float32)]
    model = load_model(path, ImportOptions(precision="int16x8"), calibration=calibration)
    kinds = [step.operator.NAME for step in lower_model(model).steps]
    # ONNX Runtime quantises before a Relu and behind it: it is the clamp of the convolution nevertheless.
    assert kinds.count("conv2d_16x8") == 3
    assert "dense_16x8" in kinds
    assert not any("float" in kind or kind == "dequantize" for kind in kinds)
    host = load_target("host")
    compiled = STAGES.compile_model(model, host, DEFAULT_COMPILE)
    image = STAGES.build_image(compiled, host, tmp_path / "host", {})
    quantized = quantize_onnx(check_onnx(read_source(path), None), calibration, precision="int16x8")
    rows = calibration[0][:ROWS]
    stored = to_stored(rows, compiled.inputs[0])
    spec = compiled.outputs[0]
    step = 1.0 if spec.quantization is None else spec.quantization.scale
    zero_point = 0 if spec.quantization is None else spec.quantization.zero_point
    expected = [_run_reference(quantized, [row[None]])[0] for row in calibration[0]]
    # The output's scale is its largest value in calibration over 32767; each layer may be off by a step.
    tolerance = 4 * max(np.abs(answer).max() for answer in expected) / 32767
    with STAGES.open_board(host, image, None, Serving()) as client:
        for row in range(ROWS):
            (answer,) = infer(client, (stored[row].tobytes(),), compiled.outputs)
            found = step * (answer.astype(np.float64) - zero_point)
            assert np.abs(found - expected[row]).max() <= tolerance
