"""Data sets: reading them safely, splitting them once, and turning rows into the bytes a program takes.

A data file is an `.npz`. With one input it holds `x` (N, …); with several, `x0`, `x1`, … in the order of the
model's inputs. `y` (N,) are class indices, `labels` (C,) their names. Instead of one set there may be
`x_train`, `y_train`, `x_val`, `y_val`, `x_test`, `y_test` (`x0_train`, … with several inputs). Other arrays
are left alone.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import TensorSpec
from edgekit.errors import ModelError, UsageError
from edgekit.row_shapes import fits, shape_hint
from edgekit.text import names_function, printable

__all__ = [
    "DEFAULT_RANDOM_ROWS",
    "MAX_CALIBRATION_ROWS",
    "DataSet",
    "Part",
    "Rows",
    "Split",
    "Splits",
    "calibration_inputs",
    "evaluation_rows",
    "random_rows",
    "read_data",
    "row_digests",
    "select_rows",
    "split_parts",
    "stratified_split",
    "to_stored",
]

DEFAULT_RANDOM_ROWS = 16
MAX_CALIBRATION_ROWS = 512
"""Enough for stable ranges; more only costs time."""

_MAX_DATA_BYTES = 8 << 30
_MAX_EXPANSION = 200
"""Times its own size that a data file of more than `_FREE_BYTES` may unpack to; zeros alone reach 1000."""
_FREE_BYTES = 256 << 20
_MAX_LABELS = 100_000
_INPUT_KEY = re.compile(r"x(0|[1-9][0-9]{0,2})?")
_SPLIT_NAMES: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
_SPLIT_FRACTIONS = (0.6, 0.2, 0.2)

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One set of rows as the file has it: inputs (N, …) in the model's order, class indices (N,) or None."""

    inputs: tuple[Array, ...]
    y: npt.NDArray[np.int64] | None

    @property
    def count(self) -> int:
        return len(self.inputs[0])


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data file that was read and checked in itself, not yet matched with a model.

    `parts` has either the one key `all`, or some of `train`, `val` and `test`. `sha256` is that of the file's
    bytes, or of the arrays where a Python loader gave them. `quantization` is what the file says its integers
    mean, if it does.
    """

    source: str
    sha256: str
    parts: Mapping[str, Part]
    labels: tuple[str, ...] | None
    quantization: tuple[float, int] | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the program's own types: each input is (N, *spec.shape). `numbers` (N,) are their places in
    the file.
    """

    inputs: tuple[Array, ...]
    y: npt.NDArray[np.int64] | None
    numbers: npt.NDArray[np.int64]
    source: str

    def __len__(self) -> int:
        return len(self.numbers)

    def input_bytes(self, row: int) -> tuple[bytes, ...]:
        """What is written into the program's inputs for one row: C order, little-endian."""
        return tuple(_little_endian(values[row]) for values in self.inputs)


@dataclass(frozen=True, slots=True)
class Split:
    """A seeded stratified split; `sha256` is over the three index lists, so that a report can name the
    split.
    """

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    seed: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Splits:
    """A data set's parts. `sha256` names the split: that of its index lists, or of the file that made it."""

    train: Part
    validation: Part
    test: Part | None
    sha256: str


def read_data(source: str | Path, *, folder: Path | None = None) -> DataSet:
    """Read an `.npz` file, or call a loader named `package.module:function` that returns a mapping of the
    same arrays.

    Args:
        source: Path of the file, or the loader's name.
        folder: Where a loader's module is looked for besides the installed packages.

    Raises:
        ModelError: The file is missing, damaged, or has arrays that make no sense.
    """
    text = str(source)
    if isinstance(source, str) and names_function(text) and not Path(text).exists():
        arrays = _call_loader(text, folder)
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(f"{name}:{arrays[name].dtype.str}:{arrays[name].shape};".encode())
            digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        return _data_set(printable(text), digest.hexdigest(), arrays)
    path = Path(source)
    arrays = _read_npz(path)
    with path.open("rb") as file:
        sha256 = _sha256(file)
    return _data_set(printable(str(path)), sha256, arrays)


