"""Layer normalisation against torch, softmax over every axis against the rule that LiteRT's is checked by."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm import relax

from edgekit.artifacts import Quantization
from edgekit.compiler import compile_model
from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.compiler.qdq import Graph, qdq_model
from tests.reference import int8
from tests.reference.host_library import HostLibrary, build_host_library

COUNT = campaign_count(120, 16)


@dataclass(frozen=True, slots=True)
class Norm:
    """One layer normalisation over `axes` of x, and its quantisations."""

    x: NDArray[np.int8]
    axes: tuple[int, ...]
    factors: NDArray[np.float32]
    offsets: NDArray[np.float32]
    q_x: Quantization
    q_y: Quantization
    epsilon: float


def random_norm(rng: np.random.Generator) -> Norm:
    form = rng.integers(4)
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    count = int(rng.choice([1, 2, 3, 8, 17, 64, 300]))
    if form == 0:
        shape, axes = (int(rng.integers(1, 9)), count), (-1,)
    elif form == 1:
        shape, axes = (2, int(rng.integers(1, 5)), count), (2,)
    elif form == 2:
        shape, axes = (2, 3, 4, 5), (1, 2, 3)
    else:
        shape, axes = (2, count, 3), (1,)
    x = rng.integers(-128, 128, shape)
    if rng.integers(3) == 0:  # nearly constant rows
        x = np.clip(np.rint(rng.normal(rng.integers(-100, 100), rng.uniform(0, 3), shape)), -128, 127)
    inner = tuple(shape[axis] for axis in axes)
    return Norm(
        x.astype(np.int8),
        axes,
        (rng.normal(1, 0.4, inner) * rng.choice([1, -1, 3])).astype(np.float32),
        rng.normal(0, 0.5, inner).astype(np.float32),
        Quantization(float(np.float32(2.0 ** rng.uniform(-8, 0))), int(rng.integers(-128, 128))),
        Quantization(float(np.float32(2.0 ** rng.uniform(-7, -3))), int(rng.integers(-128, 128))),
        float(rng.choice([1e-5, 1e-6, 1e-3])),
    )


def torch_norm(case: Norm) -> NDArray[np.int64]:
    import torch

    reals = np.float64(np.float32(case.q_x.scale)) * (case.x.astype(np.float64) - case.q_x.zero_point)
    axes = tuple(axis % reals.ndim for axis in case.axes)
    last = tuple(range(reals.ndim - len(axes), reals.ndim))
    moved = torch.from_numpy(np.moveaxis(reals, axes, last))
    factors, offsets = (torch.from_numpy(each).double() for each in (case.factors, case.offsets))
    result = torch.nn.functional.layer_norm(moved, factors.shape, factors, offsets, case.epsilon).numpy()
    stored = np.rint(np.moveaxis(result, last, axes) / case.q_y.scale) + case.q_y.zero_point
    return np.asarray(np.clip(stored, -128, 127).astype(np.int64))


def compiled(
    shapes: list[tuple[int, ...]], body: Any
) -> tuple[HostLibrary, tempfile.TemporaryDirectory[str]]:
    directory = tempfile.TemporaryDirectory()
    model = compile_model(qdq_model(shapes, body), load_target("host"))
    return build_host_library(model, Path(directory.name)), directory


def test_layer_norm_is_near_torch() -> None:
    """Within a step everywhere, and equal on 99.9 % of the values."""
    rng = np.random.default_rng(12)
    cases = [random_norm(rng) for _ in range(COUNT)]

    def body(graph: Graph, *inputs: Any) -> list[Any]:
        outputs = []
        for x, case in zip(inputs, cases, strict=True):
            real = graph.requantized(x, case.q_x.scale, case.q_x.zero_point)
            factors, offsets = relax.const(case.factors), relax.const(case.offsets)
            call = relax.op.nn.layer_norm(real, factors, offsets, list(case.axes), case.epsilon)
            outputs.append(graph.quantize(graph.emit(call), case.q_y.scale, case.q_y.zero_point))
        return outputs

    library, directory = compiled([case.x.shape for case in cases], body)
    with directory:
        outputs = library.run([case.x for case in cases])
    assert {operator.op for operator in library.compiled.operators} <= {"layer_norm", "transpose"}
    assert library.compiled.exact
    differences = []
    for case, actual in zip(cases, outputs, strict=True):
        difference = np.abs(actual.astype(np.int64) - torch_norm(case))
        assert difference.max() <= 1, case
        differences.append(difference.reshape(-1))
    assert np.concatenate(differences).mean() <= 0.001


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_softmax_over_an_axis(axis: int) -> None:
    rng = np.random.default_rng(axis + 5)
    x = rng.integers(-128, 128, (2, 5, 3, 4)).astype(np.int8)
    scale = float(np.float32(0.04))

    def body(graph: Graph, value: Any) -> Any:
        real = graph.requantized(value, scale, 7)
        return graph.quantize(graph.emit(relax.op.nn.softmax(real, axis)), 1 / 256, -128)

    library, directory = compiled([x.shape], body)
    with directory:
        (actual,) = library.run([x])
    expected = np.moveaxis(int8.softmax(np.moveaxis(x, axis, -1), scale), -1, axis)
    np.testing.assert_array_equal(actual, expected)
