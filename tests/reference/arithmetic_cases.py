"""Random products of activations, resizes and reductions, as TFLite has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from hypothesis import strategies as st

from tests.reference.cases import SEEDS, ZERO_POINTS, Case, Input, int8_values, pairs, quantized
from tests.reference.int8 import Quantized

__all__ = ["ARITHMETIC"]


@st.composite
def batch_matmul_cases(draw: st.DrawFn) -> Case:
    rows, depth, columns = (draw(st.integers(1, 8)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 3), min_size=0, max_size=2))
    adjoints = (draw(st.booleans()), draw(st.booleans()))
    shapes = []
    for (m, n), adjoint in zip(((rows, depth), (depth, columns)), adjoints, strict=True):
        mine = [size if draw(st.integers(0, 3)) else 1 for size in batch]
        mine = mine if draw(st.integers(0, 3)) else mine[draw(st.integers(0, len(mine))) :]
        shapes.append((*mine, n, m) if adjoint else (*mine, m, n))
    rng = np.random.default_rng(draw(SEEDS))
    a, b = (int8_values(rng, shape) for shape in shapes)
    q_a, q_b = draw(quantized()), draw(quantized())
    ratio = 2.0 ** draw(st.floats(-10.0, 1.0))
    q_y = Quantized(float(np.float32(q_a.scale * q_b.scale / ratio)), draw(ZERO_POINTS))
    shown = {"a": a.shape, "b": b.shape, "q": (q_a, q_b, q_y), "adjoints": adjoints}
    if draw(st.integers(0, 2)) == 0:
        return Case(
            "batch_matmul",
            (Input(a, q_a),),
            {**shown, "constant": True},
            lambda m, t: m.batch_matmul(
                t[0], m.constant(b, [q_b.scale], q_b.zero_point), q_y.scale, q_y.zero_point, adjoints=adjoints
            ),
        )
    return Case(
        "batch_matmul",
        (Input(a, q_a), Input(b, q_b)),
        shown,
        lambda m, t: m.batch_matmul(t[0], t[1], q_y.scale, q_y.zero_point, adjoints=adjoints),
    )


def _resizes(name: str) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        extent, size = draw(pairs(1, 9)), draw(pairs(1, 20))
        options = getattr(schema, f"{name}OptionsT")()
        mode = draw(st.sampled_from(["alignCorners", "halfPixelCenters", ""]))
        if mode:
            setattr(options, mode, True)
        rng = np.random.default_rng(draw(SEEDS))
        x = int8_values(rng, (draw(st.integers(1, 2)), *extent, draw(st.integers(1, 4))))
        shape = (x.shape[0], *size, x.shape[3])
        code = "RESIZE_BILINEAR" if name == "ResizeBilinear" else "RESIZE_NEAREST_NEIGHBOR"
        return Case(
            code.lower(),
            (Input(x, draw(quantized())),),
            {"x": x.shape, "size": size, "mode": mode},
            lambda m, t: m.move(code, t, options, [shape], after=[np.array(size, np.int32)]),
        )

    return cases()


def _extremes(code: str) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
        x = int8_values(np.random.default_rng(draw(SEEDS)), shape)
        axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
        options = schema.ReducerOptionsT()
        options.keepDims = draw(st.booleans()) or len(axes) == len(shape)
        function = np.max if code == "REDUCE_MAX" else np.min
        result = np.asarray(function(x, axis=tuple(axes), keepdims=options.keepDims))
        return Case(
            code.lower(),
            (Input(x, draw(quantized())),),
            {"x": shape, "axes": axes, "keep": options.keepDims},
            lambda m, t: m.move(code, t, options, [result.shape], after=[np.array(axes, np.int32)]),
            lambda: result,
        )

    return cases()


def _places(code: str) -> st.SearchStrategy[Case]:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
        x = int8_values(np.random.default_rng(draw(SEEDS)), shape)
        axis, dtype = draw(st.integers(0, len(shape) - 1)), draw(st.sampled_from(["int32", "int64"]))
        options: Any = schema.ArgMaxOptionsT() if code == "ARG_MAX" else schema.ArgMinOptionsT()
        options.outputType = schema.TensorType.INT32 if dtype == "int32" else schema.TensorType.INT64
        result = (np.argmax if code == "ARG_MAX" else np.argmin)(x, axis).astype(dtype)
        return Case(
            code.lower(),
            (Input(x, draw(quantized())),),
            {"x": shape, "axis": axis, "dtype": dtype},
            lambda m, t: m.move(
                code, t, options, [result.shape], after=[np.array(axis, np.int32)], dtype=dtype
            ),
            lambda: result,
        )

    return cases()


ARITHMETIC: Mapping[str, st.SearchStrategy[Case]] = {
    "batch_matmul": batch_matmul_cases(),
    "resize_bilinear": _resizes("ResizeBilinear"),
    "resize_nearest": _resizes("ResizeNearestNeighbor"),
    "reduce_max": _extremes("REDUCE_MAX"),
    "reduce_min": _extremes("REDUCE_MIN"),
    "arg_max": _places("ARG_MAX"),
    "arg_min": _places("ARG_MIN"),
}