def evaluation_rows(
    data: DataSet,
    inputs: Sequence[TensorSpec],
    *,
    calibrated_on_it: bool,
    seed: int,
    excluded: frozenset[bytes] = frozenset(),
) -> Rows:
    """The rows that may count: `test`, else `val`, else `train` of a split file; of a plain one all rows, or
    the `test` part of the seeded split when the model was calibrated on rows of the same file.

    Args:
        excluded: `row_digests` of the rows that calibrated the model, which don't count wherever they stand.

    Raises:
        ModelError: The rows don't have the shapes or types of `inputs`.
        UsageError: The only rows there are were used to calibrate.
    """
    name = next(name for name in ("all", *reversed(_SPLIT_NAMES)) if name in data.parts)
    part = data.parts[name]
    numbers: npt.NDArray[np.int64] = np.arange(part.count, dtype=np.int64)
    if name == "all" and calibrated_on_it:
        numbers = stratified_split(part.y, part.count, seed).test
    if excluded:
        numbers = np.array(
            [number for number in numbers if _row_digest(part.inputs, int(number)) not in excluded],
            dtype=np.int64,
        )
    if not len(numbers):
        raise UsageError(
            f"{data.source} has no rows but those that calibrated the model, and they don't count",
            hint="add x_test and y_test to the file, or give --calibration FILE apart",
        )
    return _rows(part, inputs, numbers, data)


def row_digests(inputs: Sequence[Array]) -> frozenset[bytes]:
    """A digest of each row's values as float32, to know it again in another file."""
    return frozenset(_row_digest(inputs, number) for number in range(len(inputs[0])))


def _row_digest(inputs: Sequence[Array], number: int) -> bytes:
    digest = hashlib.sha256()
    for values in inputs:
        digest.update(np.ascontiguousarray(values[number], dtype=np.float32).tobytes())
    return digest.digest()


def calibration_inputs(data: DataSet, *, whole_file: bool, seed: int) -> tuple[Array, ...]:
    """Rows to calibrate with, (M, …) an input, at most `MAX_CALIBRATION_ROWS`, chosen by `seed`.

    Real values are float32. Integers stay as they are: inputs of integers take them (indices, raw pixels).

    Args:
        whole_file: True for a file given with --calibration: all its rows may be used. False for the data set
            itself: only its `train` part, or the `train` part of the seeded split.
    """
    if "all" in data.parts:
        part = data.parts["all"]
        numbers = np.arange(part.count) if whole_file else stratified_split(part.y, part.count, seed).train
    else:
        part = data.parts["train"] if "train" in data.parts else data.parts[next(iter(data.parts))]
        numbers = np.arange(part.count)
    if len(numbers) > MAX_CALIBRATION_ROWS:
        numbers = np.sort(np.random.default_rng(seed).choice(numbers, MAX_CALIBRATION_ROWS, replace=False))
    return tuple(
        np.ascontiguousarray(values[numbers], dtype=np.float32 if values.dtype.kind == "f" else values.dtype)
        for values in part.inputs
    )


def split_parts(data: DataSet, seed: int) -> Splits:
    """Rows to train on, to select by and to report, apart from each other.

    A plain file is split by `stratified_split`. Of a split file without validation rows a fifth of the
    training rows is held out, by the same rule; without test rows there are none.

    Raises:
        UsageError: a split file without training rows.
    """
    if "all" in data.parts:
        whole = data.parts["all"]
        split = stratified_split(whole.y, whole.count, seed)
        train, val, test = (_take(whole, numbers) for numbers in (split.train, split.val, split.test))
        return Splits(train, val, test, split.sha256)
    if "train" not in data.parts:
        raise UsageError(
            f"{data.source} has no training rows", hint="add x_train and y_train, or give plain x and y"
        )
    fitted, reported = data.parts["train"], data.parts.get("test")
    if "val" in data.parts:
        return Splits(fitted, data.parts["val"], reported, data.sha256)
    split = stratified_split(fitted.y, fitted.count, seed)
    kept = np.sort(np.concatenate([split.train, split.test]))
    return Splits(_take(fitted, kept), _take(fitted, split.val), reported, split.sha256)


def _take(part: Part, numbers: npt.NDArray[np.int64]) -> Part:
    return Part(tuple(values[numbers] for values in part.inputs), None if part.y is None else part.y[numbers])


