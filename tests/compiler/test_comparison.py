"""Float against int8: the ratios are those of ONNX Runtime and the object code; a broken layer is found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from tvm import relax

from edgekit.artifacts import ImportOptions
from edgekit.compiler import compile_model
from edgekit.compiler.comparison import compare_layers
from edgekit.compiler.comparison.evaluate import HostProgram
from edgekit.compiler.lowering import lower_model
from edgekit.data import to_stored
from edgekit.errors import ModelError
from edgekit.frontend import load_model
from edgekit.layer_errors import Comparison, LayerError
from edgekit.target import load_target
from tests.compiler.qdq import Graph, qdq_model
from tests.frontend.hostile import good_tflite
from tests.reference.host_library import build_host_library

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fashion_mnist"
ROWS = 8


def _float_values(path: Path, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Every tensor of the float model as ONNX Runtime computes it, unoptimised: (rows, …) by name."""
    model = onnx.load(path)
    known = {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.output[0] not in known:
            model.graph.output.add(name=node.output[0])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    answers = [session.run(names, {session.get_inputs()[0].name: row}) for row in rows]
    return {
        name: np.stack([answer[index] for answer in answers])
        for index, name in enumerate(names)
        if not isinstance(answers[0][index], list)
    }


def _decibels(reference: NDArray[Any], answer: NDArray[Any]) -> float:
    wanted = reference.astype(np.float64)
    return 10 * math.log10((wanted**2).sum() / ((wanted - answer) ** 2).sum())


def test_the_ratios_are_those_of_onnx_runtime_and_the_object_code(tmp_path: Path) -> None:
    with np.load(EXAMPLE / "calibration.npz") as file:
        images = file["x"].astype(np.float32)
    model = load_model(EXAMPLE / "model.onnx", calibration=(images,))
    source = load_model(EXAMPLE / "model.onnx", ImportOptions(precision="float32"))
    compiled = compile_model(model, load_target("host"))
    spec = compiled.inputs[0]
    assert spec.quantization is not None
    stored = to_stored(images[:ROWS].reshape(ROWS, *spec.shape), spec, "x")
    done: list[int] = []
    comparison = compare_layers(model, source, [[row] for row in stored], done.append)
    assert comparison.reference == "source"
    assert done == list(range(1, ROWS + 1))
    assert len(comparison.layers) == len(compiled.operators)

    reals = (stored.astype(np.float32) - spec.quantization.zero_point) * np.float32(spec.quantization.scale)
    expected = _float_values(EXAMPLE / "model.onnx", reals)
    library = build_host_library(compiled, tmp_path)
    answers = [library.run_operators([row]) for row in stored]
    tensors = {each.name: each for each in lower_model(model).tensors}
    checked = 0
    for layer in comparison.layers:
        reference = expected[layer.name]
        if layer.op.endswith("conv2d"):
            reference = np.maximum(reference, 0).transpose(0, 1, 3, 4, 2)  # its ReLU is in its range
        quantization = tensors[layer.name].quantization
        assert quantization is not None
        integers = np.stack([np.frombuffer(answer[layer.index][1], np.int8) for answer in answers])
        answer = (integers.astype(np.float64) - quantization.zero_point) * quantization.scale
        found = _decibels(reference.reshape(ROWS, -1), answer)
        assert layer.sqnr_db == pytest.approx(found, abs=0.02), layer.name
        largest = np.abs(reference.reshape(ROWS, -1) - answer).max()
        assert layer.max_abs_error == pytest.approx(largest, rel=1e-3)
        checked += 1
    assert checked == 13


def test_the_evaluator_gives_the_bytes_of_the_object_code(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(good_tflite())
    model = load_model(tmp_path / "m.tflite")
    program = lower_model(model)
    library = build_host_library(compile_model(model, load_target("host")), tmp_path)
    host = HostProgram(program)
    rng = np.random.default_rng(0)
    for _ in range(4):
        row = [rng.integers(-128, 128, spec.shape).astype(spec.dtype) for spec, _ in program.inputs]
        by_name = {operator.name: output for operator, output in library.run_operators(row)}
        outputs = host.run(row)
        assert len(outputs) == len(by_name)
        for step, output in zip(program.steps, outputs, strict=True):
            assert output.tobytes() == by_name[program.tensors[step.output].name]


def _compared(scale: float, weights: NDArray[np.int8], images: NDArray[np.float32]) -> Comparison:
    """Two convolutions; the second one's output has the scale that is given."""

    def body(graph: Graph, x: Any) -> Any:
        first = relax.op.nn.conv2d(
            graph.requantized(x, 1 / 64, 0), graph.weights(np.eye(4, dtype=np.int8).reshape(4, 4, 1, 1) * 100)
        )
        hidden = graph.requantized(graph.emit(first), 1 / 64, 0)
        second = relax.op.nn.conv2d(hidden, graph.weights(weights))
        return graph.requantized(graph.emit(second), scale, 0)

    rows = [[np.clip(np.round(image * 64), -128, 127).astype(np.int8)] for image in images]
    return compare_layers(qdq_model([(1, 4, 6, 6)], body), None, rows)


def _second(comparison: Comparison) -> LayerError:
    return [layer for layer in comparison.layers if layer.op == "conv2d"][1]


def test_a_layer_whose_range_is_too_narrow_is_named() -> None:
    images = np.random.default_rng(0).normal(0, 0.5, (4, 1, 4, 6, 6)).astype(np.float32)
    weights = np.random.default_rng(1).integers(-100, 101, (4, 4, 1, 1)).astype(np.int8)
    good = _compared(1 / 32, weights, images)
    assert good.reference == "dequantized"
    assert _second(good).saturated < 0.001
    narrow = _compared(1 / 256, weights, images)
    worst = narrow.layers[narrow.worst[0]]
    assert worst is _second(narrow)
    assert worst.saturated > 0.2
    assert worst.advice[0].help == "wider_range"
    before = _second(good).alone_db
    assert before is not None
    assert worst.alone_db is not None
    assert worst.alone_db < before - 6


def test_a_range_of_few_outliers_asks_for_percentiles() -> None:
    images = np.random.default_rng(0).normal(0, 0.05, (4, 1, 4, 6, 6)).astype(np.float32)
    wide = _compared(1 / 4, np.full((4, 4, 1, 1), 20, np.int8), images)
    worst = wide.layers[wide.worst[0]]
    assert worst is _second(wide)
    assert worst.advice[0].help == "percentile"
    assert {"int16x8", "qat"} <= {advice.help for advice in worst.advice}


def test_weights_of_uneven_channels_ask_for_a_scale_each() -> None:
    images = np.random.default_rng(0).normal(0, 0.5, (4, 1, 4, 6, 6)).astype(np.float32)
    weights = np.random.default_rng(1).integers(-127, 128, (4, 4, 1, 1)).astype(np.int8)
    weights[0] = np.sign(weights[0])  # one step wide, where the others have 127
    uneven = _compared(1 / 4, weights, images)
    assert "per_channel" in [advice.help for advice in _second(uneven).advice]


def test_a_model_without_integers_is_refused() -> None:
    model = qdq_model([(1, 4)], lambda graph, x: graph.emit(relax.op.exp(x)))
    with pytest.raises(ModelError, match="no quantised tensor"):
        compare_layers(model, None, [[np.zeros((1, 4), np.float32)]])
