"""The MLPerf Tiny models: their QDQ module, place by place, against LiteRT's reference kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import UnsupportedError
from edgekit.frontend import load_model


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


def test_a_float_model_is_refused_with_every_operator(data_dir: Path) -> None:
    with pytest.raises(UnsupportedError, match="16 operators") as caught:
        load_model(data_dir / "pretrainedResnet.tflite")
    assert caught.value.message.count("\n") == 16
    assert "representative_dataset" in (caught.value.hint or "")