def random_rows(inputs: Sequence[TensorSpec], count: int, seed: int) -> Rows:
    """`count` seeded random rows: integers over their type's whole range, floats uniform in [-1, 1)."""
    generator = np.random.default_rng(seed)
    arrays: list[Array] = []
    for spec in inputs:
        shape = (count, *spec.shape)
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays.append(generator.uniform(-1.0, 1.0, shape).astype(dtype))
        elif dtype.kind == "b":
            arrays.append(generator.integers(0, 2, shape).astype(dtype))
        else:
            limits = np.iinfo(dtype)
            arrays.append(generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True))
    return Rows(tuple(arrays), None, np.arange(count), f"{count} random rows, seed {seed}")


def select_rows(rows: Rows, count: int | None, seed: int) -> Rows:
    """`rows`, or `count` of them chosen by `seed` and kept in the file's order."""
    if count is None or count >= len(rows):
        return rows
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
    return Rows(
        inputs=tuple(values[chosen] for values in rows.inputs),
        y=None if rows.y is None else rows.y[chosen],
        numbers=rows.numbers[chosen],
        source=rows.source,
    )


def stratified_split(y: npt.NDArray[np.int64] | None, count: int, seed: int) -> Split:
    """60 % train, 20 % val, 20 % test, each class in these proportions (all rows are one class where y is
    None).
    """
    generator = np.random.default_rng(seed)
    classes = np.zeros(count, dtype=np.int64) if y is None else y
    parts: tuple[list[Array], list[Array], list[Array]] = ([], [], [])
    for label in np.unique(classes):
        members = generator.permutation(np.flatnonzero(classes == label))
        first = round(_SPLIT_FRACTIONS[0] * len(members))
        second = first + round(_SPLIT_FRACTIONS[1] * len(members))
        for part, chosen in zip(
            parts, (members[:first], members[first:second], members[second:]), strict=True
        ):
            part.append(chosen)
    train, val, test = (np.sort(np.concatenate(part)).astype(np.int64) for part in parts)
    digest = hashlib.sha256()
    for numbers in (train, val, test):
        digest.update(len(numbers).to_bytes(8, "little"))
        digest.update(numbers.astype("<i8").tobytes())
    return Split(train, val, test, seed, digest.hexdigest())


def to_stored(values: Array, spec: TensorSpec, what: str = "x") -> Array:
    """`values` in the type that the program stores: as they are where the types agree, else float that is
    quantised.

    Quantisation is TFLite's own QUANTIZE: round(x / scale) in float32, half away from zero, plus the zero
    point, clamped to the type.

    Raises:
        ModelError: Another integer type, values that are not finite, or float values for an input without a
        scale.
    """
    dtype = np.dtype(spec.dtype)
    if values.dtype == dtype and dtype.kind != "f":
        return values
    if values.dtype.kind in "iub" and dtype.kind in "iub" and spec.quantization is None:
        stored = values.astype(dtype)
        if np.array_equal(stored, values):
            # Indices and flags mean the same in any type that holds them.
            return stored
    if values.dtype.kind != "f":
        raise ModelError(
            f"{what} is {values.dtype}, and the model's input {printable(spec.name)} takes {spec.dtype}"
            + ("" if spec.quantization is None and dtype.kind != "f" else " or real values as float32"),
            hint="write the file with real values as float32, or with the model's own integer type",
        )
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))[0]
        raise ModelError(f"{what} has a NaN or an infinity, first in row {int(bad[0])}")
    reals = values.astype(np.float32)
    if dtype.kind == "f":
        return reals
    if spec.quantization is None:
        raise ModelError(
            f"{what} is float, and the model's input {printable(spec.name)} is {spec.dtype} without a scale"
        )
    quotient = reals / np.float32(spec.quantization.scale)
    # floor(|q| + 0.5) rounds up 0.49999997; adding to the fraction of |q| alone does not
    whole = np.trunc(quotient)
    rounded = whole + np.copysign(np.abs(quotient - whole) >= 0.5, quotient)
    limits = np.iinfo(dtype)
    shifted = rounded.astype(np.float64) + spec.quantization.zero_point
    clipped: Array = np.clip(shifted, limits.min, limits.max).astype(dtype)
    return clipped


