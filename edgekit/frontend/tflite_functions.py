"""TFLite's elementwise functions of one tensor as Relax operators on reals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import relax

from edgekit.frontend.tflite_operators import Operands, leaky_slope

__all__ = ["FUNCTIONS"]


def _number(value: float) -> relax.Expr:
    return relax.const(value, "float32")


def _elu(x: relax.Expr, _: Operands) -> relax.Expr:
    negative = relax.op.nn.relu(relax.op.subtract(_number(1.0), relax.op.exp(x)))
    return relax.op.subtract(relax.op.nn.relu(x), negative)


def _gelu(x: relax.Expr, operands: Operands) -> relax.Expr:
    approximate = operands.options is not None and operands.options.boolean(0)
    return relax.op.nn.gelu_tanh(x) if approximate else relax.op.nn.gelu(x)


def _hard_swish(x: relax.Expr, _: Operands) -> relax.Expr:
    gate = relax.op.clip(relax.op.add(x, _number(3.0)), 0.0, 6.0)
    return relax.op.divide(relax.op.multiply(x, gate), _number(6.0))


FUNCTIONS: Mapping[str, Callable[[relax.Expr, Operands], relax.Expr]] = {
    "ABS": lambda x, _: relax.op.abs(x),
    "ELU": _elu,
    "EXP": lambda x, _: relax.op.exp(x),
    "GELU": _gelu,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": lambda x, operands: relax.op.nn.leakyrelu(x, leaky_slope(operands)),
    "LOG": lambda x, _: relax.op.log(x),
    "LOGISTIC": lambda x, _: relax.op.sigmoid(x),
    "NEG": lambda x, _: relax.op.negative(x),
    "RSQRT": lambda x, _: relax.op.rsqrt(x),
    "SQRT": lambda x, _: relax.op.sqrt(x),
    "TANH": lambda x, _: relax.op.tanh(x),
}
"""By the schema's name, by which the lowering also knows what LiteRT rounds in a way of its own."""
