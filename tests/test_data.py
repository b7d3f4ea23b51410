"""Data files: what is read, what is refused with a sentence, and the arithmetic of host-side quantisation."""

from __future__ import annotations

import pickle
import re
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from edgekit.artifacts import Quantization, TensorSpec
from edgekit.data import (
    calibration_inputs,
    evaluation_rows,
    random_rows,
    read_data,
    row_digests,
    select_rows,
    stratified_split,
    to_stored,
)
from edgekit.errors import ModelError, UsageError

INT8 = TensorSpec("input", (1, 4, 3, 1), "int8", Quantization(0.5, 3))


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_rows_of_the_models_integer_type_go_through_unchanged(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.int8).reshape(2, 4, 3, 1)
    data = read_data(save(tmp_path / "d.npz", x=x, y=np.array([1, 0]), labels=np.array(["no", "yes"])))
    rows = evaluation_rows(data, [INT8], calibrated_on_it=False, seed=0)
    assert rows.input_bytes(1) == (x[1].tobytes(),)
    assert rows.y is not None
    assert rows.y.tolist() == [1, 0]
    assert data.labels == ("no", "yes")


def test_float_rows_are_quantised_half_away_from_zero_and_clamped() -> None:
    values = np.array([0.25, -0.25, 0.24, 0.75, -0.75, 1e9, -1e9], dtype=np.float32)
    spec = TensorSpec("input", (7,), "int8", Quantization(0.5, 3))
    assert to_stored(values, spec).tolist() == [4, 2, 3, 5, 1, 127, -128]


@settings(max_examples=200, deadline=None)
@given(
    value=st.floats(-1e4, 1e4, width=32),
    scale=st.floats(2.0**-10, 4.0, width=32),
    zero_point=st.integers(-128, 127),
)
def test_quantisation_equals_exact_rational_rounding_of_the_float32_quotient(
    value: float, scale: float, zero_point: int
) -> None:
    quotient = Fraction(float(np.float32(value) / np.float32(scale)))
    away = (abs(quotient) + Fraction(1, 2)).__floor__() * (1 if quotient >= 0 else -1)
    spec = TensorSpec("input", (1,), "int8", Quantization(scale, zero_point))
    got = int(to_stored(np.array([value], dtype=np.float32), spec)[0])
    assert got == max(-128, min(127, away + zero_point))


def test_several_inputs_are_numbered_in_the_models_order(tmp_path: Path) -> None:
    arrays = {f"x{index}": np.full((2, 1), index, dtype=np.int8) for index in range(11)}
    data = read_data(save(tmp_path / "d.npz", **arrays))
    specs = [TensorSpec(f"i{index}", (1, 1), "int8") for index in range(11)]
    rows = evaluation_rows(data, specs, calibrated_on_it=False, seed=0)
    assert [int(values[0, 0, 0]) for values in rows.inputs] == list(range(11))
    with pytest.raises(ModelError, match="11 input"):
        evaluation_rows(data, specs[:2], calibrated_on_it=False, seed=0)


def test_a_gap_in_the_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="without a gap"):
        read_data(save(tmp_path / "d.npz", x0=np.zeros((1, 1)), x2=np.zeros((1, 1))))


def test_a_split_file_is_verified_on_its_test_part_and_calibrated_on_its_train_part(tmp_path: Path) -> None:
    spec = TensorSpec("input", (1, 2), "float32")
    path = save(
        tmp_path / "d.npz",
        x_train=np.zeros((5, 2), np.float32),
        y_train=np.zeros(5, int),
        x_test=np.ones((3, 2), np.float32),
        y_test=np.ones(3, int),
    )
    data = read_data(path)
    rows = evaluation_rows(data, [spec], calibrated_on_it=True, seed=0)
    assert len(rows) == 3
    assert rows.y is not None
    assert rows.y.tolist() == [1, 1, 1]
    (calibration,) = calibration_inputs(data, whole_file=False, seed=0)
    assert calibration.shape == (5, 2)
    assert calibration.dtype == np.float32


