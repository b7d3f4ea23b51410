"""Architectures with random weights: layer by layer near torch, through both front ends, nothing refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torchao", reason="torch and torchao are not installed (pip install 'edgekit[torch]')")
from benchmarks.architectures import Route, check
from benchmarks.networks import ARCHITECTURES
from tests.campaign import is_campaign

THROUGH_ONNX = (
    "mobilenet_v1", "shufflenet_v2", "squeezenet", "cnn_1d", "gru", "lstm", "transformer",
    "conv_autoencoder", "unet_transposed", "unet_resized",
)  # fmt: skip
ALL: list[tuple[str, Route]] = [(name, "torch") for name in ARCHITECTURES]
ALL += [(name, "onnx") for name in THROUGH_ONNX]
FEW: list[tuple[str, Route]] = [("cnn_1d", "torch"), ("conv_autoencoder", "onnx")]


@pytest.mark.parametrize(("name", "route"), ALL if is_campaign() else FEW)
def test_an_architecture_is_what_torch_computes(name: str, route: Route, tmp_path: Path) -> None:
    line = check(name, route, "host", tmp_path)
    assert line.problems() == []
    assert line.macs > 0
    assert line.integer_operators > 0
