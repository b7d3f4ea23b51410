"""A small network of operators that have several variants on a Cortex-M4."""

from __future__ import annotations

import numpy as np

from tests.reference.tflite_builder import TfliteBuilder

__all__ = ["small_network"]


def small_network() -> bytes:
    """(1, 8, 8, 4) → a 1x1 convolution to 8 channels, a depthwise 3x3, a dense layer of 10."""
    rng = np.random.default_rng(3)
    builder = TfliteBuilder()
    x = builder.input((1, 8, 8, 4), 0.05, -3)

    def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
        return rng.integers(-127, 128, shape).astype(np.int8)

    def bias(channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        return rng.integers(-500, 501, channels).astype(np.int32)

    y = builder.conv2d(x, weights(8, 1, 1, 4), bias(8), [0.002] * 8, 0.05, -128, activation="RELU")
    y = builder.depthwise_conv2d(y, weights(1, 3, 3, 8), bias(8), [0.002] * 8, 0.05, -128, activation="RELU")
    y = builder.fully_connected(y, weights(10, 512), bias(10), [0.0005], 0.1, 0)
    builder.output(y)
    return builder.build()