def test_rows_that_calibrated_the_model_never_count(tmp_path: Path) -> None:
    x = np.arange(100, dtype=np.float32).reshape(100, 1)
    data = read_data(save(tmp_path / "d.npz", x=x, y=np.repeat([0, 1], 50)))
    spec = TensorSpec("input", (1, 1), "float32")
    (calibration,) = calibration_inputs(data, whole_file=False, seed=7)
    rows = evaluation_rows(data, [spec], calibrated_on_it=True, seed=7)
    assert len(rows) == 20
    assert rows.y is not None
    assert rows.y.tolist() == [0] * 10 + [1] * 10
    assert not set(calibration.ravel()) & set(rows.inputs[0].ravel())
    train_only = read_data(save(tmp_path / "t.npz", x_train=x, y_train=np.zeros(100, int)))
    used = row_digests(calibration_inputs(train_only, whole_file=False, seed=0))
    with pytest.raises(UsageError, match="calibrated the model"):
        evaluation_rows(train_only, [spec], calibrated_on_it=True, seed=0, excluded=used)


def test_a_row_that_calibrated_is_known_again_in_another_file(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    spec = TensorSpec("input", (1, 2), "float32")
    calibration = read_data(save(tmp_path / "c.npz", x=x[[1, 4]].astype(np.float64).reshape(2, 1, 2)))
    used = row_digests(calibration_inputs(calibration, whole_file=True, seed=0))
    data = read_data(save(tmp_path / "d.npz", x=x, y=np.arange(6)))
    rows = evaluation_rows(data, [spec], calibrated_on_it=False, seed=0, excluded=used)
    assert rows.numbers.tolist() == [0, 2, 3, 5]
    with pytest.raises(UsageError, match="no rows but"):
        evaluation_rows(calibration, [spec], calibrated_on_it=False, seed=0, excluded=used)


def test_the_split_is_named_by_its_hash() -> None:
    y = np.repeat(np.arange(4), 25)
    first, again, other = (
        stratified_split(y, 100, 1),
        stratified_split(y, 100, 1),
        stratified_split(y, 100, 2),
    )
    assert first.sha256 == again.sha256 != other.sha256
    everything = np.concatenate([first.train, first.val, first.test])
    assert sorted(everything.tolist()) == list(range(100))
    assert np.bincount(y[first.test]).tolist() == [5, 5, 5, 5]


def test_fewer_rows_are_chosen_by_the_seed_and_keep_their_numbers(tmp_path: Path) -> None:
    x = np.arange(50, dtype=np.int8).reshape(50, 1)
    data = read_data(save(tmp_path / "d.npz", x=x, y=np.arange(50)))
    rows = evaluation_rows(data, [TensorSpec("input", (1, 1), "int8")], calibrated_on_it=False, seed=0)
    few = select_rows(rows, 8, seed=3)
    assert len(few) == 8
    assert sorted(few.numbers.tolist()) == few.numbers.tolist()
    assert few.inputs[0].ravel().tolist() == few.numbers.tolist()
    assert select_rows(rows, 50, seed=3) is rows


def test_random_rows_repeat_and_cover_the_type() -> None:
    specs = [INT8, TensorSpec("other", (3,), "float32")]
    rows, again = random_rows(specs, 200, 1), random_rows(specs, 200, 1)
    assert rows.inputs[0].shape == (200, 1, 4, 3, 1)
    assert rows.inputs[0].tobytes() == again.inputs[0].tobytes()
    assert rows.inputs[0].min() == -128
    assert rows.inputs[0].max() == 127
    assert np.abs(rows.inputs[1]).max() <= 1.0


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"z": np.zeros(3)}, "has no `x`"),
        ({"x": np.zeros((0, 4))}, "holds no rows"),
        ({"x": np.array(5.0)}, "holds no rows"),
        ({"x": np.array([[np.nan, 1.0]])}, "NaN"),
        ({"x": np.array([[1.0], [np.inf]])}, "row 1"),
        ({"x": np.array([["a"]])}, "not numbers"),
        ({"x": np.zeros((2, 4)), "y": np.zeros(3, int)}, "shape"),
        ({"x": np.zeros((2, 4)), "y": np.zeros(2)}, "class indices"),
        ({"x": np.zeros((2, 4)), "y": np.eye(2)}, r"one-hot labels: save y\.argmax"),
        ({"x": np.zeros((2, 4)), "y": np.zeros((2, 1), int)}, r"y\.ravel"),
        ({"x": np.zeros((2, 4)), "y": np.array([0, -1])}, "negative"),
        ({"x": np.zeros((2, 4)), "x_train": np.zeros((2, 4))}, "one or the other"),
        ({"x": np.zeros((2, 4)), "labels": np.zeros(3)}, "labels"),
        ({"x0": np.zeros((2, 4)), "x1": np.zeros((3, 4))}, "rows"),
    ],
)
def test_arrays_that_make_no_sense_are_refused_with_a_sentence(
    tmp_path: Path, arrays: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ModelError) as caught:
        read_data(save(tmp_path / "d.npz", **arrays))
    assert re.search(sentence, f"{caught.value} {caught.value.hint}")


