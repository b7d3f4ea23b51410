"""Calibration data as rows, checked against a model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.errors import ModelError, UsageError
from edgekit.frontend.shapes import shape_text, show_name

__all__ = ["calibration_rows"]

Row = dict[str, npt.NDArray[np.float32]]


def calibration_rows(
    inputs: Mapping[str, tuple[int, ...]], calibration: Sequence[npt.NDArray[np.generic]]
) -> Iterator[Row]:
    """One row of every input, by name, as float32: checked at once, made one by one.

    Args:
        inputs: The shape of each input, in order.
        calibration: One array (rows, …) per input; a batch of 1 may be left out.

    Raises:
        UsageError: another number of arrays than inputs, of rows than rows, or a shape that does not fit.
        ModelError: values that are no numbers.
    """
    if len(calibration) != len(inputs):
        raise UsageError(f"The model has {len(inputs)} inputs and --calibration {len(calibration)} arrays.")
    for (name, shape), array in zip(inputs.items(), calibration, strict=True):
        row = tuple(int(d) for d in array.shape[1:])
        if array.ndim == 0 or row not in (shape, shape[1:] if shape[:1] == (1,) else shape):
            raise UsageError(
                f"The calibration data for input {show_name(name)} has rows of {shape_text(row)}; "
                f"the model takes {shape_text(shape)}."
            )
        if array.dtype.kind not in "fiub" or not np.all(np.isfinite(array)):
            raise ModelError(
                f"The calibration data for input {show_name(name)} has values that are no numbers."
            )
    counts = {len(array) for array in calibration}
    if len(counts) != 1 or counts == {0}:
        raise UsageError("The calibration data has no rows, or another number of rows for each input.")
    pairs = [(name, shape, a) for (name, shape), a in zip(inputs.items(), calibration, strict=True)]
    return (
        {name: np.asarray(array[i], dtype=np.float32).reshape(shape) for name, shape, array in pairs}
        for i in range(counts.pop())
    )
