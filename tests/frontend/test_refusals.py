"""What a user is told: shapes, calibration, unsupported operators, external data, labels."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm_ffi
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import ImportOptions
from edgekit.errors import ModelError, UnsupportedError, UsageError
from edgekit.frontend import load_model
from edgekit.frontend.calibration_rows import InputType, calibration_rows
from tests.frontend.host import run_on_host, worst_difference
from tests.frontend.hostile import good_onnx, good_tflite
from tests.frontend.onnx_models import OnnxBuilder, random_cnn
from tests.reference.tflite_builder import TfliteBuilder


def _save(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def _tflite(folder: Path, content: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


# --- shapes ---


def _dynamic(*dims: Any) -> onnx.ModelProto:
    b = OnnxBuilder(np.random.default_rng(0))
    left, right = b.input("left", dims), b.input("right side", ("n", 4))
    b.output(b.node("Gemm", [left, b.weights(4, 4)]), ("batch", 4))
    b.output(b.node("Relu", [right]), ("n", 4))
    return b.build()


def test_every_dynamic_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'left' \(\?,4\), 'right side' \(\?,4\)") as caught:
        load_model(_save(tmp_path, _dynamic("batch", 4)))
    assert "--shape left=1,4" in str(caught.value.hint)


def test_an_input_that_stays_dynamic_is_named_alone(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'right side'") as caught:
        load_model(_save(tmp_path, _dynamic("batch", 4)), ImportOptions(shapes={"left": (2, 4)}))
    assert "'left'" not in caught.value.message
    assert "--shape 'right side=1,4'" in str(caught.value.hint)


def test_an_unknown_input_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'lefd'.*Did you mean 'left'\?"):
        load_model(_save(tmp_path, _dynamic("batch", 4)), ImportOptions(shapes={"lefd": (2, 4)}))


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 1), (0, 4), (-1, 4), (2**40, 4)])
def test_a_shape_that_contradicts_the_file_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="--shape 'left'"):
        load_model(
            _save(tmp_path, _dynamic("batch", 4)), ImportOptions(shapes={"left": shape, "right side": (1, 4)})
        )


def test_shapes_reach_the_module(tmp_path: Path) -> None:
    model = load_model(
        _save(tmp_path, _dynamic("batch", 4)),
        ImportOptions(shapes={"left": (2, 4), "right side": (3, 4)}),
        calibration=[np.eye(4, dtype=np.float32)[:, None].repeat(2, 1), np.ones((4, 3, 4), np.float32)],
    )
    shapes = [[int(d) for d in p.ty.shape] for p in model.module["main"].params]
    assert shapes == [[2, 4], [3, 4]]
    assert model.input_names == ("left", "right side")


def _dynamic_tflite(axis: int) -> bytes:
    b = TfliteBuilder()
    rng = np.random.default_rng(0)
    x = b.input((1, 6, 6, 2), 0.05, 3, name="image")
    w = rng.integers(-127, 128, (3, 3, 3, 2)).astype(np.int8)
    y = b.conv2d(x, w, np.arange(3, dtype=np.int32), [0.01] * 3, 0.1, -5, stride=(2, 2))
    b.output(b.mean(y, (1, 2), 0.1, 0, keep_dims=False))
    signature = [1, 6, 6, 2]
    signature[axis] = -1
    b._tensors[x.index].shapeSignature = signature
    return b.build()


def test_a_dynamic_tflite_dimension_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'image' \(1,\?,6,2\)"):
        load_model(_tflite(tmp_path, _dynamic_tflite(1)))


def test_a_dynamic_tflite_batch_is_the_files_own_one(tmp_path: Path) -> None:
    model = load_model(_tflite(tmp_path, _dynamic_tflite(0)))
    assert [int(d) for d in model.module["main"].params[0].ty.shape] == [1, 6, 6, 2]


@pytest.mark.parametrize(("axis", "shape"), [(0, (4, 6, 6, 2)), (1, (1, 9, 6, 2))])
def test_a_fixed_tflite_dimension_runs_as_litert_resized(
    tmp_path: Path, axis: int, shape: tuple[int, ...]
) -> None:
    content = _dynamic_tflite(axis)
    x = np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)
    model = load_model(_tflite(tmp_path, content), ImportOptions(shapes={"image": shape}))
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert worst_difference(run_on_host(model, [x]), [expected]) <= 1


def _reshape_of_a_dynamic_batch() -> bytes:
    """What TensorFlow writes for Reshape((12,)) of a batch left open."""
    b = TfliteBuilder()
    x = b.input((1, 3, 4), 0.05, 3, name="x")
    b._tensors[x.index].shapeSignature = [-1, 3, 4]
    shape = b._operator("SHAPE", [x], schema.ShapeOptionsT(), (3,), 0, 0, "int32")
    options = schema.StridedSliceOptionsT()
    options.shrinkAxisMask = 1
    bounds = [b.constant(np.array([v], np.int32)) for v in (0, 1, 1)]
    batch = b._operator("STRIDED_SLICE", [shape, *bounds], options, (), 0, 0, "int32")
    options = schema.PackOptionsT()
    options.valuesCount = 2
    packed = b._operator("PACK", [batch, b.constant(np.array(12, np.int32))], options, (2,), 0, 0, "int32")
    flat = b._operator("RESHAPE", [x, packed], schema.ReshapeOptionsT(), (1, 12), x.scale, x.zero_point)
    w = np.random.default_rng(0).integers(-127, 128, (5, 12)).astype(np.int8)
    b.output(b.fully_connected(flat, w, None, [0.01], 0.1, 0))
    return b.build()


@pytest.mark.parametrize("batch", [1, 3])
def test_shape_arithmetic_is_worked_out(tmp_path: Path, batch: int) -> None:
    path = _tflite(tmp_path, _reshape_of_a_dynamic_batch())
    model = load_model(path, ImportOptions(shapes={"x": (batch, 3, 4)}))
    ops = {place.op for place in model.places.values()}
    assert ops == {"RESHAPE", "FULLY_CONNECTED"}
    assert {p.index for p in model.places.values()} == {3, 4}
    assert [int(d) for d in model.module["main"].ret_ty.shape] == [batch, 5]


@pytest.mark.parametrize("opset", [12, 17])
def test_shape_arithmetic_of_onnx_is_worked_out(tmp_path: Path, opset: int) -> None:
    b = OnnxBuilder(np.random.default_rng(0), opset)
    x = b.conv(b.input("x", ("batch", 3, 4, 4)), 3, 2, kernel=1)
    batch = b.node("Gather", [b.node("Shape", [x]), b.constant(np.array(0, np.int64))])
    if opset >= 13:
        batch = b.node("Unsqueeze", [batch, b.constant(np.array([0], np.int64))])
    else:
        batch = b.node("Unsqueeze", [batch], axes=[0])
    rest = b.node("Mul", [b.constant(np.array([8], np.int64)), b.constant(np.array([4], np.int64))])
    flat = b.node("Reshape", [x, b.node("Concat", [batch, rest], axis=0)])
    b.output(b.node("MatMul", [flat, b.weights(32, 5)], name="y"), ("batch", 5))
    model = load_model(
        _save(tmp_path, b.build()),
        ImportOptions(shapes={"x": (3, 3, 4, 4)}),
        calibration=[np.ones((2, 3, 3, 4, 4), np.float32)],
    )
    assert [int(d) for d in model.module["main"].ret_ty.shape] == [3, 5]
    assert {(p.op, p.index) for p in model.places.values()} == {("Conv", 0), ("Reshape", 6), ("MatMul", 7)}


def test_shape_arithmetic_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    b = OnnxBuilder(np.random.default_rng(0))
    x = b.input("x", (1, 8))
    batch = b.node("Gather", [b.node("Shape", [x]), b.constant(np.array([5], np.int64))], name="bad")
    b.output(b.node("Reshape", [x, batch]), (8,))
    with pytest.raises(ModelError, match=r"bad|Gather"):
        load_model(_save(tmp_path, b.build()))


# --- unsupported operators ---


def test_all_unsupported_tflite_operators_come_at_once(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input((1, 4), 0.1, 0)
    y = b._operator("COS", [x], None, (1, 4), 0.1, 0)
    z = b.softmax(y)
    b.output(b._operator("ATAN2", [z, x], None, (1, 4), 0.1, 0))
    with pytest.raises(UnsupportedError) as caught:
        load_model(_tflite(tmp_path, b.build()))
    assert "2 operators" in caught.value.message
    assert "COS 't1' (operator 0): no converter" in caught.value.message
    assert "ATAN2 't3' (operator 2): no converter" in caught.value.message


def test_all_unsupported_onnx_operators_come_at_once(tmp_path: Path) -> None:
    b = OnnxBuilder(np.random.default_rng(0))
    y = b.node("Unique", [b.input("x", (1, 4))], name="first")
    b.output(b.node("NonZero", [b.node("Relu", [y])], name="last"), (1, 4))
    with pytest.raises(UnsupportedError) as caught:
        load_model(_save(tmp_path, b.build()))
    assert "Unique 'first' (operator 0)" in caught.value.message
    assert "NonZero 'last' (operator 2)" in caught.value.message


def test_forms_without_a_converter_come_at_once_too(tmp_path: Path) -> None:
    model = good_onnx(quantized=True)
    nodes = [
        helper.make_node("Dropout", ["x", "ratio", "training"], ["p"]),
        helper.make_node("MaxPool", ["x"], ["m", "indices"], kernel_shape=[2, 2]),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(0.5, np.float32), "ratio"))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "training"))
    with pytest.raises(UnsupportedError) as caught:
        load_model(_save(tmp_path, model))
    assert "Dropout 'p'" in caught.value.message
    assert "MaxPool 'm'" in caught.value.message


def test_an_integer_operator_without_operands_is_refused(tmp_path: Path) -> None:
    b = OnnxBuilder(np.random.default_rng(0))
    b.output(b.node("QLinearAdd", [b.input("x", (1, 4))], domain="com.microsoft"), (1, 4))
    with pytest.raises(ModelError, match="QLinearAdd 't0' of the ONNX file lacks operands"):
        load_model(_save(tmp_path, b.build()))


def test_integer_weights_of_float_data_count_as_the_reals_they_stand_for(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input((1, 4), dtype="float32")
    stored = np.arange(12, dtype=np.int8).reshape(3, 4)
    w = b.constant(stored, [0.5])
    options = schema.FullyConnectedOptionsT()
    b.output(b._operator("FULLY_CONNECTED", [x, w, None], options, (1, 3), 0, 0, "float32"))
    path = _tflite(tmp_path, b.build())
    with pytest.raises(UsageError, match="computes in float32"):
        load_model(path)
    row = np.array([[1.0, -2.0, 0.25, 3.0]], np.float32)
    found = run_on_host(load_model(path, ImportOptions(precision="float32")), [row])[0]
    np.testing.assert_allclose(found, row @ (stored.T * np.float32(0.5)), rtol=1e-6)


# --- calibration ---


def test_a_float_model_asks_for_calibration(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_model(_save(tmp_path, random_cnn(0)))
    assert "--calibration" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("rows", "words", "hint"),
    [
        ([], "1 inputs and --calibration 0 arrays", "x0, x1"),
        ([np.zeros((4, 1, 3, 12, 13))], "rows of 1,3,12,13", "dimensions of one"),
        ([np.zeros((4, 12, 12, 3))], "rows of 12,12,3", r"channels first: save x\.transpose\(0, 3, 1, 2\)"),
        ([np.zeros((3, 12, 12))], "rows of 12,12", r"x\[None\]"),
        ([np.zeros((0, 3, 12, 12))], "no rows", ""),
        ([np.full((4, 3, 12, 12), np.nan)], "no numbers", ""),
        ([np.full((4, 3, 12, 12), "a")], "no numbers", ""),
        ([np.zeros((4, 3, 12, 12), np.uint8)], "is uint8; the model takes real values", "astype"),
    ],
)
def test_calibration_that_does_not_fit(tmp_path: Path, rows: list[Any], words: str, hint: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_model(_save(tmp_path, random_cnn(0)), calibration=rows)
    assert re.search(hint, caught.value.hint or "")


def test_rows_of_indices_calibrate_inputs_of_integers() -> None:
    inputs = {"tokens": InputType((1, 3), "int64"), "sound": InputType((1, 1, 2), "float32")}
    tokens, sound = np.array([[1, 2, 3], [4, 5, 6]], np.uint8), np.array([[0.5, 1.0], [2.0, 3.0]])
    first, second = calibration_rows(inputs, [tokens, sound])
    assert first["tokens"].dtype == np.int64
    assert second["tokens"].tolist() == [[4, 5, 6]]
    assert second["sound"].tolist() == [[[2.0, 3.0]]]
    assert second["sound"].dtype == np.float32
    with pytest.raises(ModelError, match="is float64; the model takes int64"):
        calibration_rows(inputs, [tokens.astype(float), sound])
    narrow = {"tokens": InputType((1, 3), "int8")}
    with pytest.raises(ModelError, match="outside int8"):
        calibration_rows(narrow, [tokens.astype(np.int64) * 100])


def test_a_batch_of_one_may_be_left_out_of_the_rows(tmp_path: Path) -> None:
    path = _save(tmp_path, random_cnn(0))
    rows = np.random.default_rng(0).standard_normal((6, 3, 12, 12)).astype(np.float32)
    first, second = (load_model(path, calibration=[x]) for x in (rows, rows[:, None]))
    assert tvm_ffi.structural_equal(first.module, second.module, map_free_vars=True)
    other = load_model(path, calibration=[rows * 2])
    assert not tvm_ffi.structural_equal(first.module, other.module, map_free_vars=True)
    assert first.places == second.places


def test_a_model_beyond_calibration_is_refused_before_it_runs(tmp_path: Path) -> None:
    b = OnnxBuilder(np.random.default_rng(0))
    x = b.input("x", (1, 1, 8192, 8192))
    for _ in range(3):
        x = b.node("Relu", [x])
    b.output(x)
    with pytest.raises(ModelError, match="activations"):
        load_model(_save(tmp_path, b.build()), calibration=[np.zeros((1, 1, 8192, 8192), np.float32)])


# --- places, names, constants, external data, labels ---


def test_places_of_a_qdq_file_are_its_own(tmp_path: Path) -> None:
    model = load_model(_save(tmp_path, good_onnx(quantized=True)))
    bindings = [b.var.name for block in model.module["main"].body.blocks for b in block.bindings]
    assert set(bindings) == set(model.places)
    found = {(p.op, p.name, p.index) for p in model.places.values()}
    assert ("Conv", "t3", 3) in found
    assert ("Gemm", "y", 8) in found


def test_places_of_a_quantised_file_are_those_of_the_float_file(tmp_path: Path) -> None:
    b = OnnxBuilder(np.random.default_rng(0))
    x = b.conv(b.input("x", (1, 3, 6, 6)), 3, 4)
    stats = [b.constant(np.full(4, v, np.float32)) for v in (1.1, 0.2, 0.1, 1.3)]
    x = b.node("Relu", [b.node("BatchNormalization", [x, *stats])])
    b.output(b.node("MatMul", [b.node("Flatten", [x]), b.weights(64, 2)], name="y"))
    model = load_model(_save(tmp_path, b.build()), calibration=[np.ones((2, 3, 6, 6), np.float32)])
    found = {(p.op, p.name, p.index) for p in model.places.values()}
    # The batch normalisation and the activation went into the convolution, whose place stands for them.
    assert found == {("Conv", "t0", 0), ("Flatten", "t3", 3), ("MatMul", "y", 4)}


def test_constants_may_be_nodes_and_inputs_may_have_defaults(tmp_path: Path) -> None:
    plain = good_onnx(quantized=True)
    rewritten = good_onnx(quantized=True)
    tensors = list(rewritten.graph.initializer)
    del rewritten.graph.initializer[1:]
    rewritten.graph.input.append(
        helper.make_tensor_value_info(tensors[0].name, TensorProto.FLOAT, list(tensors[0].dims))
    )
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors[1:]]
    nodes.append(helper.make_node("Identity", ["y"], ["z"]))
    original = list(rewritten.graph.node)
    del rewritten.graph.node[:]
    rewritten.graph.node.extend([*nodes[:-1], *original, nodes[-1]])
    rewritten.graph.output[0].name = "z"
    first, second = (load_model(_save(tmp_path, m)) for m in (plain, rewritten))
    assert second.input_names == ("x",)
    assert tvm_ffi.structural_equal(first.module, second.module, map_free_vars=True)


def test_external_data_of_the_folder_is_taken_in_and_hashed(tmp_path: Path) -> None:
    whole = load_model(_save(tmp_path, good_onnx(quantized=True)))
    model = good_onnx(quantized=True)
    tensor = model.graph.initializer[2]
    weights = tensor.raw_data
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w.bin").write_bytes(b"\0" * 5 + weights + b"tail")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights/w.bin", "offset": "5", "length": str(len(weights))}.items():
        tensor.external_data.add(key=key, value=value)
    path = _save(tmp_path, model, "external.onnx")
    outside = load_model(path)
    assert tvm_ffi.structural_equal(whole.module, outside.module, map_free_vars=True)
    assert outside.sha256 == hashlib.sha256(path.read_bytes() + weights).hexdigest()
    (tmp_path / "weights/w.bin").write_bytes(b"\0" * 5 + bytes(len(weights)))
    assert load_model(path).sha256 != outside.sha256


def test_the_name_and_the_hash(tmp_path: Path) -> None:
    path = _tflite(tmp_path, good_tflite())
    model = load_model(path)
    assert (model.name, model.format) == ("model", "tflite")
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_model(path, ImportOptions(name="other")).name == "other"


def _archive(fill: Callable[[zipfile.ZipFile], None]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        fill(archive)
    return file.getvalue()


def test_labels_come_from_the_archive_behind_the_model(tmp_path: Path) -> None:
    labels = "cat\ndog\nbird\nfish\nnone\n"
    packed = _archive(lambda a: a.writestr("labels.txt", labels))
    model = load_model(_tflite(tmp_path, good_tflite() + packed))
    assert model.labels == ("cat", "dog", "bird", "fish", "none")


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        _archive(lambda a: a.writestr("labels.txt", "one\ntwo\n")),
        _archive(lambda a: a.writestr("notes.txt", "a\nb\nc\nd\ne\n")),
        _archive(lambda a: a.writestr("labels.txt", bytes(8 << 20))),
        _archive(lambda a: [a.writestr(f"labels{i}.txt", "x") for i in range(100)] and None),
        _archive(lambda a: a.writestr("labels.txt", "a\nb\nc\nd\ne\n"))[:-30],
        b"PK\5\6" + b"\xff" * 18,
    ],
    ids=["none", "other-count", "other-name", "bomb", "many", "cut", "nonsense"],
)
def test_labels_that_do_not_fit_are_none(tmp_path: Path, tail: bytes) -> None:
    assert load_model(_tflite(tmp_path, good_tflite() + tail)).labels is None
