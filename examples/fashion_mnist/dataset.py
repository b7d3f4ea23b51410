"""Reads the images: Fashion-MNIST from Debian's package, or scikit-learn's digits where that cannot be had.

Images come out as float32 (N, 1, 28, 28) with x = pixel / 255, labels as int64 (N,). Nothing else is done to
a pixel: the network sees what a camera driver can give it with one multiplication.

    python dataset.py data/test.npz     writes the 10,000 test images for `edgekit --data`
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Dataset", "Images", "Labels", "load", "rows", "save_npz"]

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
CLASSES: Final = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Training and test images as the publisher split them."""

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    classes: tuple[str, ...]


def _read_idx(path: Path, rank: int) -> npt.NDArray[np.uint8]:
    """One gzipped IDX file of unsigned bytes (format: yann.lecun.com/exdb/mnist, section "file formats")."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:4] != bytes((0, 0, 8, rank)):
        raise ValueError(f"{path}: not an IDX file of {rank}-dimensional unsigned bytes")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=rank, offset=4))
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _scale(pixels: npt.NDArray[np.uint8]) -> Images:
    scaled: Images = pixels.astype(np.float32) / np.float32(255.0)
    return scaled[:, None]


def _load_fashion_mnist(folder: Path) -> Dataset:
    return Dataset(
        name="Fashion-MNIST",
        x_train=_scale(_read_idx(folder / "train-images-idx3-ubyte.gz", 3)),
        y_train=_read_idx(folder / "train-labels-idx1-ubyte.gz", 1).astype(np.int64),
        x_test=_scale(_read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)),
        y_test=_read_idx(folder / "t10k-labels-idx1-ubyte.gz", 1).astype(np.int64),
        classes=CLASSES,
    )


def _load_digits() -> Dataset:
    """1,797 digits of 8x8 pixels, each repeated 3x3 with a border of 2: the same shape, an easier task."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.asarray(digits.images, np.float32) / np.float32(16.0)
    images = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))[:, None]
    labels = np.asarray(digits.target, np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:1400], order[1400:]
    return Dataset(
        name="scikit-learn digits",
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
        classes=tuple(str(digit) for digit in range(10)),
    )


def load(folder: Path = FOLDER) -> Dataset:
    """Fashion-MNIST where its four files are in `folder`, else digits."""
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        return _load_fashion_mnist(folder)
    try:
        return _load_digits()
    except ImportError:
        raise SystemExit(
            f"no data: {folder} is missing (apt-get install dataset-fashion-mnist), and scikit-learn is not "
            "installed (pip install scikit-learn)"
        ) from None


def rows() -> dict[str, npt.NDArray[np.generic]]:
    """The loader of edgekit.toml: the rows that trained the network, those that chose its epoch, the test
    images.
    """
    from train import VALIDATION_IMAGES, split

    try:
        dataset = load()
    except SystemExit as error:
        raise FileNotFoundError(str(error)) from None
    parts = split(len(dataset.y_train), VALIDATION_IMAGES, seed=0)
    fit, select = parts.fit.numpy(), parts.select.numpy()
    return {
        "x_train": dataset.x_train[fit],
        "y_train": dataset.y_train[fit],
        "x_val": dataset.x_train[select],
        "y_val": dataset.y_train[select],
        "x_test": dataset.x_test,
        "y_test": dataset.y_test,
        "labels": np.array(dataset.classes),
    }


def save_npz(path: Path, x: Images, y: Labels, classes: tuple[str, ...]) -> None:
    """`x`, `y` and `labels` as one compressed npz, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.savez_compressed(file, x=x, y=y, labels=np.array(classes))
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)  # noqa: PTH101 - the temporary file is made for its owner only
    os.replace(file.name, path)  # noqa: PTH105


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the test images as an npz for edgekit --data.")
    parser.add_argument("path", type=Path, help="for example data/test.npz")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the four IDX files are")
    arguments = parser.parse_args()
    dataset = load(arguments.folder)
    save_npz(arguments.path, dataset.x_test, dataset.y_test, dataset.classes)
    print(f"{arguments.path}: {len(dataset.y_test)} test images of {dataset.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
