"""Random convolutions beyond the plain ones, as TFLite has them: in groups, and transposed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tests.reference.cases import ACTIVATIONS, PADDINGS, Case, Input, int8_values, layers, pairs, windows

__all__ = ["CONVOLUTIONS"]


@st.composite
def grouped_conv2d_cases(draw: st.DrawFn) -> Case:
    window = draw(windows(dilate=True))
    extent, kernel = window.pop("extent"), window.pop("kernel")
    groups, depth, outputs = draw(st.integers(2, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    channels = groups * outputs
    layer = draw(layers(channels))
    window["activation"] = draw(ACTIVATIONS)
    x = int8_values(layer.rng, (draw(st.integers(1, 2)), *extent, groups * depth))
    w = layer.weights((channels, *kernel, depth))
    b = layer.bias(channels, math.prod(kernel) * depth)
    q_x, q_y, scales = layer.q_x, layer.q_y, layer.weight_scales
    return Case(
        "grouped_conv2d",
        (Input(x, q_x),),
        {"x": x.shape, "w": w.shape, "q_x": q_x, "scales": scales, "q_y": q_y, **window},
        lambda m, t: m.conv2d(t[0], w, b, scales, q_y.scale, q_y.zero_point, **window),
    )


@st.composite
def transpose_conv_cases(draw: st.DrawFn) -> Case:
    kernel, stride, padding = draw(pairs(1, 5)), draw(pairs(1, 3)), draw(PADDINGS)
    extent = draw(pairs(1, 5))
    output = []
    for n, k, s in zip(extent, kernel, stride, strict=True):
        if padding == "SAME":
            # Any size that SAME pooling would bring back to n; LiteRT checks nothing.
            output.append(draw(st.integers(max((n - 1) * s + 1, 1), n * s)))
        else:
            output.append((n - 1) * s + k + draw(st.integers(0, s - 1)))
    depth, channels = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    layer = draw(layers(channels))
    x = int8_values(layer.rng, (draw(st.integers(1, 2)), *extent, depth))
    w = layer.weights((channels, *kernel, depth))
    b = layer.bias(channels, math.prod(kernel) * depth) if draw(st.booleans()) else None
    q_x, q_y, scales = layer.q_x, layer.q_y, layer.weight_scales
    window: dict[str, Any] = {"stride": stride, "padding": padding, "activation": draw(ACTIVATIONS)}
    size = (output[0], output[1])
    return Case(
        "transpose_conv",
        (Input(x, q_x),),
        {"x": x.shape, "w": w.shape, "y": size, "q_x": q_x, "scales": scales, "q_y": q_y, **window},
        lambda m, t: m.transpose_conv(t[0], w, b, scales, q_y.scale, q_y.zero_point, size, **window),
    )


CONVOLUTIONS: Mapping[str, st.SearchStrategy[Case]] = {
    "grouped_conv2d": grouped_conv2d_cases(),
    "transpose_conv": transpose_conv_cases(),
}
