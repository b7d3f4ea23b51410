"""The MLPerf Tiny models: their QDQ module, place by place, against LiteRT's reference kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit.artifacts import ImportOptions
from edgekit.compiler import lower_model
from edgekit.errors import UsageError
from edgekit.frontend import load_model
from tests.frontend.host import HostModel


@pytest.mark.parametrize(
    ("file", "operators"), [("kws_ref_model.tflite", 13), ("pretrainedResnet_quant.tflite", 16)]
)
def test_every_operator_has_a_place(data_dir: Path, file: str, operators: int) -> None:
    model = load_model(data_dir / file)
    assert sorted({place.index for place in model.places.values()}) == list(range(operators))
    names = [binding.var.name for block in model.module["main"].body.blocks for binding in block.bindings]
    assert set(names) == set(model.places)
    assert model.format == "tflite"
    assert len(model.input_names) == len(model.output_names) == 1


def test_a_float_model_runs_in_float_and_quantised(data_dir: Path) -> None:
    path = data_dir / "pretrainedResnet.tflite"
    rows = np.random.default_rng(0).random((8, 32, 32, 3)).astype(np.float32) * 255
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    given, wanted = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    kept = HostModel(load_model(path, ImportOptions(precision="float32")))
    quantised = load_model(path, calibration=[rows])
    assert {place.index for place in quantised.places.values()} == set(range(16))
    program = lower_model(quantised)
    assert {step.operator.NAME for step in program.steps} == {"conv2d", "add", "mean", "dense", "softmax"}
    integers = HostModel(quantised)
    for row in rows[:3]:
        interpreter.set_tensor(given, row[None])
        interpreter.invoke()
        expected = interpreter.get_tensor(wanted)
        np.testing.assert_allclose(kept.run([row[None]])[0], expected, rtol=1e-4, atol=1e-5)
        found = integers.run([row[None]])[0]
        assert np.abs(found - expected).max() < 0.25
        assert found.argmax() == expected.argmax()


def test_a_float_model_asks_for_calibration(data_dir: Path) -> None:
    with pytest.raises(UsageError, match="TFLite model computes in float32") as caught:
        load_model(data_dir / "pretrainedResnet.tflite")
    assert "--precision float32" in str(caught.value.hint)
