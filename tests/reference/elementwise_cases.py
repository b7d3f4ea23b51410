"""Elementwise operators with random data, as hypothesis strategies; LiteRT says what their answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference.cases import (
    ACTIVATIONS,
    SEEDS,
    ZERO_POINTS,
    Case,
    Input,
    any_scales,
    int8_values,
    quantized,
)
from tests.reference.int8 import Quantized
from tests.reference.tflite_builder import Tensor, TfliteBuilder

__all__ = ["ELEMENTWISE", "FUNCTIONS", "function_case"]

FUNCTIONS = (
    "ABS",
    "EXP",
    "GELU",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOG",
    "LOGISTIC",
    "NEG",
    "RSQRT",
    "SQRT",
    "TANH",
)
"""Functions of one tensor by their schema names, as LiteRT's reference kernels have them."""


def _float32(value: float) -> float:
    return float(np.float32(value))


def function_case(name: str, rng: np.random.Generator) -> Case:
    """Every stored value; the output's scale is like the results, or anything."""
    q_x = Quantized(_float32(2.0 ** rng.uniform(-9, 1)), int(rng.integers(-128, 128)))
    scale = _float32(2.0 ** rng.uniform(-9, 0))
    slope = _float32(rng.choice([0.01, 0.1, 0.3, 1.5, -0.25, rng.normal()]))
    approximate = bool(rng.integers(2))
    if name == "LOGISTIC":  # LiteRT takes no other
        scale = 1 / 256
    if name in ("SQRT", "RSQRT"):  # LiteRT takes no negative values
        q_x = Quantized(q_x.scale, -128)
    if name == "EXP":  # LiteRT's conversion of what does not fit int32 is undefined
        q_x = Quantized(min(q_x.scale, _float32(0.06)), q_x.zero_point)
    if name == "HARD_SWISH":  # LiteRT takes no smaller scale
        scale = max(scale, _float32(q_x.scale / 120))
    q_y = Quantized(scale, int(rng.integers(-128, 128)))
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    return Case(
        name,
        (Input(x, q_x),),
        {"q_x": q_x, "q_y": q_y, "slope": slope, "approximate": approximate},
        lambda m, t: m.function(name, t[0], q_y.scale, q_y.zero_point, slope=slope, approximate=approximate),
    )


@st.composite
def _two_tensors(draw: st.DrawFn) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Two tensors that broadcast, in either order."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    other = shape
    if draw(st.booleans()):
        other = tuple(extent if draw(st.booleans()) else 1 for extent in shape)[draw(st.integers(0, 1)) :]
        other = other or (1,)
    rng = np.random.default_rng(draw(SEEDS))
    a, b = int8_values(rng, shape), int8_values(rng, other)
    return (b, a) if draw(st.booleans()) else (a, b)


