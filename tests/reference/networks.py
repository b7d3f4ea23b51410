"""Networks as TFLite files, for more than one test."""

from __future__ import annotations

import numpy as np

from tests.reference.tflite_builder import Tensor, TfliteBuilder

__all__ = ["branching_tflite"]


def branching_tflite() -> bytes:
    """Branches of every kind joined along the channels, computed on, and joined with that again.

    Input (1, 7, 5, 6), two outputs.
    """
    rng = np.random.default_rng(3)
    builder = TfliteBuilder()
    x = builder.input((1, 7, 5, 6), 0.05, -3)

    def conv(source: Tensor, channels: int, size: int) -> Tensor:
        weights = rng.integers(-127, 128, (channels, size, size, source.shape[3])).astype(np.int8)
        bias = rng.integers(-500, 500, channels).astype(np.int32)
        return builder.conv2d(source, weights, bias, [0.004] * channels, 0.05, -3)

    taps = rng.integers(-127, 128, (1, 3, 3, 6)).astype(np.int8)
    depthwise = builder.depthwise_conv2d(x, taps, np.zeros(6, np.int32), [0.004] * 6, 0.05, -3)
    pooled = builder.max_pool(conv(x, 4, 1), (3, 3), stride=(1, 1), padding="SAME")
    first = builder.concatenation([conv(x, 5, 1), conv(x, 8, 3), depthwise, pooled], 3, 0.05, -3)
    second = builder.concatenation([first, conv(conv(first, 8, 1), 7, 3)], 3, 0.05, -3)
    builder.output(conv(second, 6, 1), builder.relu(second, 0.05, -3))
    return builder.build()
