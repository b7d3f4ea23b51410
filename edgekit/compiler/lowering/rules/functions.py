"""The elementwise functions by their Relax names, in float32 as LiteRT and ONNX Runtime compute them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.tables import elementary

__all__ = ["COMPARISONS", "UNARY"]

Reals = NDArray[np.float32]

_ONE, _HALF = np.float32(1.0), np.float32(0.5)
_SQRT_HALF = np.float32(math.sqrt(0.5))
_SQRT_2_OVER_PI = np.float32(math.sqrt(2.0 / math.pi))
_GELU_CUBIC = np.float32(0.044715)
_SELU_ALPHA = np.float32(1.6732632423543772)
_SELU_SCALE = np.float32(1.0507009873554805)

_exp = elementary(np.exp)
_expm1 = elementary(np.expm1)
_tanh = elementary(np.tanh)
_erf = elementary(np.vectorize(math.erf, otypes=[np.float64]))
_erfc = elementary(np.vectorize(math.erfc, otypes=[np.float64]))


def _sigmoid(x: Reals) -> Reals:
    """`activations.cc: SigmoidPrepare`"""
    return np.asarray(_ONE / (_ONE + _exp(-x)))


def _silu(x: Reals) -> Reals:
    return np.asarray(x * _sigmoid(x))


def _gelu(x: Reals) -> Reals:
    """x / 2 · erfc(−x / √2). `gelu.h: GeluTransform`"""
    return np.asarray(_HALF * x * _erfc(x * -_SQRT_HALF))


def _gelu_tanh(x: Reals) -> Reals:
    """`gelu.h: GeluTransformApproximate`"""
    inner = _SQRT_2_OVER_PI * (x + _GELU_CUBIC * x * x * x)
    return np.asarray(_HALF * x * (_ONE + _tanh(inner)))


def _selu(x: Reals) -> Reals:
    return np.asarray(_SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * _expm1(x)))


UNARY: Mapping[str, Callable[[Any], Any]] = {
    "relax.abs": np.abs,
    "relax.acos": elementary(np.arccos),
    "relax.acosh": elementary(np.arccosh),
    "relax.asin": elementary(np.arcsin),
    "relax.asinh": elementary(np.arcsinh),
    "relax.atan": elementary(np.arctan),
    "relax.atanh": elementary(np.arctanh),
    "relax.ceil": np.ceil,
    "relax.cos": elementary(np.cos),
    "relax.cosh": elementary(np.cosh),
    "relax.erf": _erf,
    "relax.exp": _exp,
    "relax.floor": np.floor,
    "relax.isfinite": np.isfinite,
    "relax.isinf": np.isinf,
    "relax.isnan": np.isnan,
    "relax.log": elementary(np.log),
    "relax.logical_not": np.logical_not,
    "relax.negative": np.negative,
    "relax.nn.gelu": _gelu,
    "relax.nn.gelu_tanh": _gelu_tanh,
    "relax.nn.selu": _selu,
    "relax.nn.silu": _silu,
    "relax.round": np.rint,
    "relax.rsqrt": lambda x: _ONE / np.sqrt(x),
    "relax.sigmoid": _sigmoid,
    "relax.sign": np.sign,
    "relax.sin": elementary(np.sin),
    "relax.sinh": elementary(np.sinh),
    "relax.sqrt": np.sqrt,
    "relax.tan": elementary(np.tan),
    "relax.tanh": _tanh,
    "relax.trunc": np.trunc,
}

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "relax.equal": np.equal,
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
    "relax.logical_and": np.logical_and,
    "relax.logical_or": np.logical_or,
    "relax.not_equal": np.not_equal,
}