def _dividends(
    rng: np.random.Generator, q_a: Quantized, q_b: Quantized, q_y: Quantized
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """All dividends whose quotient is a step or more, and a divisor.

    Of smaller quotients LiteRT shifts by more than 31 bits, which is undefined.
    """
    b = int(rng.choice([value for value in range(-128, 128) if value != q_b.zero_point]))
    step = q_b.scale * q_y.scale / q_a.scale * abs(b - q_b.zero_point)
    every = [value for value in range(-128, 128) if abs(value - q_a.zero_point) >= step]
    return np.asarray(every or [-128 if q_a.zero_point > 0 else 127], np.int8), np.array([b], np.int8)


def _arithmetic(name: Literal["ADD", "DIV", "MUL", "SQUARED_DIFFERENCE", "SUB"]) -> st.SearchStrategy[Case]:
    """Either operand may be a constant, or both the same tensor; DIV is by one constant."""

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        a, b = draw(_two_tensors())
        q_a, q_b = draw(quantized()), draw(quantized())
        kinds: list[Literal["two", "first", "second", "same"]] = ["two", "first", "second", "same"]
        kind = "second" if name == "DIV" else draw(st.sampled_from(kinds))
        # Like the operands' own range, so that the result is neither 0 nor saturated everywhere.
        typical = {
            "ADD": max(q_a.scale, q_b.scale),
            "SUB": max(q_a.scale, q_b.scale),
            "MUL": q_a.scale * q_b.scale * 64.0,
            "SQUARED_DIFFERENCE": max(q_a.scale, q_b.scale) ** 2 * 64.0,
            "DIV": q_a.scale / q_b.scale / 64.0,
        }[name]
        q_y = Quantized(_float32(typical * 2.0 ** draw(st.floats(-4, 3))), draw(ZERO_POINTS))
        activation = "NONE" if name == "SQUARED_DIFFERENCE" else draw(ACTIVATIONS)
        if name == "DIV":
            a, b = _dividends(np.random.default_rng(draw(SEEDS)), q_a, q_b, q_y)
        operands = ((a, q_a), (b, q_b))

        def add(m: TfliteBuilder, t: Sequence[Tensor]) -> Tensor:
            if kind == "same":
                pair = [t[0], t[0]]
            elif kind == "two":
                pair = list(t)
            else:
                position = 0 if kind == "first" else 1
                values, q = operands[position]
                pair = list(t)
                pair.insert(position, m.constant(values, [q.scale], q.zero_point))
            return m.binary(name, pair[0], pair[1], q_y.scale, q_y.zero_point, activation=activation)

        given = {"two": operands, "first": operands[1:], "second": operands[:1], "same": operands[:1]}[kind]
        parameters: dict[str, Any] = {"kind": kind, "a": a.shape, "b": b.shape, "activation": activation}
        parameters |= {"q_a": q_a, "q_b": q_b, "q_y": q_y}
        return Case(name.lower(), tuple(Input(x, q) for x, q in given), parameters, add)

    return cases()


@st.composite
def extremum_cases(draw: st.DrawFn) -> Case:
    a, b = draw(_two_tensors())
    q = draw(quantized())
    name: Literal["MAXIMUM", "MINIMUM"] = draw(st.sampled_from(["MAXIMUM", "MINIMUM"]))
    constant = draw(st.booleans())

    def add(m: TfliteBuilder, t: Sequence[Tensor]) -> Tensor:
        second = m.constant(b, [q.scale], q.zero_point) if constant else t[1]
        return m.extremum(name, t[0], second)

    inputs = (Input(a, q),) if constant else (Input(a, q), Input(b, q))
    return Case(name.lower(), inputs, {"a": a.shape, "b": b.shape, "q": q, "constant": constant}, add)


@st.composite
def prelu_cases(draw: st.DrawFn) -> Case:
    """Slopes a tensor, a channel, or a whole row."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=2, max_size=4)))
    slopes_shape = draw(st.sampled_from([(1,), shape[-1:], (1,) * (len(shape) - 2) + shape[-1:], shape[1:]]))
    q_x, q_slopes = draw(quantized()), draw(quantized(any_scales(-10.0, -3.0)))
    q_y = Quantized(_float32(q_x.scale * 2.0 ** draw(st.floats(-2, 4))), draw(ZERO_POINTS))
    rng = np.random.default_rng(draw(SEEDS))
    x, slopes = int8_values(rng, shape), int8_values(rng, slopes_shape)
    return Case(
        "prelu",
        (Input(x, q_x),),
        {"x": shape, "slopes": slopes_shape, "q_x": q_x, "q_slopes": q_slopes, "q_y": q_y},
        lambda m, t: m.prelu(
            t[0], m.constant(slopes, [q_slopes.scale], q_slopes.zero_point), q_y.scale, q_y.zero_point
        ),
    )


ELEMENTWISE: Mapping[str, st.SearchStrategy[Case]] = {
    "add": _arithmetic("ADD"),
    "div": _arithmetic("DIV"),
    "extremum": extremum_cases(),
    "mul": _arithmetic("MUL"),
    "prelu": prelu_cases(),
    "squared_difference": _arithmetic("SQUARED_DIFFERENCE"),
    "sub": _arithmetic("SUB"),
}
