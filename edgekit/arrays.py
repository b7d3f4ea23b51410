"""Arrays in `.npy` files, read and written without pickle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import TensorSpec
from edgekit.errors import ModelError, UsageError
from edgekit.fsutil import atomic_write
from edgekit.text import printable

__all__ = ["dequantized", "read_array", "write_array"]

Array = npt.NDArray[Any]


def read_array(path: Path) -> Array:
    """One array of an `.npy` file.

    Raises:
        ModelError: No such file, or not one of plain numbers.
    """
    shown = printable(str(path))
    try:
        # mapped, so that a header that promises more than the file holds allocates nothing
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError) as error:
        raise ModelError(
            f"{shown} is not a readable .npy array: {printable(str(error))}", hint="write it with numpy.save"
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise ModelError(f"{shown} is not one array of numbers", hint="write it with numpy.save")
    return np.array(values)


def write_array(path: Path, values: Array) -> None:
    """Write an `.npy` file, whole or not at all.

    Raises:
        UsageError: The folder is missing or can't be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    try:
        atomic_write(path, buffer.getvalue())
    except OSError as error:
        raise UsageError(f"{printable(str(path))} can't be written: {error.strerror}") from error


def dequantized(values: Array, spec: TensorSpec) -> Array:
    """Reals as float32: scale · (stored − zero point); as they are where the output is not quantised."""
    if spec.quantization is None:
        return values
    shifted = values.astype(np.float32) - np.float32(spec.quantization.zero_point)
    reals: Array = shifted * np.float32(spec.quantization.scale)
    return reals
