"""Reads the rows: MFCCs of Speech Commands v2 as MLPerf Tiny's benchmark prepares and quantises them.

    python speech_commands.py FOLDER       packs the benchmark's .bin files as data/kws01_600.npz

The rows are looked for in the folder EDGEKIT_KWS_DATA names, else in `data/` beside this script. They come
out as float32 (N, 1, 49, 10): the real values that the file's integers stand for.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from edgekit.fsutil import atomic_write

__all__ = ["Rows", "augment", "data_folder", "pack", "read_rows", "rows", "split"]

HERE: Final = Path(__file__).resolve().parent
ROWS_FILE: Final = "kws01_600.npz"
FRAMES: Final = 49
COEFFICIENTS: Final = 10

# The scale and the zero point of the benchmark's input, which its .bin files leave unsaid.
INPUT_SCALE: Final = 0.58470291
INPUT_ZERO_POINT: Final = 83

LABELS: Final = (
    *("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"),
    *("silence", "unknown"),
)

NAME: Final = re.compile(r"tst_[0-9]+_[A-Za-z]+_([0-9]+)\.bin")

SELECT_ROWS: Final = 100
REPORT_ROWS: Final = 100

MAX_SHIFT: Final = 5
LOUDNESS: Final = 3.0
NOISE: Final = 0.1

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of the file: x (N, 1, 49, 10) float32, y (N,) class indices, and the classes' names."""

    x: Features
    y: Labels
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers, each in one of the three."""

    fit: Numbers
    select: Numbers
    report: Numbers


def data_folder() -> Path:
    """Where the benchmark's files are."""
    return Path(os.environ.get("EDGEKIT_KWS_DATA") or HERE / "data")


def read_rows(folder: Path) -> Rows:
    """The rows of `kws01_600.npz`.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = folder / ROWS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; README.md says where it comes from")
    with np.load(path, allow_pickle=False) as file:
        stored, scale, zero_point = file["x"], np.float32(file["input_scale"]), int(file["input_zero_point"])
        y, labels = file["y"].astype(np.int64), tuple(str(label) for label in file["labels"])
    real = (stored.astype(np.float32) - np.float32(zero_point)) * scale
    return Rows(real.reshape(-1, 1, FRAMES, COEFFICIENTS), y, labels)


def split(y: Labels, seed: int = 0) -> Split:
    """100 rows to select by, 100 to report, the rest to train on, each class in its proportion.

    Rows are dealt class by class in a seeded order: of any run of consecutive ones each part gets its share.
    """
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y)])
    places = np.linspace(0, len(order), SELECT_ROWS + REPORT_ROWS, endpoint=False).astype(np.int64)
    return Split(
        fit=np.sort(np.delete(order, places)),
        select=np.sort(order[places[0::2]]),
        report=np.sort(order[places[1::2]]),
    )


def rows() -> dict[str, npt.NDArray[np.generic]]:
    """The loader of edgekit.toml."""
    whole = read_rows(data_folder())
    parts = split(whole.y)
    return {
        "x_train": whole.x[parts.fit],
        "y_train": whole.y[parts.fit],
        "x_val": whole.x[parts.select],
        "y_val": whole.y[parts.select],
        "x_test": whole.x[parts.report],
        "y_test": whole.y[parts.report],
        "labels": np.array(whole.labels),
    }


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rows (N, 1, 49, 10) said a little earlier or later, louder or softer, with noise.

    Each row is moved by up to 5 frames of 20 ms, its edge repeated. The first coefficient is the logarithm of
    the energy, to which loudness adds a constant. Noise on each coefficient is a tenth of how it varies
    within the batch.
    """
    count, frames = len(x), x.shape[2]
    shifts = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (count, 1), generator=generator)
    source = (torch.arange(frames) - shifts).clamp(0, frames - 1)
    x = x.gather(2, source[:, None, :, None].expand_as(x))
    loudness = torch.randn(count, 1, 1, generator=generator) * LOUDNESS
    x[..., 0] += loudness
    spread = x.std(dim=(0, 1, 2), keepdim=True)
    return x + NOISE * spread * torch.randn(x.shape, generator=generator)


def pack(folder: Path, path: Path) -> int:
    """Write the benchmark's `tst_*_<label>_<class>.bin` of a folder as one file; returns how many there are.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is not 490 bytes.
    """
    found = sorted((one, int(match[1])) for one in folder.iterdir() if (match := NAME.fullmatch(one.name)))
    if not found:
        raise FileNotFoundError(f"{folder} has no tst_*_<label>_<class>.bin")
    for one, _ in found:
        if one.stat().st_size != FRAMES * COEFFICIENTS:
            raise ValueError(f"{one} is not {FRAMES * COEFFICIENTS} bytes")
    x = np.stack([np.fromfile(one, np.int8).reshape(FRAMES, COEFFICIENTS, 1) for one, _ in found])
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        x=x,
        y=np.array([label for _, label in found], np.int64),
        input_scale=np.float32(INPUT_SCALE),
        input_zero_point=np.int32(INPUT_ZERO_POINT),
        labels=np.array(LABELS),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=f"Pack the benchmark's .bin files as {ROWS_FILE}.")
    parser.add_argument("folder", type=Path, help="where the tst_*.bin are")
    arguments = parser.parse_args()
    path = data_folder() / ROWS_FILE
    try:
        count = pack(arguments.folder, path)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{path}: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
