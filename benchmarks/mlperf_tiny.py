"""The MLPerf Tiny models that have no file here, as int8 TFLite files with random weights.

    python -m benchmarks.mlperf_tiny FOLDER

Shapes, strides, paddings and activations are the references'; the weights are seeded noise, scaled so that
activations fill their range. Costs and arenas are those of the trained models, answers are not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.reference.tflite_builder import Activation, Tensor, TfliteBuilder

__all__ = ["MODELS", "anomaly_detection", "visual_wake_words"]

ACTIVATION_SCALE = 0.05
WEIGHT_DEVIATION = 73.0
"""Standard deviation of uniform stored weights."""
OUTPUT_DEVIATION = 60.0
"""Standard deviation, in stored units, that each layer's random sums are scaled to."""

# (output channels, stride) of MobileNetV1's depthwise-separable blocks at width 0.25.
_BLOCKS = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    *((128, 1),) * 5,
    (256, 2),
    (256, 1),
)


class _Network:
    """A chain of layers with random weights; `value` is the last one's output, `level` its root mean square
    in stored units from the zero point.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], zero_point: int) -> None:
        self.builder = TfliteBuilder()
        self.rng = np.random.default_rng(seed)
        self.value: Tensor = self.builder.input(shape, ACTIVATION_SCALE, zero_point)
        self.level = float(np.sqrt(73.0**2 + zero_point**2))

    def weights(
        self, shape: tuple[int, ...], channels: int, terms: int
    ) -> tuple[NDArray[np.int8], NDArray[np.int32], list[float]]:
        """Weights, biases (C,), and the scales (C,) at which a sum of `terms` products fills the output."""
        values = self.rng.integers(-127, 128, shape).astype(np.int8)
        bias = self.rng.integers(-2000, 2001, channels).astype(np.int32)
        deviation = WEIGHT_DEVIATION * self.level * float(np.sqrt(terms))
        scales = self.rng.uniform(0.7, 1.3, channels) * OUTPUT_DEVIATION / deviation
        self.level = OUTPUT_DEVIATION / float(np.sqrt(2.0))  # ReLU leaves half of the values
        return values, bias, [float(scale) for scale in scales]

    def conv(self, channels: int, kernel: int, stride: int) -> None:
        shape = (channels, kernel, kernel, self.value.shape[3])
        weights, bias, scales = self.weights(shape, channels, kernel * kernel * shape[3])
        self.value = self.builder.conv2d(
            self.value,
            weights,
            bias,
            scales,
            ACTIVATION_SCALE,
            -128,
            stride=(stride, stride),
            activation="RELU",
        )

    def depthwise(self, stride: int) -> None:
        channels = self.value.shape[3]
        weights, bias, scales = self.weights((1, 3, 3, channels), channels, 9)
        self.value = self.builder.depthwise_conv2d(
            self.value,
            weights,
            bias,
            scales,
            ACTIVATION_SCALE,
            -128,
            stride=(stride, stride),
            activation="RELU",
        )

    def dense(self, units: int, activation: Activation = "NONE") -> None:
        columns = int(np.prod(self.value.shape[1:]))
        weights, bias, scales = self.weights((units, columns), units, columns)
        self.value = self.builder.fully_connected(
            self.value,
            weights,
            bias,
            [scales[0]],
            ACTIVATION_SCALE,
            -128 if activation == "RELU" else 0,
            activation=activation,
        )

    def build(self) -> bytes:
        self.builder.output(self.value)
        return self.builder.build()


def visual_wake_words(seed: int = 0) -> bytes:
    """MobileNetV1 at width 0.25: (1, 96, 96, 3) → person or none, 7,489,664 MACs."""
    network = _Network(seed, (1, 96, 96, 3), -128)
    network.conv(8, 3, 2)
    for channels, stride in _BLOCKS:
        network.depthwise(stride)
        network.conv(channels, 1, 1)
    network.value = network.builder.average_pool(network.value, (3, 3), stride=(3, 3))
    network.value = network.builder.reshape(network.value, (1, 256))
    network.dense(2)
    network.value = network.builder.softmax(network.value)
    return network.build()


def anomaly_detection(seed: int = 0) -> bytes:
    """The autoencoder of (1, 640): four layers of 128, a code of 8, four of 128, 640; 264,192 MACs."""
    network = _Network(seed, (1, 640), 0)
    for units in (128,) * 4 + (8,) + (128,) * 4:
        network.dense(units, "RELU")
    network.dense(640)
    return network.build()


MODELS: Mapping[str, Callable[[], bytes]] = {"vww": visual_wake_words, "ad": anomaly_detection}


def main() -> int:
    """Write `<name>.tflite` for each model into the folder that the command line names."""
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.mlperf_tiny FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in MODELS.items():
        path = folder / f"{name}.tflite"
        path.write_bytes(build())
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
