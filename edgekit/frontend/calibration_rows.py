"""Calibration data as rows, checked against a model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import ModelError
from edgekit.frontend.shapes import shape_text, show_name
from edgekit.row_shapes import fits, shape_hint

__all__ = ["InputType", "calibration_rows"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class InputType:
    """What an input takes: its shape, and its type by numpy's name."""

    shape: tuple[int, ...]
    dtype: str


def calibration_rows(
    inputs: Mapping[str, InputType], calibration: Sequence[npt.NDArray[np.generic]]
) -> Iterator[dict[str, Array]]:
    """One row of every input, by name, in the input's own type: checked at once, made one by one.

    Args:
        inputs: What each input takes, in order.
        calibration: One array (rows, …) per input; dimensions of one may be left out of the rows.

    Raises:
        ModelError: another number of arrays than inputs, of rows than rows, a shape or a type that does not
            fit, or values that are no numbers.
    """
    if len(calibration) != len(inputs):
        raise ModelError(
            f"The model has {len(inputs)} inputs and --calibration {len(calibration)} arrays.",
            hint="several inputs are x0, x1, … in the model's order; `edgekit analyze MODEL` lists them",
        )
    pairs = [(name, kind, a) for (name, kind), a in zip(inputs.items(), calibration, strict=True)]
    for name, kind, array in pairs:
        _check(name, kind, array)
    counts = {len(array) for array in calibration}
    if len(counts) != 1 or counts == {0}:
        raise ModelError("The calibration data has no rows, or another number of rows for each input.")
    return (
        {name: np.asarray(array[i], dtype=kind.dtype).reshape(kind.shape) for name, kind, array in pairs}
        for i in range(counts.pop())
    )


def _check(name: str, kind: InputType, array: npt.NDArray[np.generic]) -> None:
    what = f"The calibration data for input {show_name(name)}"
    row = tuple(int(d) for d in array.shape[1:])
    if array.ndim == 0 or not fits(row, kind.shape):
        raise ModelError(
            f"{what} has rows of {shape_text(row)}; the model takes {shape_text(kind.shape)}.",
            hint=shape_hint(array.shape, kind.shape),
        )
    if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array)):
        raise ModelError(f"{what} has values that are no numbers.")
    real = np.dtype(kind.dtype).kind == "f"
    if real != (array.dtype.kind == "f"):
        raise ModelError(
            f"{what} is {array.dtype}; the model takes {'real values as float32' if real else kind.dtype}.",
            hint="save x as the model was trained with it, for example "
            + ("x.astype('float32') / 255" if real else f"x.astype('{kind.dtype}')"),
        )
    if not real and not np.array_equal(array, array.astype(kind.dtype)):
        raise ModelError(f"{what} has values outside {kind.dtype}, which the model takes.")
