"""What the quantiser stores as integers, and that the compiled program computes what torch's graph does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchao", reason="torch and torchao are not installed (pip install 'edgekit[torch]')")
import torch
from torch import fx, nn
from torch.nn import functional

from edgekit import ImportOptions, load_torch
from edgekit.artifacts import CalibrationMethod, Model, Precision
from edgekit.compiler import compile_model
from edgekit.frontend.torch_convert import convert_graph, imported_operators
from edgekit.frontend.torch_graph import capture
from edgekit.frontend.torch_nodes import operator_name
from edgekit.frontend.torch_quantize import calibration_rows, quantize_graph
from edgekit.target import load_target
from tests.reference.host_library import build_host_library

RNG = np.random.default_rng(11)


def _quantized(
    module: nn.Module,
    *shapes: tuple[int, ...],
    precision: Precision = "int8",
    method: CalibrationMethod = "minmax",
) -> fx.GraphModule:
    inputs = tuple(torch.zeros(shape) for shape in shapes)
    graph = capture(module, inputs, imported_operators())
    rows = [RNG.normal(size=(16, *shape)).astype(np.float32) for shape in shapes]
    names = [f"x{i}" for i in range(len(shapes))]
    options = ImportOptions(precision=precision, calibration_method=method)
    return quantize_graph(graph, calibration_rows(names, inputs, rows), options)


def _calls(graph: fx.GraphModule) -> list[str]:
    """Operators in order; q and d for the quantisers of activations, nothing for those of constants."""
    found = []
    for node in graph.graph.nodes:
        name = operator_name(node).partition(".")[0]
        constant = bool(node.args) and isinstance(node.args[0], fx.Node) and node.args[0].op == "get_attr"
        if name and not (constant and name.startswith("dequantize")):
            found.append({"quantize_per_tensor": "q", "dequantize_per_tensor": "d"}.get(name, name))
    return found


def _scales(graph: fx.GraphModule) -> list[tuple[float, int]]:
    """(scale, zero point) of each activation's quantize, in order."""
    return [
        (float(node.args[1]), int(node.args[2]))
        for node in graph.graph.nodes
        if operator_name(node) == "quantize_per_tensor.default"
    ]


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu6(x + functional.relu(self.norm(self.conv(x))))


def test_bounds_belong_to_the_operator_before_them() -> None:
    assert _calls(_quantized(_Residual(), (1, 3, 6, 6))) == [
        "q", "d", "d", "conv2d", "relu", "q", "d", "add", "relu6", "q", "d",
    ]  # fmt: skip


def test_moving_values_keeps_their_scale() -> None:
    class Moves(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            a, b = functional.max_pool2d(torch.sigmoid(x), 2).chunk(2, 1)
            return torch.cat([a.flatten(1), b.flatten(1)[:, 1:], (y * 2 + y).tanh()], 1)

    graph = _quantized(Moves(), (1, 4, 6, 6), (1, 5))
    scales = _scales(graph)
    assert scales.count((1 / 256, -128)) >= 4, "sigmoid, pool, both halves"
    assert (1 / 128, 0) in scales, "tanh"
    joined = scales[-1]
    assert joined not in ((1 / 256, -128), (1 / 128, 0)), "parts of two scales have one of their own"


def test_parts_of_one_kind_share_the_scale_of_their_union() -> None:
    class Joins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.first(x), self.second(x) * 8.0 - 1.0], 1)

    graph = _quantized(Joins(), (1, 2, 4, 4))
    join = next(node for node in graph.graph.nodes if operator_name(node) == "cat.default")
    parts = [part.args[1:3] for part in join.args[0]]
    (quantize,) = join.users
    assert parts == [quantize.args[1:3]] * 2


def test_nothing_is_quantised_between_operators_in_float() -> None:
    class Float(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(2, 4)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(x).cumsum(1)[:, -1])

    calls = _calls(_quantized(Float(), (1, 4, 8)))
    assert calls.count("q") == 2
    assert calls[-5:] == ["q", "d", "linear", "q", "d"]
    assert "q" not in calls[:-5]


def test_recurrent_layers_are_quantised_step_by_step() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gru(x)[0]

    graph = _quantized(Recurrent(), (1, 3, 4))
    quantised = [node for node in graph.graph.nodes if operator_name(node).startswith("quantize")]
    computed = {"linear.default", "sigmoid.default", "tanh.default", "mul.Tensor", "add.Tensor"}
    results = [node for node in graph.graph.nodes if operator_name(node) in computed]
    assert len(results) > 20
    assert {node for result in results for node in result.users} <= set(quantised)


