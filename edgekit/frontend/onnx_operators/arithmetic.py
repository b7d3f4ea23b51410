"""Element by element: unary functions, arithmetic, comparison, logic and conversion of types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
from tvm import relax

from edgekit.frontend.onnx_node import Converter, Node, Refused, scalar

__all__ = ["ARITHMETIC", "CAST_TYPES", "round_half_even"]

op = relax.op

SELU_ALPHA, SELU_GAMMA = 1.6732632423543772, 1.0507009873554805

CAST_TYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    12: "uint32",
    13: "uint64",
}
"""By the number of ONNX's TensorProto.DataType."""


def _unary(function: Callable[[relax.Expr], relax.Expr]) -> Converter:
    return lambda node: function(node.input(0))


def _float_only(function: Callable[[relax.Expr], relax.Expr]) -> Converter:
    def convert(node: Node) -> relax.Expr:
        if node.dtype(0) != "float32":
            raise Refused(f"{node.dtype(0)} data has no converter here")
        return function(node.input(0))

    return convert


def _binary(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Converter:
    return lambda node: function(node.input(0), node.input(1))


def _variadic(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Converter:
    return lambda node: reduce(function, [node.input(i) for i in range(len(node.inputs))])


def _mean(node: Node) -> relax.Expr:
    total = reduce(op.add, [node.input(i) for i in range(len(node.inputs))])
    return total if len(node.inputs) == 1 else op.divide(total, scalar(len(node.inputs), "float32"))


def _like(node: Node, value: float) -> relax.Expr:
    return scalar(value, node.dtype(0))


def _softplus(x: relax.Expr) -> relax.Expr:
    """log(1 + e^x), without overflow: max(x, 0) + log(1 + e^−|x|)."""
    one = scalar(1, "float32")
    decay = op.exp(op.negative(op.abs(x)))
    total = op.add(one, decay)
    # Of a small y, log(1 + y) is log(u)·y / (u − 1) with u = 1 + y as rounded (Goldberg, 1991, theorem 4).
    small = op.divide(op.multiply(op.log(total), decay), op.subtract(total, one))
    return op.add(op.nn.relu(x), op.where(op.equal(total, one), decay, small))


def _elu(node: Node, alpha: float, gamma: float = 1.0) -> relax.Expr:
    x = node.input(0)
    # The exponential of the negative part only: e^x of a large x is infinite.
    negative = op.subtract(op.exp(op.minimum(x, scalar(0, "float32"))), scalar(1, "float32"))
    value = op.add(op.nn.relu(x), op.multiply(scalar(alpha, "float32"), negative))
    return value if gamma == 1.0 else op.multiply(scalar(gamma, "float32"), value)


def _celu(node: Node) -> relax.Expr:
    alpha, x = node.real("alpha", 1.0), node.input(0)
    scaled = op.divide(op.minimum(x, scalar(0, "float32")), scalar(alpha, "float32"))
    negative = op.subtract(op.exp(scaled), scalar(1, "float32"))
    return op.add(op.nn.relu(x), op.multiply(scalar(alpha, "float32"), negative))


def _hard_sigmoid_of(x: relax.Expr, alpha: float, beta: float) -> relax.Expr:
    line = op.add(op.multiply(x, scalar(alpha, "float32")), scalar(beta, "float32"))
    return op.clip(line, 0.0, 1.0)


def _hard_sigmoid(node: Node) -> relax.Expr:
    return _hard_sigmoid_of(node.input(0), node.real("alpha", 0.2), node.real("beta", 0.5))


def _gelu(node: Node) -> relax.Expr:
    function = {"none": op.nn.gelu, "tanh": op.nn.gelu_tanh}.get(node.text("approximate", "none"))
    if function is None:
        raise Refused("its approximation has no converter")
    return function(node.input(0))


def _swish(node: Node) -> relax.Expr:
    alpha, x = node.real("alpha", 1.0), node.input(0)
    if alpha == 1.0:
        return op.nn.silu(x)
    return op.multiply(x, op.sigmoid(op.multiply(x, scalar(alpha, "float32"))))


def _mish(x: relax.Expr) -> relax.Expr:
    """x·tanh(log(1 + e^x)), which is x·n / (n + 2) with n = e^x·(e^x + 2)."""
    two = scalar(2, "float32")
    power = op.exp(op.minimum(x, scalar(30, "float32")))
    numerator = op.multiply(power, op.add(power, two))
    return op.multiply(x, op.divide(numerator, op.add(numerator, two)))


def _shrink(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        raise Refused(f"{node.dtype(0)} data has no converter here")
    x, lambd, bias = node.input(0), node.real("lambd", 0.5), node.real("bias", 0.0)
    zero = scalar(0, "float32")
    above = op.where(op.greater(x, scalar(lambd, "float32")), op.subtract(x, scalar(bias, "float32")), zero)
    return op.where(op.less(x, scalar(-lambd, "float32")), op.add(x, scalar(bias, "float32")), above)


def _thresholded_relu(node: Node) -> relax.Expr:
    x = node.input(0)
    return op.where(op.greater(x, scalar(node.real("alpha", 1.0), "float32")), x, scalar(0, "float32"))


def _prelu(node: Node) -> relax.Expr:
    x, slope = node.input(0), node.input(1)
    shape = (*[1] * (node.rank(0) - node.rank(1)), *node.shape(1))
    along = [axis for axis, size in enumerate(shape) if size > 1]
    if node.dtype(0) == "float32" and node.rank(0) > 1 and along in ([1], []) and len(shape) == node.rank(0):
        channels = node.shape(0)[1]
        flat = op.reshape(slope, [-1])
        if not along and channels > 1:
            flat = op.broadcast_to(flat, [channels])
        known = node.known(1)
        if known is not None:
            flat = relax.const(np.ascontiguousarray(np.broadcast_to(known.reshape(-1), [channels])))
        return op.nn.prelu(x, flat, axis=1)
    return op.where(op.less(x, _like(node, 0)), op.multiply(slope, x), x)


def _clip(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        value = node.input(0)
        for position, function in ((1, op.maximum), (2, op.minimum)):
            if node.has(position):
                value = function(value, node.input(position))
        return value
    if any(node.has(p) and node.known(p) is None for p in (1, 2)):
        value = op.maximum(node.input(0), node.input(1)) if node.has(1) else node.input(0)
        return op.minimum(value, node.input(2)) if node.has(2) else value
    limit = float(np.finfo(np.float32).max)
    bounds = []
    for position, default in ((1, -limit), (2, limit)):
        known = node.known(position)
        bound = default if known is None or np.isnan(known).any() else float(known.reshape(-1)[0])
        bounds.append(min(max(bound, -limit), limit))
    if bounds[0] > bounds[1]:
        bounds[0] = bounds[1]  # Every value then becomes the upper bound.
    if bounds == [0.0, limit]:
        return op.nn.relu(node.input(0))
    return op.clip(node.input(0), bounds[0], bounds[1])


def _relu(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        return op.maximum(node.input(0), _like(node, 0))
    return op.nn.relu(node.input(0))


def round_half_even(x: relax.Expr) -> relax.Expr:
    """Halves go to the even neighbour; TVM's own round sends them away from zero."""
    down = op.floor(x)
    rest = op.subtract(x, down)
    odd = op.not_equal(
        op.multiply(op.floor(op.multiply(down, scalar(0.5, "float32"))), scalar(2, "float32")), down
    )
    up = op.add(down, scalar(1, "float32"))
    half = scalar(0.5, "float32")
    return op.where(op.greater(rest, half), up, op.where(op.logical_and(op.equal(rest, half), odd), up, down))


def _mod(node: Node) -> relax.Expr:
    a, b = node.input(0), node.input(1)
    if node.dtype(0) == "float32":
        quotient = op.divide(a, b)
        truncated = bool(node.integer("fmod", 0))
        whole = op.trunc(quotient) if truncated else op.floor(quotient)
        rest = op.subtract(a, op.multiply(whole, b))
        # Of an infinite divisor: the dividend, or the divisor where their signs differ.
        zero = scalar(0, "float32")
        opposite = op.less(op.multiply(op.where(op.isinf(a), zero, a), b), zero)
        beyond = a if truncated else op.where(opposite, b, a)
        endless = op.logical_and(op.isinf(b), op.logical_not(op.logical_or(op.isinf(a), op.isnan(a))))
        return op.where(endless, beyond, rest)
    if node.dtype(0).startswith("u"):
        return op.floor_mod(a, b)
    if not node.integer("fmod", 0):
        return op.floor_mod(a, b)
    # The sign of the dividend, as C has it.
    size = op.floor_mod(op.abs(a), op.abs(b))
    return op.where(op.less(a, _like(node, 0)), op.negative(size), size)


def _divide(node: Node) -> relax.Expr:
    a, b = node.input(0), node.input(1)
    if node.dtype(0) == "float32" or node.dtype(0).startswith("u"):
        return op.divide(a, b) if node.dtype(0) == "float32" else op.floor_divide(a, b)
    # Towards zero, as C divides.
    size = op.floor_divide(op.abs(a), op.abs(b))
    opposite = op.logical_xor(op.less(a, _like(node, 0)), op.less(b, scalar(0, node.dtype(1))))
    return op.where(opposite, op.negative(size), size)


def _power(node: Node) -> relax.Expr:
    base, exponent = node.input(0), node.input(1)
    known = node.known(1)
    if known is not None and known.size == 1:
        value = float(known.reshape(-1)[0])
        if value == 2.0:
            return op.multiply(base, base)
        if value == 0.5 and node.dtype(0) == "float32":
            return op.sqrt(base)
    if node.dtype(0) != "float32":
        if known is not None and known.size == 1 and float(known.reshape(-1)[0]) in (1.0, 3.0, 4.0):
            result = base
            for _ in range(int(known.reshape(-1)[0]) - 1):
                result = op.multiply(result, base)
            return result
        raise Refused(f"powers of {node.dtype(0)} have no converter")
    if node.dtype(1) != "float32":
        exponent = op.astype(exponent, "float32")
    return op.power(base, exponent)


def _bit_shift(node: Node) -> relax.Expr:
    function = {"LEFT": op.left_shift, "RIGHT": op.right_shift}.get(node.text("direction", ""))
    if function is None:
        raise node.wrong("shifts neither left nor right")
    x, count, dtype = node.input(0), node.input(1), node.dtype(1)
    zero, bits = scalar(0, dtype), int(dtype.lstrip("uint"))
    # By all bits or more, or by a negative number: nothing is left but the sign, which C does not define.
    inside = op.logical_and(op.greater_equal(count, zero), op.less(count, scalar(bits, dtype)))
    shifted = function(x, op.where(inside, count, zero))
    nothing = scalar(0, node.dtype(0))
    if node.text("direction", "") == "RIGHT" and not node.dtype(0).startswith("u"):
        nothing = op.where(op.less(x, nothing), _like(node, -1), nothing)
    return op.where(inside, shifted, nothing)


def _cast_to(x: relax.Expr, source: str, target: str) -> relax.Expr:
    if source == target:
        return x
    if target == "bool":
        return op.not_equal(x, scalar(0, source))
    if source == "float32" and target in ("int8", "uint8", "int16", "uint16"):
        # What lies outside the range wraps, as it does in ONNX Runtime.
        return op.astype(op.astype(x, "int32"), target)
    if source == "float32" and target == "uint32":
        return op.astype(op.astype(x, "int64"), target)
    return op.astype(x, target)


def _cast(node: Node) -> relax.Expr:
    target = CAST_TYPES.get(node.integer("to", 0))
    if target is None:
        raise Refused(f"a cast to element type {node.integer('to', 0)} has no converter")
    return _cast_to(node.input(0), node.dtype(0), target)


def _cast_like(node: Node) -> relax.Expr:
    return _cast_to(node.input(0), node.dtype(0), node.dtype(1))


def _is_inf(node: Node) -> relax.Expr:
    x = node.input(0)
    positive, negative = node.integer("detect_positive", 1), node.integer("detect_negative", 1)
    found = op.isinf(x)
    zero = scalar(0, "float32")
    if not positive:
        found = op.logical_and(found, op.less(x, zero))
    if not negative:
        found = op.logical_and(found, op.greater(x, zero))
    return found


def _where(node: Node) -> relax.Expr:
    return op.where(node.input(0), node.input(1), node.input(2))


def _negate(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Converter:
    return lambda node: op.logical_not(function(node.input(0), node.input(1)))


def _sign(node: Node) -> relax.Expr:
    zero = _like(node, 0)
    one = _like(node, 1)
    x = node.input(0)
    positive = op.where(op.greater(x, zero), one, zero)
    if node.dtype(0).startswith("u"):
        return positive
    return op.where(op.less(x, zero), _like(node, -1), positive)


ARITHMETIC: Mapping[str, Converter] = {
    "Abs": lambda node: node.input(0) if node.dtype(0).startswith("u") else op.abs(node.input(0)),
    "Acos": _float_only(op.acos),
    "Acosh": _float_only(op.acosh),
    "Add": _binary(op.add),
    "And": _binary(op.logical_and),
    "Asin": _float_only(op.asin),
    "Asinh": _float_only(op.asinh),
    "Atan": _float_only(op.atan),
    "Atanh": _float_only(op.atanh),
    "BitShift": _bit_shift,
    "BitwiseAnd": _binary(op.bitwise_and),
    "BitwiseNot": _unary(op.bitwise_not),
    "BitwiseOr": _binary(op.bitwise_or),
    "BitwiseXor": _binary(op.bitwise_xor),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _float_only(op.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _float_only(op.cos),
    "Cosh": _float_only(op.cosh),
    "Div": _divide,
    "Elu": lambda node: _elu(node, node.real("alpha", 1.0)),
    "Equal": _binary(op.equal),
    "Erf": _float_only(op.erf),
    "Exp": _float_only(op.exp),
    "Floor": _float_only(op.floor),
    "Gelu": _gelu,
    "Greater": _binary(op.greater),
    "GreaterOrEqual": _binary(op.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node: op.multiply(node.input(0), _hard_sigmoid_of(node.input(0), 1 / 6, 0.5)),
    "IsInf": _is_inf,
    "IsNaN": _float_only(op.isnan),
    "LeakyRelu": lambda node: op.nn.leakyrelu(node.input(0), node.real("alpha", 0.01)),
    "Less": _binary(op.less),
    "LessOrEqual": _binary(op.less_equal),
    "Log": _float_only(op.log),
    "Max": _variadic(op.maximum),
    "Mean": _mean,
    "Min": _variadic(op.minimum),
    "Mish": _float_only(_mish),
    "Mod": _mod,
    "Mul": _binary(op.multiply),
    "Neg": _unary(op.negative),
    "Not": _unary(op.logical_not),
    "Or": _binary(op.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": lambda node: op.divide(scalar(1, "float32"), node.input(0)),
    "Relu": _relu,
    "Round": _float_only(round_half_even),
    "Selu": lambda node: _elu(node, node.real("alpha", SELU_ALPHA), node.real("gamma", SELU_GAMMA)),
    "Shrink": _shrink,
    "Sigmoid": _float_only(op.sigmoid),
    "Sign": _sign,
    "Sin": _float_only(op.sin),
    "Sinh": _float_only(op.sinh),
    "Softplus": _float_only(_softplus),
    "Softsign": lambda node: op.divide(node.input(0), op.add(scalar(1, "float32"), op.abs(node.input(0)))),
    "Sqrt": _float_only(op.sqrt),
    "Sub": _binary(op.subtract),
    "Sum": _variadic(op.add),
    "Swish": _swish,
    "Tan": _float_only(op.tan),
    "Tanh": _float_only(op.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
    "Xor": _binary(op.logical_xor),
}  # fmt: skip