def _rows(part: Part, inputs: Sequence[TensorSpec], numbers: npt.NDArray[Any], data: DataSet) -> Rows:
    if len(part.inputs) != len(inputs):
        raise ModelError(
            f"{data.source} has {len(part.inputs)} input array(s), and the model takes {len(inputs)}",
            hint="several inputs are x0, x1, … in the model's order; `edgekit analyze MODEL` lists them",
        )
    stored: list[Array] = []
    for index, (values, spec) in enumerate(zip(part.inputs, inputs, strict=True)):
        name = "x" if len(inputs) == 1 else f"x{index}"
        if not fits(values.shape[1:], spec.shape):
            raise ModelError(
                f"{data.source}: a row of {name} is {values.shape[1:]}, and the model's input "
                f"{printable(spec.name)} is {spec.shape}",
                hint=shape_hint(values.shape, spec.shape),
            )
        if data.quantization is not None and values.dtype.kind in "iu" and spec.quantization is not None:
            (scale, zero_point), wanted = data.quantization, spec.quantization
            if not np.isclose(scale, wanted.scale, rtol=1e-4) or zero_point != wanted.zero_point:
                raise ModelError(
                    f"{data.source}: its integers mean scale {scale:g}, zero point {zero_point}, "
                    f"and the model's input has scale {wanted.scale:g}, zero point {wanted.zero_point}",
                    hint="save x as float32; edgekit quantises it for the model",
                )
        stored.append(to_stored(values[numbers].reshape(len(numbers), *spec.shape), spec, name))
    y = None if part.y is None else part.y[numbers]
    return Rows(tuple(stored), y, np.asarray(numbers, dtype=np.int64), data.source)


def _little_endian(values: Array) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


def _data_set(source: str, sha256: str, arrays: Mapping[str, Array]) -> DataSet:
    parts: dict[str, Part] = {}
    for name in ("all", *_SPLIT_NAMES):
        suffix = "" if name == "all" else f"_{name}"
        inputs = _inputs(arrays, suffix, source)
        if inputs:
            parts[name] = Part(
                inputs, _class_indices(arrays.get(f"y{suffix}"), f"y{suffix}", len(inputs[0]), source)
            )
    if not parts:
        found = ", ".join(printable(name, 40) for name in list(arrays)[:10]) or "nothing"
        raise ModelError(
            f"{source} has no `x` (rows of the model's input); it has {found}",
            hint="numpy.savez(path, x=…, y=…) names the arrays",
        )
    if "all" in parts and len(parts) > 1:
        raise ModelError(
            f"{source} has both `x` and a split of it (`x_train`, …); it must be one or the other"
        )
    return DataSet(source, sha256, parts, _labels(arrays.get("labels"), source), _quantization(arrays))


