"""Random networks: convolutions of every kind, pooling, branches added, joined or gated, dense ends."""

from __future__ import annotations

import numpy as np

from edgekit.compiler import operators as op
from edgekit.compiler.fixed_point import quantize_multiplier, wide_multipliers
from edgekit.compiler.softmax import exponential_table
from tests.schedules.batch import Int8, Network
from tests.schedules.cases import activations, scales, weights

__all__ = ["random_network"]

Rng = np.random.Generator

_LARGEST_ACTIVATION = 12_000


class _Builder:
    """A network under construction. Every tensor has a zero point; shapes are (1, H, W, C)."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        depth = int(rng.choice([1, 2, 3, 4, 8]))
        shape = (1, int(rng.integers(6, 25)), int(rng.integers(6, 25)), depth)
        self.inputs: tuple[Int8, ...] = (activations(rng, shape),)
        self.operators: list[tuple[op.Operator, tuple[int, ...], tuple[int, ...]]] = []
        self.shapes = [shape]
        self.zeros = [int(rng.integers(-128, 128))]

    @property
    def last(self) -> int:
        return len(self.shapes) - 1

    def append(self, operator: op.Operator, read: tuple[int, ...], shape: tuple[int, ...], zero: int) -> int:
        self.operators.append((operator, read, shape))
        self.shapes.append(shape)  # type: ignore[arg-type]
        self.zeros.append(zero)
        return self.last

    def activation(self) -> tuple[int, op.Clamp]:
        """Zero point and clamp of an output: ReLU as in most networks, or none."""
        if self.rng.integers(3):
            return -128, op.Clamp(-128, 127)
        zero = int(self.rng.integers(-40, 40))
        return zero, op.Clamp(zero, 127) if self.rng.integers(2) else op.FullRange

    def window(self, value: int, kernel: tuple[int, int], stride: int) -> tuple[op.Window, tuple[int, int]]:
        """SAME padding, or none where the kernel fits."""
        _, height, width, _ = self.shapes[value]
        fits = kernel[0] <= height and kernel[1] <= width
        padding = (0, 0, 0, 0)
        if not fits or self.rng.integers(4):
            outputs = -(-height // stride), -(-width // stride)
            totals = [
                max((out - 1) * stride + size - extent, 0)
                for out, size, extent in zip(outputs, kernel, (height, width), strict=True)
            ]
            before = [total // 2 for total in totals]
            padding = (*before, totals[0] - before[0], totals[1] - before[1])  # type: ignore[assignment]
        window = op.Window(kernel, (stride, stride), padding)
        return window, window.output_size(height, width)

    def convolution(self, value: int, channels: int, kernel: tuple[int, int], stride: int) -> int:
        depth = self.shapes[value][3]
        window, (rows, columns) = self.window(value, kernel, stride)
        values = weights(self.rng, (channels, *kernel, depth))
        zero, clamp = self.activation()
        operator = op.Conv2D(
            window,
            values,
            self.rng.integers(-2000, 2001, channels).astype(np.int32),
            self.zeros[value],
            zero,
            *scales(self.rng, values),
            clamp,
            "single" if self.rng.integers(2) else "double",
        )
        return self.append(operator, (value,), (1, rows, columns, channels), zero)

    def depthwise(self, value: int, stride: int) -> int:
        channels = self.shapes[value][3]
        window, (rows, columns) = self.window(value, (3, 3), stride)
        values = weights(self.rng, (channels, 3, 3))
        zero, clamp = self.activation()
        operator = op.DepthwiseConv2D(
            window,
            np.ascontiguousarray(values.transpose(1, 2, 0)),
            self.rng.integers(-2000, 2001, channels).astype(np.int32),
            self.zeros[value],
            zero,
            *scales(self.rng, values),
            clamp,
            "single" if self.rng.integers(2) else "double",
        )
        return self.append(operator, (value,), (1, rows, columns, channels), zero)

    def add(self, first: int, second: int) -> int:
        scale = 2.0 ** self.rng.uniform(-6, -2, 3)
        double = 2 * max(scale[0], scale[1])
        zero, clamp = self.activation()
        operator = op.Add(
            (self.zeros[first], self.zeros[second]),
            (
                op.Rescale(*quantize_multiplier(scale[0] / double)),
                op.Rescale(*quantize_multiplier(scale[1] / double)),
            ),
            zero,
            op.Rescale(*quantize_multiplier(double / (2**20 * scale[2]))),
            clamp,
        )
        return self.append(operator, (first, second), self.shapes[first], zero)

    def concat(self, first: int, second: int) -> int:
        shape = (*self.shapes[first][:3], self.shapes[first][3] + self.shapes[second][3])
        operator = op.Concat(3, (0, 0), (None, None), 0, op.FullRange)
        return self.append(operator, (first, second), shape, self.zeros[first])

    def pool(self, value: int) -> int:
        window, (rows, columns) = self.window(value, (2, 2), 2)
        channels = self.shapes[value][3]
        zero = self.zeros[value]
        operator: op.Operator = op.MaxPool(window, op.FullRange)
        if self.rng.integers(2):
            operator = op.AveragePool(window, zero, False, op.FullRange)
        return self.append(operator, (value,), (1, rows, columns, channels), zero)

    def mean(self, value: int) -> int:
        _, height, width, channels = self.shapes[value]
        rescale = op.Rescale(*quantize_multiplier(0.9 / (height * width)))
        operator = op.Mean((1, 2), self.zeros[value], -3, rescale, op.FullRange)
        return self.append(operator, (value,), (1, 1, 1, channels), -3)

    def gate(self, value: int) -> int:
        """Channels weighted by what their means say (squeeze and excitation)."""
        channels = self.shapes[value][3]
        inner = self.convolution(self.mean(value), max(channels // 4, 1), (1, 1), 1)
        weighed = self.convolution(inner, channels, (1, 1), 1)
        sigmoid = op.Lookup(np.sort(self.rng.integers(-128, 128, 256)).astype(np.int8))
        factors = self.append(sigmoid, (weighed,), self.shapes[weighed], -128)
        zero, clamp = self.activation()
        operator = op.Multiply(
            (self.zeros[value], -128), op.Rescale(*quantize_multiplier(1 / 256)), zero, clamp
        )
        return self.append(operator, (value, factors), self.shapes[value], zero)

    def softmax(self, value: int) -> int:
        operator = op.Softmax(exponential_table(float(self.rng.uniform(0.01, 0.2))))
        return self.append(operator, (value,), self.shapes[value], -128)

    def dense(self, value: int, channels: int) -> int:
        depth = self.shapes[value][3]
        values = weights(self.rng, (channels, depth))
        reals = self.rng.uniform(20, 150, channels) / (
            np.sqrt((values.astype(float) ** 2).sum(axis=1)) * 74 + 1
        )
        operator = op.Dense(
            values,
            self.rng.integers(-2000, 2001, channels).astype(np.int32),
            self.zeros[value],
            5,
            wide_multipliers(np.minimum(reals, 0.9)),
            op.FullRange,
        )
        return self.append(operator, (value,), (1, 1, 1, channels), 5)


def random_network(seed: int) -> Network:
    """Three to eight layers and what joins them, then often a mean and a dense layer."""
    rng = np.random.default_rng(seed)
    builder = _Builder(rng)
    value = builder.convolution(0, int(rng.choice([4, 8, 16])), _kernel(rng), int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(2, 7))):
        value = _layer(rng, builder, value)
    if rng.integers(3):
        value = builder.dense(builder.mean(value), int(rng.choice([2, 5, 10, 12])))
        if rng.integers(2):
            builder.softmax(value)
    return Network(builder.inputs, tuple(builder.operators), f"network seed {seed}:")


def _kernel(rng: Rng) -> tuple[int, int]:
    return (3, 3) if rng.integers(2) else (int(rng.integers(1, 6)), int(rng.integers(1, 5)))


def _layer(rng: Rng, builder: _Builder, value: int) -> int:
    _, height, width, channels = builder.shapes[value]
    stride = 2 if min(height, width) > 5 and rng.integers(3) == 0 else 1
    wanted = int(rng.choice([4, 8, 12, 16, 24, 32, 6, 5, 10, 30, 33]))
    wanted = min(wanted, max(2, _LARGEST_ACTIVATION // (height * width)))
    kind = rng.integers(7)
    if kind == 0:
        return builder.convolution(value, wanted, (3, 3), stride)
    if kind == 1:
        return builder.convolution(builder.depthwise(value, stride), wanted, (1, 1), 1)
    if kind == 2:
        return builder.convolution(value, wanted, (1, 1), stride)
    if kind == 3:
        inner = builder.convolution(value, channels, _kernel(rng), 1)
        if builder.shapes[inner] == builder.shapes[value]:
            return builder.add(value, inner) if rng.integers(2) else builder.add(inner, value)
        return inner
    if kind == 4:
        return builder.concat(
            builder.convolution(value, wanted, (1, 1), 1), builder.convolution(value, wanted, (1, 1), 1)
        )
    if kind == 5:
        return builder.gate(value)
    return builder.pool(value) if min(height, width) >= 4 else builder.depthwise(value, 1)
