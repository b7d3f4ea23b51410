"""What the lowering makes of QDQ graphs: which integer operators, in which layout, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import relax

from edgekit.artifacts import Model, Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.lowering import lower_model
from edgekit.compiler.program import Program
from edgekit.errors import UnsupportedError
from tests.compiler.qdq import Graph, qdq_model

RNG = np.random.default_rng(0)


def int8(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def names(program: Program) -> list[str]:
    return [step.operator.NAME for step in program.steps]


def conv(graph: Graph, value: Any, outputs: int, inputs: int, size: int = 3, **options: Any) -> Any:
    return graph.emit(relax.op.nn.conv2d(value, graph.weights(int8(outputs, inputs, size, size)), **options))


def test_nchw_convolutions_are_stored_nhwc_and_only_the_ends_move() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.1, 3)
        value = graph.requantized(conv(graph, value, 4, 3, padding=1), 0.2, -5)
        return graph.requantized(conv(graph, value, 2, 4), 0.3, 7)

    program = lower_model(qdq_model([(1, 3, 6, 5)], body))
    assert names(program) == ["transpose", "conv2d", "conv2d", "transpose"]
    first = program.steps[1].operator
    assert isinstance(first, op.Conv2D)
    assert first.weights.shape == (4, 3, 3, 3)
    assert program.tensors[program.steps[1].output].shape == (1, 6, 5, 4)
    spec, tensor = program.outputs[0]
    assert spec.shape == program.tensors[tensor].shape == (1, 2, 4, 3)
    assert spec.quantization == Quantization(np.float32(0.3).item(), 7)


def test_float_inputs_and_outputs_become_integers_at_the_boundary() -> None:
    program = lower_model(
        qdq_model(
            [(1, 4)],
            lambda g, x: g.requantized(g.emit(relax.op.nn.relu(g.requantized(x, 0.5, 1))), 0.25, -128),
        )
    )
    assert names(program) == ["requantize"]
    spec = program.inputs[0][0]
    assert (spec.dtype, spec.quantization) == ("int8", Quantization(0.5, 1))
    assert program.outputs[0][0].dtype == "int8"


def test_relu_and_relu6_become_clamps_of_the_convolution() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.1, 0)
        value = graph.emit(relax.op.nn.relu(conv(graph, value, 2, 1)))
        value = graph.requantized(value, 0.1, -20)
        value = graph.emit(relax.op.clip(conv(graph, value, 2, 2), 0, 6))
        return graph.requantized(value, 0.1, -20)

    program = lower_model(qdq_model([(1, 1, 8, 8)], body))
    clamps = [s.operator.clamp for s in program.steps if isinstance(s.operator, op.Conv2D)]
    assert clamps == [op.Clamp(-20, 127), op.Clamp(-20, 40)]


def test_clip_of_stored_integers_merges_into_the_operator_before() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.1, 0)
        stored = graph.emit(relax.op.clip(graph.quantize(conv(graph, value, 2, 1), 0.1, 0), -30, 50))
        return graph.dequantize(stored, 0.1, 0)

    program = lower_model(qdq_model([(1, 1, 4, 4)], body))
    assert names(program) == ["conv2d", "transpose"]
    convolution = program.steps[0].operator
    assert isinstance(convolution, op.Conv2D)
    assert convolution.clamp == op.Clamp(-30, 50)


def test_clip_stays_a_step_where_the_unclipped_value_is_read_too() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.1, 0)
        stored = graph.quantize(conv(graph, value, 2, 1, size=4), 0.1, 0)
        return [graph.emit(relax.op.clip(stored, -30, 50)), stored]

    program = lower_model(qdq_model([(1, 1, 4, 4)], body))
    assert names(program) == ["conv2d", "requantize"]


def test_padding_folds_into_the_convolution_that_reads_it() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(conv(graph, graph.requantized(x, 0.1, 0), 2, 1, size=1), 0.1, 5)
        value = graph.emit(relax.op.nn.pad(value, [0, 0, 0, 0, 1, 2, 3, 4]))
        return graph.requantized(conv(graph, value, 2, 2), 0.1, 0)

    program = lower_model(qdq_model([(1, 1, 6, 6)], body))
    assert names(program) == ["conv2d", "conv2d", "transpose"]
    convolution = program.steps[1].operator
    assert isinstance(convolution, op.Conv2D)
    assert convolution.window.padding == (1, 3, 2, 4)


def test_flatten_before_dense_reorders_weights_instead_of_moving_data() -> None:
    matrix = int8(2 * 3 * 4, 5)

    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(conv(graph, graph.requantized(x, 0.1, 0), 2, 1, size=1), 0.1, 0)
        flat = graph.emit(relax.op.reshape(value, (1, 24)))
        return graph.requantized(graph.emit(relax.op.matmul(flat, graph.weights(matrix))), 0.1, 0)

    program = lower_model(qdq_model([(1, 1, 3, 4)], body))
    assert names(program) == ["conv2d", "dense"]
    dense = program.steps[1].operator
    assert isinstance(dense, op.Dense)
    # Stored (y, x, c) holds what the source calls (c, y, x).
    expected = matrix.T.reshape(5, 2, 3, 4).transpose(0, 2, 3, 1).reshape(5, 24)
    assert (dense.weights == expected).all()


def test_uint8_activations_are_int8_with_the_zero_point_moved() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.dequantize(graph.quantize(x, 0.1, 130, "uint8"), 0.1, 130)
        return graph.dequantize(graph.quantize(conv(graph, value, 2, 1, size=4), 0.2, 100, "uint8"), 0.2, 100)

    program = lower_model(qdq_model([(1, 1, 4, 4)], body))
    convolution = program.steps[0].operator
    assert isinstance(convolution, op.Conv2D)
    assert (convolution.input_zero_point, convolution.output_zero_point) == (2, -28)


def test_uint8_model_inputs_and_outputs_keep_their_type() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.dequantize(x, 0.1, 130)
        return graph.quantize(conv(graph, value, 2, 1, size=4), 0.2, 100, "uint8")

    program = lower_model(qdq_model([(1, 1, 4, 4)], body, dtype="uint8"))
    assert (program.inputs[0][0].dtype, program.outputs[0][0].dtype) == ("uint8", "uint8")
    assert program.inputs[0][0].quantization == Quantization(np.float32(0.1).item(), 130)
    assert program.outputs[0][0].quantization == Quantization(np.float32(0.2).item(), 100)


def refusal(model: Model) -> str:
    with pytest.raises(UnsupportedError) as caught:
        lower_model(model)
    assert caught.value.exit_code == 4
    return caught.value.message


def test_all_unsupported_operators_are_named_at_once_with_their_places() -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(x, 0.1, 0)
        first = graph.emit(relax.op.nonzero(value))
        second = graph.requantized(graph.emit(relax.op.nn.relu(value)), 0.1, 0)
        return [first, graph.emit(relax.op.unique(second))]

    message = refusal(qdq_model([(1, 4)], body))
    assert "(2)" in message
    assert "Op #2 'tensor2': it has no integer form yet; in float: TVM computes it by calling" in message
    assert message.count("tensor") == 2


def test_an_unquantised_output_is_computed_in_float() -> None:
    program = lower_model(qdq_model([(1, 1, 4, 4)], lambda g, x: conv(g, g.requantized(x, 0.1, 0), 2, 1)))
    assert [step.operator.label for step in program.steps] == ["dequantize", "float.conv2d"]
    assert program.outputs[0][0].dtype == "float32"
    assert "'y0', which is not quantised" in str(program.steps[-1].float_because)


def test_accumulators_that_could_overflow_are_float() -> None:
    wide = np.full((140_000, 1), 127, np.int8)

    def body(graph: Graph, x: Any) -> Any:
        product = graph.emit(relax.op.matmul(graph.requantized(x, 0.1, 0), graph.weights(wide)))
        return graph.requantized(product, 0.1, 0)

    program = lower_model(qdq_model([(1, 140_000)], body))
    assert [step.operator.label for step in program.steps] == ["dequantize", "float.matmul+quantize"]
    assert "overflow" in str(program.steps[1].float_because)


@pytest.mark.parametrize(("groups", "name"), [(1, "conv2d"), (2, "grouped_conv2d"), (4, "depthwise_conv2d")])
def test_convolutions_by_their_groups(groups: int, name: str) -> None:
    def body(graph: Graph, x: Any) -> Any:
        value = conv(graph, graph.requantized(x, 0.1, 0), 8, 4 // groups, groups=groups)
        return graph.requantized(value, 0.1, 0)

    program = lower_model(qdq_model([(1, 4, 4, 4)], body))
    assert names(program) == ["transpose", name, "transpose"]
    assert program.macs == 8 * 2 * 2 * 3 * 3 * (4 // groups)


def test_a_channel_shuffle_moves_once() -> None:
    """Between NHWC convolutions: the split and the joined channels stay the innermost axes."""

    def body(graph: Graph, x: Any) -> Any:
        value = graph.requantized(conv(graph, graph.requantized(x, 0.1, 0), 6, 3), 0.1, 0)
        value = graph.emit(relax.op.reshape(value, (1, 2, 3, 4, 4)))
        value = graph.emit(relax.op.permute_dims(value, [0, 2, 1, 3, 4]))
        value = graph.emit(relax.op.reshape(value, (1, 6, 4, 4)))
        return graph.requantized(conv(graph, value, 2, 6), 0.1, 0)

    program = lower_model(qdq_model([(1, 3, 6, 6)], body))
    assert names(program) == ["transpose", "conv2d", "transpose", "conv2d", "transpose"]
    shuffle = program.steps[2].operator
    assert isinstance(shuffle, op.Transpose)
    assert program.tensors[program.steps[2].inputs[0]].shape == (1, 4, 4, 2, 3)
    assert shuffle.axes == (0, 1, 2, 4, 3)


def test_an_activation_of_a_float_input_is_the_clamp_of_its_quantize() -> None:
    program = lower_model(
        qdq_model([(1, 4)], lambda g, x: g.requantized(g.emit(relax.op.nn.relu(x)), 0.25, -100))
    )
    assert names(program) == ["quantize"]
    assert program.inputs[0][0].dtype == "float32"
    quantize = program.steps[0].operator
    assert isinstance(quantize, op.Quantize)
    assert quantize.clamp == op.Clamp(-100, 127)