def _inputs(arrays: Mapping[str, Array], suffix: str, source: str) -> tuple[Array, ...]:
    keys = {key[: len(key) - len(suffix)] for key in arrays if key.endswith(suffix)}
    names = sorted((key for key in keys if _INPUT_KEY.fullmatch(key)), key=lambda key: (len(key), key))
    if not names:
        return ()
    if names != ["x"] and names != [f"x{index}" for index in range(len(names))]:
        raise ModelError(
            f"{source}: inputs must be `x`, or `x0`, `x1`, … without a gap; it has {', '.join(names)}"
        )
    inputs = tuple(arrays[name + suffix] for name in names)
    for name, values in zip(names, inputs, strict=True):
        shown = name + suffix
        if values.dtype.kind not in "fiub":
            raise ModelError(f"{source}: {shown} is {values.dtype}, which is not numbers")
        if values.ndim < 1 or values.size == 0:
            raise ModelError(f"{source}: {shown} has shape {values.shape}, which holds no rows")
        if len(values) != len(inputs[0]):
            raise ModelError(
                f"{source}: {shown} has {len(values)} rows and {names[0]}{suffix} has {len(inputs[0])}"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ModelError(f"{source}: {shown} has a NaN or an infinity, first in row {row}")
    return inputs


def _class_indices(y: Array | None, name: str, rows: int, source: str) -> npt.NDArray[np.int64] | None:
    if y is None:
        return None
    if y.dtype.kind not in "iu":
        raise ModelError(
            f"{source}: {name} is {y.dtype}; it must be class indices as integers", hint=_label_hint(y, rows)
        )
    if y.shape != (rows,):
        raise ModelError(
            f"{source}: {name} has shape {y.shape}, and {rows} rows need ({rows},)", hint=_label_hint(y, rows)
        )
    if y.min() < 0 or y.max() > np.iinfo(np.int64).max:
        raise ModelError(f"{source}: {name} has negative class indices")
    return y.astype(np.int64)


def _label_hint(y: Array, rows: int) -> str | None:
    """What makes class indices of labels in another form."""
    if y.ndim == 2 and y.shape[0] == rows:
        return "save y.ravel().astype(int)" if y.shape[1] == 1 else "one-hot labels: save y.argmax(axis=1)"
    if y.dtype.kind in "US":
        return "number the classes as the model does, and save the texts as labels"
    if y.dtype.kind in "fb":
        return "save y.astype(int); the targets of a regression are no classes: leave y out"
    return None


def _labels(labels: Array | None, source: str) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if labels.dtype.kind not in "US" or labels.ndim != 1 or labels.size > _MAX_LABELS:
        raise ModelError(
            f"{source}: labels must be a list of texts, not {labels.dtype} of shape {labels.shape}"
        )
    return tuple(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in labels)


def _quantization(arrays: Mapping[str, Array]) -> tuple[float, int] | None:
    scale, zero_point = arrays.get("input_scale"), arrays.get("input_zero_point")
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    if scale.dtype.kind != "f" or zero_point.dtype.kind not in "iu":
        return None
    return float(scale.reshape(())), int(zero_point.reshape(()))


def _read_npz(path: Path) -> dict[str, Array]:
    shown = printable(str(path))
    if not path.is_file():
        raise ModelError(f"the data file {shown} does not exist", hint="give --data an .npz with x and y")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked, packed = sum(entry.file_size for entry in entries), path.stat().st_size
            if unpacked > _MAX_DATA_BYTES:
                raise ModelError(f"{shown} unpacks to more than 8 GiB")
            if unpacked > max(_FREE_BYTES, _MAX_EXPANSION * packed):
                raise ModelError(
                    f"{shown} unpacks to {unpacked // packed:,} times its size",
                    hint="save it with numpy.savez, which does not compress",
                )
            for entry in entries:
                with archive.open(entry) as member:
                    _check_header(member, entry.file_size)  # type: ignore[arg-type]
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except ModelError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ModelError(
            f"{shown} is not an .npz of plain arrays: {printable(str(error)) or type(error).__name__}",
            hint="write it with numpy.savez(path, x=…, y=…); arrays of Python objects are not read",
        ) from error


def _check_header(member: BinaryIO, size: int) -> None:
    """An array that declares more than its file holds would be allocated before numpy noticed."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"array format {version} is unknown")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    declared = dtype.itemsize
    for dimension in shape:
        declared *= dimension
    if declared > size:
        raise ValueError(f"an array of {declared} bytes is declared in {size} bytes")


def _call_loader(name: str, folder: Path | None) -> dict[str, Array]:
    module_name, function_name = name.split(":")
    with _importable(folder):
        try:
            result = getattr(importlib.import_module(module_name), function_name)()
        except Exception as error:  # the user's own code may raise anything
            raise ModelError(
                f"the data loader {name} raised {type(error).__name__}: {printable(str(error))}"
            ) from error
    if not isinstance(result, Mapping):
        raise ModelError(
            f"the data loader {name} returned {type(result).__name__}; it must return a mapping of arrays"
        )
    arrays = {str(key): np.asarray(value) for key, value in result.items()}
    for key, value in arrays.items():
        if value.dtype.hasobject:
            raise ModelError(f"the data loader {name} returned Python objects in {printable(key)}")
    return arrays


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """A console script does not search the current folder for modules; a project's loader lives there."""
    extra = str((folder or Path()).resolve())
    sys.path.insert(0, extra)
    try:
        yield
    finally:
        sys.path.remove(extra)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