def test_indices_are_kept_in_the_models_own_type(tmp_path: Path) -> None:
    tokens = TensorSpec("tokens", (1, 3), "int64")
    x = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    data = read_data(save(tmp_path / "d.npz", x=x))
    rows = evaluation_rows(data, [tokens], calibrated_on_it=False, seed=0)
    assert rows.inputs[0].dtype == np.int64
    assert rows.inputs[0].tolist() == [[[1, 2, 3]], [[4, 5, 6]]]
    assert calibration_inputs(data, whole_file=True, seed=0)[0].dtype == np.int32
    narrow = TensorSpec("tokens", (1, 3), "int8")
    wide = read_data(save(tmp_path / "w.npz", x=x * 100))
    with pytest.raises(ModelError, match="takes int8"):
        evaluation_rows(wide, [narrow], calibrated_on_it=False, seed=0)


def test_wrong_shapes_and_types_for_the_model_are_refused(tmp_path: Path) -> None:
    for x, sentence in [
        (np.zeros((2, 3, 4), np.int8), "a row of x"),
        (np.zeros((2, 4, 3), np.uint8), "uint8"),
        (np.zeros((2, 4, 3), np.int32), "int32"),
    ]:
        data = read_data(save(tmp_path / "d.npz", x=x))
        with pytest.raises(ModelError, match=sentence):
            evaluation_rows(data, [INT8], calibrated_on_it=False, seed=0)


def test_integers_quantised_for_another_model_are_refused(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 3, 1), np.int8)
    good = read_data(save(tmp_path / "a.npz", x=x, input_scale=np.float32(0.5), input_zero_point=np.int32(3)))
    assert len(evaluation_rows(good, [INT8], calibrated_on_it=False, seed=0)) == 2
    bad = read_data(save(tmp_path / "b.npz", x=x, input_scale=np.float32(0.25), input_zero_point=np.int32(3)))
    with pytest.raises(ModelError, match=r"scale 0\.25"):
        evaluation_rows(bad, [INT8], calibrated_on_it=False, seed=0)


def test_damaged_files_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (marker,))  # type: ignore[return-value]

    good = save(tmp_path / "good.npz", x=np.zeros((4, 4), np.float32)).read_bytes()
    hostile = np.empty(1, dtype=object)
    hostile[0] = Hostile()
    np.savez(tmp_path / "pickle.npz", x=hostile)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Hostile()))
    (tmp_path / "cut.npz").write_bytes(good[: len(good) // 2])
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 0x40
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        header = header.ljust(117) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for name in ("pickle", "raw", "cut", "flipped", "empty", "huge"):
        with pytest.raises(ModelError) as raised:
            read_data(tmp_path / f"{name}.npz")
        assert name in raised.value.message
    with pytest.raises(ModelError):
        read_data(tmp_path / "array.npy")
    with pytest.raises(ModelError, match="does not exist"):
        read_data(tmp_path / "absent.npz")
    assert not marker.exists()


def test_a_python_loader_is_called_by_its_name_only(tmp_path: Path) -> None:
    (tmp_path / "edgekit_test_rows.py").write_text(
        "import numpy as np\n"
        "def rows():\n    return {'x': np.ones((3, 2), np.float32), 'y': [0, 1, 0]}\n"
        "def broken():\n    raise RuntimeError('\\x1b[2Jno rows today')\n"
        "def wrong():\n    return 5\n"
    )
    data = read_data("edgekit_test_rows:rows", folder=tmp_path)
    assert data.parts["all"].count == 3
    with pytest.raises(ModelError, match=r"RuntimeError: \\x1b\[2Jno rows today"):
        read_data("edgekit_test_rows:broken", folder=tmp_path)
    with pytest.raises(ModelError, match="must return a mapping"):
        read_data("edgekit_test_rows:wrong", folder=tmp_path)
    for text in ("os;system:rows", "../evil:rows", "a b:c", "module:function()"):
        with pytest.raises(ModelError, match="does not exist"):
            read_data(text, folder=tmp_path)