def test_masked_scores_stay_in_float() -> None:
    class Causal(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    graph = _quantized(Causal(), (1, 2, 5, 8))
    assert all(0 < scale < 1 for scale, _ in _scales(graph))
    x = torch.rand(1, 2, 5, 8)
    with torch.no_grad():
        difference = (graph(x) - Causal()(x)).abs().max()
    assert difference < 0.1


def test_sixteen_bit_activations_are_symmetric() -> None:
    graph = _quantized(_Residual(), (1, 3, 6, 6), precision="int16x8")
    quantizers = [n for n in graph.graph.nodes if operator_name(n) == "quantize_per_tensor.default"]
    assert quantizers
    assert all(node.args[2] == 0 and node.args[5] is torch.int16 for node in quantizers)
    weights = [n for n in graph.graph.nodes if operator_name(n) == "dequantize_per_channel.default"]
    assert [node.args[6] for node in weights] == [torch.int8], "the bias stays float"


@pytest.mark.parametrize("method", ["moving_average", "percentile", "entropy", "mse"])
def test_calibration_methods_give_ranges_of_their_own(method: CalibrationMethod) -> None:
    torch.manual_seed(0)
    module = _Residual()
    least = _scales(_quantized(module, (1, 3, 6, 6)))
    other = _scales(_quantized(module, (1, 3, 6, 6), method=method))
    assert len(least) == len(other)
    assert all(0 < scale <= 1.5 * reference for (scale, _), (reference, _) in zip(other, least, strict=True))
    assert other != least


class _Network(nn.Module):
    """Convolutions of every kind that has an integer form, a residual, a join, pooling, a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
        self.point = nn.Conv2d(8, 8, 1)
        self.side = nn.Conv2d(8, 4, 1)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = functional.relu(x + self.point(self.depthwise(x)))
        x = self.norm(torch.cat([x, self.side(x)], 1))
        x = functional.avg_pool2d(functional.max_pool2d(x, 2), 2)
        return self.head(x.mean((2, 3))).softmax(-1)


def _random_norms(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return module.eval()


def _program_answers(model: Model, rows: Sequence[np.ndarray], folder: Path) -> np.ndarray:
    """Reals that the compiled program answers with, (N, …)."""
    library = build_host_library(compile_model(model, load_target("host")), folder)
    (taken,), (given,) = library.compiled.inputs, library.compiled.outputs
    assert taken.quantization is not None
    assert given.quantization is not None
    answers = []
    for row in rows:
        stored = np.round(row / np.float32(taken.quantization.scale)) + taken.quantization.zero_point
        (answer,) = library.run([np.clip(stored, -128, 127).astype(np.int8)])
        answers.append((answer.astype(np.float64) - given.quantization.zero_point) * given.quantization.scale)
    return np.stack(answers)


def test_the_program_computes_what_torch_says(tmp_path: Path) -> None:
    torch.manual_seed(4)
    module = _random_norms(_Network())
    shape = (1, 3, 16, 16)
    graph = _quantized(module, shape)
    relax, places = convert_graph(graph)
    model = Model("network", "torch", "0" * 64, relax, ("x",), ("output",), places=places)
    compiled = compile_model(model, load_target("host"))
    assert compiled.exact, [operator.op for operator in compiled.operators]
    rows = RNG.normal(size=(40, *shape)).astype(np.float32)
    with torch.no_grad():
        simulated = np.stack([graph(torch.from_numpy(row)).numpy() for row in rows])
    found = _program_answers(model, list(rows), tmp_path)
    steps = np.abs(found - simulated) * 256
    assert (steps < 1.5).mean() >= 0.95
    assert (found.reshape(40, -1).argmax(1) == simulated.reshape(40, -1).argmax(1)).mean() >= 0.95


def test_operators_are_named_as_the_user_named_the_layers() -> None:
    module = _random_norms(_Network())
    example, rows = (torch.zeros(1, 3, 16, 16),), [RNG.normal(size=(4, 3, 16, 16)).astype(np.float32)]
    model = load_torch(module, example, rows)
    places = {(place.op, place.name) for place in model.places.values()}
    layers = {("conv2d", "stem.0"), ("conv2d", "depthwise.0"), ("conv2d", "point"), ("conv2d", "norm")}
    assert layers | {("linear", "head"), ("add", "add")} <= places
    assert not any("quantize" in op for op, _ in places)
    operators = compile_model(model, load_target("host")).operators
    assert [(operator.op, operator.name) for operator in operators[1:4]] == [
        ("conv2d", "stem.0"),
        ("depthwise_conv2d", "depthwise.0"),
        ("conv2d", "point"),
    ]


def test_the_hash_is_of_the_graph_and_its_weights() -> None:
    module = _random_norms(_Network())
    example, rows = (torch.zeros(1, 3, 16, 16),), [np.zeros((2, 3, 16, 16), np.float32)]
    first = load_torch(module, example, rows)
    assert load_torch(module, example, rows).sha256 == first.sha256
    assert len(first.sha256) == 64
    with torch.no_grad():
        module.head.bias[0] += 1
    assert load_torch(module, example, rows).sha256 != first.sha256
