"""Random layers with int16 activations and int8 weights, as TFLite has them: symmetric, biases of 64 bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference.cases import ACTIVATIONS, SEEDS, Case, Input, any_scales, int8_values, windows
from tests.reference.int8 import Quantized

__all__ = ["INT16"]


def _int16(rng: np.random.Generator, shape: Sequence[int]) -> NDArray[np.int16]:
    if rng.integers(4) == 0:
        return rng.choice(np.array([-32768, -32767, -1, 0, 1, 32767], np.int16), shape)
    return rng.integers(-32768, 32768, shape).astype(np.int16)


def _layer(
    draw: st.DrawFn, channels: int, fan: int
) -> tuple[Quantized, tuple[float, ...], Quantized, NDArray[np.int64], np.random.Generator]:
    q_x = Quantized(draw(any_scales(-16.0, -6.0)), 0)
    scales = tuple(draw(any_scales()) for _ in range(channels if draw(st.booleans()) else 1))
    ratio = draw(st.floats(-18.0, 0.0))
    q_y = Quantized(float(np.float32(q_x.scale * max(scales) / 2.0**ratio)), 0)
    rng = np.random.default_rng(draw(SEEDS))
    limit = min(2**31 - 1 if rng.integers(5) == 0 else 2**16 * fan, 2**31 - 1)
    return q_x, scales, q_y, rng.integers(-limit, limit + 1, channels), rng


@st.composite
def conv2d_cases(draw: st.DrawFn) -> Case:
    window = draw(windows(dilate=True))
    extent, kernel = window.pop("extent"), window.pop("kernel")
    groups, depth, outputs = (
        draw(st.sampled_from([1, 1, 2])),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
    )
    channels = groups * outputs
    q_x, scales, q_y, bias, rng = _layer(draw, channels, math.prod(kernel) * depth)
    window["activation"] = draw(ACTIVATIONS)
    x, w = _int16(rng, (1, *extent, groups * depth)), int8_values(rng, (channels, *kernel, depth))
    return Case(
        "conv2d_16x8",
        (Input(x, q_x),),
        {"x": x.shape, "w": w.shape, "q_x": q_x, "scales": scales, "q_y": q_y, **window},
        lambda m, t: m.conv2d(t[0], w, bias, scales, q_y.scale, 0, **window),
    )


@st.composite
def depthwise_conv2d_cases(draw: st.DrawFn) -> Case:
    window = draw(windows(dilate=True))
    extent, kernel = window.pop("extent"), window.pop("kernel")
    depth, multiplier = draw(st.integers(1, 6)), draw(st.integers(1, 2))
    channels = depth * multiplier
    q_x, scales, q_y, bias, rng = _layer(draw, channels, math.prod(kernel))
    window["activation"] = draw(ACTIVATIONS)
    x, w = _int16(rng, (1, *extent, depth)), int8_values(rng, (1, *kernel, channels))
    return Case(
        "depthwise_conv2d_16x8",
        (Input(x, q_x),),
        {"x": x.shape, "w": w.shape, "q_x": q_x, "scales": scales, "q_y": q_y, **window},
        lambda m, t: m.depthwise_conv2d(t[0], w, bias, scales, q_y.scale, 0, **window),
    )


@st.composite
def fully_connected_cases(draw: st.DrawFn) -> Case:
    rows, depth = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 17, 40, 1200]))
    channels = draw(st.integers(1, 9))
    q_x, scales, q_y, bias, rng = _layer(draw, channels, depth)
    x, w = _int16(rng, (rows, depth)), int8_values(rng, (channels, depth))
    with_bias, activation = draw(st.booleans()), draw(ACTIVATIONS)
    return Case(
        "fully_connected_16x8",
        (Input(x, q_x),),
        {"x": x.shape, "q_x": q_x, "scales": scales, "q_y": q_y, "bias": with_bias},
        lambda m, t: m.fully_connected(
            t[0], w, bias if with_bias else None, scales, q_y.scale, 0, activation=activation
        ),
    )


def _pools(name: str) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        window: dict[str, Any] = draw(windows(dilate=False))
        extent, kernel = window.pop("extent"), window.pop("kernel")
        del window["dilation"]
        window["activation"] = draw(ACTIVATIONS)
        q = Quantized(draw(any_scales(-16.0, -2.0)), 0)
        x = _int16(np.random.default_rng(draw(SEEDS)), (1, *extent, draw(st.integers(1, 5))))
        return Case(
            f"{name}_int16",
            (Input(x, q),),
            {"x": x.shape, "kernel": kernel, "q": q, **window},
            lambda m, t: getattr(m, name)(t[0], kernel, **window),
        )

    return cases()


@st.composite
def relu_cases(draw: st.DrawFn) -> Case:
    q_x = Quantized(draw(any_scales(-16.0, -6.0)), 0)
    # Another scale, or the same one, as a quantiser leaves it around a ReLU of its own.
    ratio = draw(st.one_of(st.just(1.0), st.floats(0.25, 4.0)))
    q_y = Quantized(float(np.float32(q_x.scale * ratio)), 0)
    name = draw(st.sampled_from(["relu", "relu6"]))
    x = _int16(np.random.default_rng(draw(SEEDS)), (1, 4, 8, 8))
    return Case(
        f"{name}_int16",
        (Input(x, q_x),),
        {"q_x": q_x, "q_y": q_y},
        lambda m, t: getattr(m, name)(t[0], q_y.scale, 0),
    )


INT16: Mapping[str, st.SearchStrategy[Case]] = {
    "conv2d": conv2d_cases(),
    "depthwise_conv2d": depthwise_conv2d_cases(),
    "fully_connected": fully_connected_cases(),
    "average_pool": _pools("average_pool"),
    "max_pool": _pools("max_pool"),
    "relu": relu_cases(),
}
