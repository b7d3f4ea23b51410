"""Reductions, normalisations, softmax and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from tvm import relax

from edgekit.frontend.onnx_node import Converter, Node, Refused, scalar

__all__ = ["REDUCTIONS"]

op = relax.op


def _axes(node: Node, since: int) -> list[int] | None:
    """The axes to reduce; None for a reduction over nothing (which is the input itself)."""
    given = node.axes(1, since)
    rank = node.rank(0)
    if not given:
        return None if node.integer("noop_with_empty_axes", 0) else list(range(rank))
    return [node.axis(a, rank) for a in given]


def _reduce(
    function: Callable[..., relax.Expr],
    since: int = 18,
    before: Callable[[relax.Expr], relax.Expr] | None = None,
    after: Callable[[relax.Expr], relax.Expr] | None = None,
) -> Converter:
    def convert(node: Node) -> relax.Expr:
        axes = _axes(node, since)
        x = node.input(0)
        boolean = node.dtype(0) == "bool"
        if boolean:
            x = op.astype(x, "uint8")
        value = before(x) if before else x
        if axes:
            value = function(value, axes, keepdims=bool(node.integer("keepdims", 1)))
        value = after(value) if after else value
        return op.not_equal(value, scalar(0, "uint8")) if boolean else value

    return convert


def _extreme(function: Callable[..., relax.Expr], limit: float) -> Converter:
    """A maximum or minimum. TVM starts from the largest finite number, so that infinities alone are lost."""
    plain = _reduce(function)

    def convert(node: Node) -> relax.Expr:
        axes, x = _axes(node, 18), node.input(0)
        value = plain(node)
        if node.dtype(0) != "float32" or not axes or isinstance(value, list):
            return value
        endless = scalar(limit, "float32")
        beyond = node.emit(op.astype(op.equal(x, endless), "uint8"))
        alone = op.min(beyond, axes, keepdims=bool(node.integer("keepdims", 1)))
        return op.where(op.equal(alone, scalar(1, "uint8")), endless, value)

    return convert


def _log_sum_exp(node: Node) -> relax.Expr:
    """max + log Σ e^(x − max), which does not overflow."""
    axes = _axes(node, 18)
    x = node.input(0)
    if axes is None:
        return x
    if not axes:
        return x
    peak = node.emit(op.max(x, axes, keepdims=True))
    total = op.sum(op.exp(op.subtract(x, peak)), axes, keepdims=True)
    value = node.emit(op.add(peak, op.log(total)))
    if node.integer("keepdims", 1):
        return value
    return op.squeeze(value, axes)


def _arg(function: Callable[..., relax.Expr]) -> Converter:
    def convert(node: Node) -> relax.Expr:
        axis = node.axis(node.integer("axis", 0), node.rank(0))
        keep = bool(node.integer("keepdims", 1))
        if not node.integer("select_last_index", 0):
            return function(node.input(0), axis, keep)
        found = function(node.emit(op.flip(node.input(0), axis)), axis, keep)
        return op.subtract(scalar(node.shape(0)[axis] - 1, "int64"), found)

    return convert


def _cumulative(node: Node) -> relax.Expr:
    known = node.constant(1, "axis")
    if known is None:
        raise node.wrong("lacks its axis")
    axis = node.axis(int(known.reshape(-1)[0]), node.rank(0))
    reverse = bool(node.integer("reverse", 0))
    x = node.emit(op.flip(node.input(0), axis)) if reverse else node.input(0)
    function = op.cumsum if node.proto.op_type == "CumSum" else op.cumprod
    value = node.emit(function(x, axis, node.dtype(0), bool(node.integer("exclusive", 0))))
    return op.flip(value, axis) if reverse else value


def _top_k(node: Node) -> list[relax.Expr]:
    """The largest or smallest values and where they are, in order whether or not `sorted` asks for it."""
    axis = node.axis(node.integer("axis", -1), node.rank(0))
    count = node.constant(1, "number of values")
    if count is None or count.size != 1 or not 1 <= int(count.reshape(-1)[0]) <= node.shape(0)[axis]:
        raise node.wrong("asks for no values, or for more than there are")
    largest = bool(node.integer("largest", 1))
    found = node.emit(
        op.topk(node.input(0), int(count.reshape(-1)[0]), axis=axis, largest=largest, dtype="int64")
    )
    return [relax.TupleGetItem(found, 0), relax.TupleGetItem(found, 1)]


def _softmax(function: Callable[..., relax.Expr]) -> Converter:
    def convert(node: Node) -> relax.Expr:
        rank, shape = node.rank(0), node.shape(0)
        if node.opset >= 13:
            return function(node.input(0), node.axis(node.integer("axis", -1), rank))
        # Before opset 13 all axes from `axis` on count as one.
        axis = node.integer("axis", 1)
        axis = axis if axis == rank else node.axis(axis, rank)
        if axis == rank - 1:
            return function(node.input(0), axis)
        flat = [math.prod(shape[:axis]), math.prod(shape[axis:])]
        return op.reshape(function(node.emit(op.reshape(node.input(0), flat)), -1), shape)

    return convert


def _hardmax(node: Node) -> relax.Expr:
    rank, shape = node.rank(0), node.shape(0)
    x, axis = node.input(0), node.integer("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13:
        x = node.emit(op.reshape(x, [math.prod(shape[:axis]), math.prod(shape[axis:])]))
        rank, axis = 2, 1
    axis = node.axis(axis, rank)
    found = node.emit(op.argmax(x, axis, keepdims=True))
    size = [1] * rank
    size[axis] = int(x.ty.shape[axis])
    positions = relax.const(np.arange(size[axis], dtype=np.int64).reshape(size))
    value = op.astype(op.equal(found, positions), "float32")
    return op.reshape(value, shape) if node.opset < 13 else value


def _gemm(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        raise Refused(f"{node.dtype(0)} data has no converter here")
    a, b = node.input(0), node.input(1)
    if node.integer("transA", 0):
        a = node.emit(op.permute_dims(a, [1, 0]))
    if node.integer("transB", 0):
        b = node.emit(op.permute_dims(b, [1, 0]))
    value = op.matmul(a, b)
    if node.real("alpha", 1.0) != 1.0:
        value = op.multiply(value, scalar(node.real("alpha", 1.0), "float32"))
    beta = node.real("beta", 1.0)
    if not node.has(2) or beta == 0.0:
        return value
    bias = node.input(2)
    return op.add(value, bias if beta == 1.0 else op.multiply(bias, scalar(beta, "float32")))


def _matmul(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        raise Refused(f"products of {node.dtype(0)} matrices have no converter")
    return op.matmul(node.input(0), node.input(1))


def _einsum(node: Node) -> relax.Expr:
    equation = node.text("equation", "").replace(" ", "")
    if "->" not in equation:
        letters = [c for c in equation if c.isalpha()]
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        equation += "->" + ("..." if "..." in equation else "") + "".join(once)
    return op.einsum(tuple(node.input(i) for i in range(len(node.inputs))), equation)


def _batch_normalization(node: Node) -> relax.Expr:
    if node.outputs > 1 or node.integer("training_mode", 0):
        raise Refused("its training form has no converter")
    shape = [1, -1, *[1] * max(node.rank(0) - 2, 0)]
    epsilon = node.real("epsilon", 1e-5)
    known = [node.known(i) for i in range(1, 5)]
    if all(value is not None for value in known):
        gamma, beta, mean, variance = (np.asarray(value, dtype=np.float64) for value in known)
        scale = gamma / np.sqrt(variance + epsilon)
        factor = relax.const(scale.astype(np.float32).reshape(shape))
        offset = relax.const((beta - mean * scale).astype(np.float32).reshape(shape))
        return op.add(op.multiply(node.input(0), factor), offset)
    gamma, beta, mean, variance = (op.reshape(node.input(i), shape) for i in range(1, 5))
    scale = op.divide(gamma, op.sqrt(op.add(variance, scalar(epsilon, "float32"))))
    return op.add(op.multiply(op.subtract(node.input(0), mean), scale), beta)


def _instance_normalization(node: Node) -> relax.Expr:
    """Each channel of each image to mean 0 and variance 1, then scaled and shifted."""
    axes = list(range(2, node.rank(0)))
    shape = [1, -1, *[1] * len(axes)]
    x = node.input(0)
    centred = node.emit(op.subtract(x, op.mean(x, axes, keepdims=True)))
    variance = op.mean(op.multiply(centred, centred), axes, keepdims=True)
    scaled = op.divide(centred, op.sqrt(op.add(variance, scalar(node.real("epsilon", 1e-5), "float32"))))
    return op.add(op.multiply(scaled, op.reshape(node.input(1), shape)), op.reshape(node.input(2), shape))


def _layer_normalization(node: Node) -> relax.Expr:
    if node.outputs > 1:
        raise Refused("the mean and deviation that it computes besides have no converter")
    rank = node.rank(0)
    axes = list(range(node.axis(node.integer("axis", -1), rank), rank))
    shape = node.shape(0)[axes[0] :]
    if node.dtype(0) != "float32":
        raise Refused(f"{node.dtype(0)} data has no converter here")

    def full(position: int, default: float) -> relax.Expr:
        known = node.known(position)
        if not node.has(position) or known is not None:
            value = np.float32(default) if known is None else known
            return relax.const(np.ascontiguousarray(np.broadcast_to(value, shape), dtype=np.float32))
        value = node.input(position)
        return value if node.shape(position) == shape else node.emit(op.broadcast_to(value, shape))

    return op.nn.layer_norm(
        node.input(0), full(1, 1.0), full(2, 0.0), axes=axes, epsilon=node.real("epsilon", 1e-5)
    )


def _lp_normalization(node: Node) -> relax.Expr:
    axis = node.axis(node.integer("axis", -1), node.rank(0))
    x = node.input(0)
    if node.integer("p", 2) == 1:
        size = op.sum(op.abs(x), [axis], keepdims=True)
    else:
        size = op.sqrt(op.sum(op.multiply(x, x), [axis], keepdims=True))
    size = node.emit(size)
    # All zeros stay zeros.
    return op.divide(x, op.where(op.equal(size, scalar(0, "float32")), scalar(1, "float32"), size))


def _lrn(node: Node) -> relax.Expr:
    """x / (bias + alpha/size · Σ x² over the channels around)^beta."""
    size, shape = node.integer("size", 1), node.shape(0)
    x = node.input(0)
    before = (size - 1) // 2
    widths = [0, 0, before, size - 1 - before, *[0] * (2 * (len(shape) - 2))]
    squares = node.emit(op.nn.pad(op.multiply(x, x), widths))
    windows = [op.strided_slice(squares, [1], [start], [start + shape[1]], [1]) for start in range(size)]
    total = windows[0]
    for window in windows[1:]:
        total = op.add(total, window)
    mean = op.multiply(total, scalar(node.real("alpha", 1e-4) / size, "float32"))
    base = op.add(mean, scalar(node.real("bias", 1.0), "float32"))
    return op.divide(x, op.power(base, scalar(node.real("beta", 0.75), "float32")))


def _square(x: relax.Expr) -> relax.Expr:
    return op.multiply(x, x)


REDUCTIONS: Mapping[str, Converter] = {
    "ArgMax": _arg(op.argmax),
    "ArgMin": _arg(op.argmin),
    "BatchNormalization": _batch_normalization,
    "CumProd": _cumulative,
    "CumSum": _cumulative,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "Hardmax": _hardmax,
    "InstanceNormalization": _instance_normalization,
    "LRN": _lrn,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax(op.nn.log_softmax),
    "LpNormalization": _lp_normalization,
    "MatMul": _matmul,
    "ReduceL1": _reduce(op.sum, before=op.abs),
    "ReduceL2": _reduce(op.sum, before=_square, after=op.sqrt),
    "ReduceLogSum": _reduce(op.sum, after=op.log),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _extreme(op.max, -math.inf),
    "ReduceMean": _reduce(op.mean),
    "ReduceMin": _extreme(op.min, math.inf),
    "ReduceProd": _reduce(op.prod),
    "ReduceSum": _reduce(op.sum, since=13),
    "ReduceSumSquare": _reduce(op.sum, before=_square),
    "Softmax": _softmax(op.nn.softmax),
    "TopK": _top_k,
}
