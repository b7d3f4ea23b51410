"""Float ONNX graphs with the shape arithmetic that exporters write, and pools that read the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import ImportOptions
from edgekit.compiler import lower_model
from edgekit.compiler.operators import AveragePool, Conv2D
from edgekit.compiler.program import Program
from edgekit.frontend import load_model
from tests.frontend.host import run_on_host
from tests.frontend.onnx_models import OnnxBuilder

RNG = np.random.default_rng(0)
SHAPE = (1, 2, 6, 6)


def constant(name: str, values: Any, dtype: type = np.int64) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(values, dtype)))


def lowered(nodes: list[onnx.NodeProto], path: Path) -> Program:
    """The integer program of a float graph from `x` to `y` with convolution weights `w` (3, 2, 3, 3)."""
    weights = numpy_helper.from_array(RNG.normal(size=(3, 2, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return lower_model(load_model(path, calibration=[RNG.normal(size=(8, *SHAPE[1:])).astype(np.float32)]))


def test_padding_as_torch_exports_it_folds_into_the_convolution(tmp_path: Path) -> None:
    """`torch.nn.ZeroPad2d((1, 0, 2, 1))`: the widths come last axis first and are turned at run time."""
    zero = helper.make_tensor("value", TensorProto.INT64, [1], [0])
    nodes = [
        constant("rank", [4]),
        constant("given", [1, 0, 2, 1]),
        helper.make_node(
            "ConstantOfShape",
            ["rank"],
            ["rest"],
            value=zero,
        ),
        helper.make_node("Concat", ["given", "rest"], ["all"], axis=0),
        constant("pairs", [-1, 2]),
        helper.make_node("Reshape", ["all", "pairs"], ["by_axis"]),
        constant("axis", [0]),
        constant("last", [-1]),
        constant("first", [-(2**63) + 1]),
        constant("back", [-1]),
        helper.make_node("Slice", ["by_axis", "last", "first", "axis", "back"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["before_after"], perm=[1, 0]),
        constant("flat", [-1]),
        helper.make_node("Reshape", ["before_after", "flat"], ["widths_as_read"]),
        helper.make_node("Cast", ["widths_as_read"], ["widths"], to=TensorProto.INT64),
        constant("zero", 0.0, np.float32),
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Pad", ["positive", "widths", "zero"], ["padded"], mode="constant"),
        helper.make_node("Conv", ["padded", "w"], ["y"]),
    ]
    program = lowered(nodes, tmp_path / "pad.onnx")
    convolution = next(s.operator for s in program.steps if isinstance(s.operator, Conv2D))
    shape = program.outputs[0][0].shape
    assert shape == (1, 3, 7, 5)
    paddings = [convolution.window.padding] + [
        (s.operator.before[2], s.operator.before[3], s.operator.after[2], s.operator.after[3])
        for s in program.steps
        if s.operator.NAME == "pad"
    ]
    assert (2, 1, 1, 0) in paddings


def test_a_pool_that_reads_the_input_is_quantised(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("AveragePool", ["x"], ["small"], kernel_shape=[2, 2], strides=[1, 1]),
        helper.make_node("Conv", ["small", "w"], ["y"]),
    ]
    program = lowered(nodes, tmp_path / "pool.onnx")
    assert isinstance(program.steps[1].operator, AveragePool)
    assert program.inputs[0][0].dtype == "int8"


def test_batch_normalisations_become_weights(tmp_path: Path) -> None:
    """Behind convolutions of each kind and a product; not behind a result that is read elsewhere as well."""
    b = OnnxBuilder(np.random.default_rng(2))

    def normalized(x: str, channels: int, name: str | None = None) -> str:
        spread = b.constant(b.rng.uniform(0.2, 2.0, channels).astype(np.float32))
        return b.node("BatchNormalization", [x, *(b.weights(channels) for _ in range(3)), spread], name)

    x = b.input("x", (1, 4, 6, 6))
    x = b.node("Relu", [normalized(b.conv(x, 4, 8, pads=[1, 1, 1, 1]), 8)])
    x = normalized(b.node("Conv", [x, b.weights(8, 1, 3, 3)], group=8), 8)
    x = normalized(b.node("ConvTranspose", [x, b.weights(8, 3, 2, 2), b.weights(6)], group=2), 6)
    shared = b.conv(x, 6, 4)
    x = b.node("Add", [normalized(shared, 4), shared])
    x = b.node("Flatten", [x])
    x = b.node("Gemm", [x, b.weights(5, 36), b.weights(5)], transB=1, beta=0.5)
    normalized(normalized(x, 5), 5, "y")
    b.output("y", (1, 5))
    path = tmp_path / "norms.onnx"
    model = b.build()
    onnx.save(model, path)
    loaded = load_model(path, ImportOptions(precision="float32"))
    assert str(loaded.module).count("R.multiply(") == 1
    row = RNG.normal(size=(1, 4, 6, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"x": row})
    np.testing.assert_allclose(run_on_host(loaded, [row])[0], wanted, rtol=1e-4, atol=1e-4)
