"""What slides a window: convolutions, transposed convolutions, poolings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tvm import relax

from edgekit.frontend.onnx_node import Converter, Node, Refused, scalar
from edgekit.frontend.shapes import shape_text, show_name
from edgekit.frontend.tflite_operators import same_padding

__all__ = ["WINDOWS"]

op = relax.op


def _geometry(node: Node, kernel: Sequence[int]) -> tuple[list[int], list[int], tuple[int, ...]]:
    """(strides, dilations, spatial shape), checked."""
    spatial = node.shape(0)[2:]
    strides = node.integers("strides", [1] * len(spatial))
    dilations = node.integers("dilations", [1] * len(spatial))
    if (
        not spatial
        or len(kernel) != len(spatial)
        or len(strides) != len(spatial)
        or len(dilations) != len(spatial)
    ):
        raise node.wrong(f"has a kernel of {len(kernel)} dimensions on {len(spatial)}")
    if min(*kernel, *strides, *dilations) < 1:
        raise node.wrong("has a kernel, stride or dilation below 1")
    return strides, dilations, spatial


def _explicit_pads(node: Node, kernel: Sequence[int]) -> list[int]:
    """The paddings (begin of each axis, then end of each), whatever `auto_pad` says."""
    strides, dilations, spatial = _geometry(node, kernel)
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.integers("pads", [0] * (2 * len(spatial)))
        if len(pads) != 2 * len(spatial) or min(pads) < 0:
            raise node.wrong("has paddings that do not fit its input")
        return pads
    if mode == "VALID":
        return [0] * (2 * len(spatial))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.wrong(f"has the unknown automatic padding {show_name(mode)}")
    begin, end = [], []
    for n, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
        small, large, _ = same_padding(n, (k - 1) * d + 1, s)
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return begin + end


_CONVOLUTIONS: Mapping[int, tuple[str, str, Callable[..., relax.Expr]]] = {
    3: ("NCW", "OIW", op.nn.conv1d),
    4: ("NCHW", "OIHW", op.nn.conv2d),
    5: ("NCDHW", "OIDHW", op.nn.conv3d),
}
_TRANSPOSED: Mapping[int, tuple[str, str, Callable[..., relax.Expr]]] = {
    3: ("NCW", "IOW", op.nn.conv1d_transpose),
    4: ("NCHW", "IOHW", op.nn.conv2d_transpose),
    5: ("NCDHW", "IODHW", op.nn.conv3d_transpose),
}


def _with_bias(node: Node, value: relax.Expr) -> relax.Expr:
    if not node.has(2):
        return value
    return op.add(value, op.reshape(node.input(2), [1, -1, *[1] * (node.rank(0) - 2)]))


def _convolve(node: Node, data: relax.Expr, kernel: relax.Expr) -> relax.Expr:
    rank = node.rank(0)
    if rank not in _CONVOLUTIONS:
        raise Refused(f"a convolution over {rank - 2} dimensions has no converter")
    data_layout, kernel_layout, function = _CONVOLUTIONS[rank]
    groups = node.integer("group", 1)
    if (
        len(node.shape(1)) != rank
        or node.shape(1)[1] * groups != node.shape(0)[1]
        or node.shape(1)[0] % groups
    ):
        raise node.wrong(
            f"has weights of {shape_text(node.shape(1))} in {groups} groups on {shape_text(node.shape(0))}"
        )
    return function(
        data,
        kernel,
        strides=node.integers("strides", [1] * (rank - 2)),
        padding=_explicit_pads(node, node.shape(1)[2:]),
        dilation=node.integers("dilations", [1] * (rank - 2)),
        groups=groups,
        data_layout=data_layout,
        kernel_layout=kernel_layout,
    )


def _conv(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        raise Refused(f"{node.dtype(0)} data has no converter here")
    return _with_bias(node, _convolve(node, node.input(0), node.input(1)))


def _shifted(node: Node, position: int) -> relax.Expr:
    """An 8-bit operand less its zero point, as int32."""
    value = op.astype(node.input(position), "int32")
    if not node.has(position + 2):
        return value
    zero = node.emit(op.astype(node.input(position + 2), "int32"))
    known = node.shape(position + 2)
    if math.prod(known) > 1:
        # Of the weights, one an output channel; of a matrix, one a row (of a) or a column (of b).
        if node.proto.op_type == "ConvInteger":
            zero = op.reshape(zero, [-1, *[1] * (node.rank(position) - 1)])
        elif position == 0 and len(known) == 1:
            zero = op.reshape(zero, [-1, 1])
    elif len(known) == 1:
        zero = op.reshape(zero, [])
    return op.subtract(value, zero)


def _conv_integer(node: Node) -> relax.Expr:
    return _convolve(node, node.emit(_shifted(node, 0)), node.emit(_shifted(node, 1)))


def _matmul_integer(node: Node) -> relax.Expr:
    return op.matmul(node.emit(_shifted(node, 0)), node.emit(_shifted(node, 1)))


def _transposed_pads(node: Node, kernel: Sequence[int], extra: Sequence[int]) -> tuple[list[int], list[int]]:
    """(pads, output padding) such that the output has the size that the file asks for.

    out = stride·(in − 1) + extra + (k − 1)·dilation + 1 − pad_begin − pad_end (ONNX, ConvTranspose).
    """
    strides, dilations, spatial = _geometry(node, kernel)
    mode = node.text("auto_pad", "NOTSET")
    wanted = node.integers("output_shape", ())
    if mode == "SAME_UPPER" or mode == "SAME_LOWER" or wanted:
        wanted = wanted[-len(spatial) :] or [n * s for n, s in zip(spatial, strides, strict=True)]
        begin, end, added = [], [], []
        for n, k, s, d, e, out in zip(spatial, kernel, strides, dilations, extra, wanted, strict=True):
            total = s * (n - 1) + e + (k - 1) * d + 1 - out
            added.append(e + max(-total, 0))
            total = max(total, 0)
            # The larger half goes before, unless SAME_UPPER puts it behind.
            half = total // 2
            begin.append(half if mode == "SAME_UPPER" else total - half)
            end.append(total - half if mode == "SAME_UPPER" else half)
        return begin + end, added
    if mode not in ("NOTSET", "VALID"):
        raise node.wrong(f"has the unknown automatic padding {show_name(mode)}")
    pads = node.integers("pads", [0] * (2 * len(spatial))) if mode == "NOTSET" else [0] * (2 * len(spatial))
    if len(pads) != 2 * len(spatial) or min(pads) < 0:
        raise node.wrong("has paddings that do not fit its input")
    return pads, list(extra)


def _conv_transpose(node: Node) -> relax.Expr:
    rank = node.rank(0)
    if rank not in _TRANSPOSED or node.dtype(0) != "float32":
        raise Refused(
            f"a transposed convolution over {rank - 2} dimensions of {node.dtype(0)} has no converter"
        )
    data_layout, kernel_layout, function = _TRANSPOSED[rank]
    groups = node.integer("group", 1)
    if len(node.shape(1)) != rank or node.shape(1)[0] != node.shape(0)[1] or node.shape(1)[0] % groups:
        raise node.wrong(f"has weights of {shape_text(node.shape(1))} on {shape_text(node.shape(0))}")
    kernel = node.shape(1)[2:]
    extra = node.integers("output_padding", [0] * (rank - 2))
    if len(extra) != rank - 2 or min(extra) < 0:
        raise node.wrong("has an output padding that does not fit its input")
    pads, extra = _transposed_pads(node, kernel, extra)
    strides = node.integers("strides", [1] * (rank - 2))
    # TVM wants an output padding below the stride; what is more is filled behind, where nothing reaches.
    behind = [max(e - s + 1, 0) for e, s in zip(extra, strides, strict=True)]
    value = function(
        node.input(0),
        node.input(1),
        strides=strides,
        padding=pads,
        output_padding=[e - b for e, b in zip(extra, behind, strict=True)],
        dilation=node.integers("dilations", [1] * (rank - 2)),
        groups=groups,
        data_layout=data_layout,
        kernel_layout=kernel_layout,
    )
    if any(behind):
        if any(pads[rank - 2 :]):
            raise Refused("its output is padded by more than its stride")
        value = op.nn.pad(value, [0, 0, 0, 0, *(w for b in behind for w in (0, b))])
    return _with_bias(node, value)


_MAX_POOLS = {3: op.nn.max_pool1d, 4: op.nn.max_pool2d, 5: op.nn.max_pool3d}
_AVERAGE_POOLS = {3: op.nn.avg_pool1d, 4: op.nn.avg_pool2d, 5: op.nn.avg_pool3d}
_LAYOUTS = {3: "NCW", 4: "NCHW", 5: "NCDHW"}


def _pool(functions: Mapping[int, Callable[..., relax.Expr]], node: Node) -> relax.Expr:
    if node.outputs > 1:
        raise Refused("the indices of its maxima have no converter")
    rank = node.rank(0)
    if rank not in functions:
        raise Refused(f"pooling over {rank - 2} dimensions has no converter")
    kernel = node.integers("kernel_shape", [])
    pads = _explicit_pads(node, kernel)
    ceil = bool(node.integer("ceil_mode", 0)) and node.text("auto_pad", "NOTSET") == "NOTSET"
    strides, dilations, _ = _geometry(node, kernel)
    if ceil:
        # The last window is there when it starts inside the input or the padding before it; the padding
        # behind is then written out, so that TVM's own rules for a rounded-up size do not matter.
        pads, beyond = _ceiled(node, pads, kernel)
        if beyond and functions is _AVERAGE_POOLS and node.integer("count_include_pad", 0):
            raise Refused("a mean that counts padding, over windows that reach beyond it, has no converter")
    if any(p >= (k - 1) * d + 1 for p, k, d in zip(pads, kernel * 2, dilations * 2, strict=True)):
        raise Refused("a window that lies in the padding only has no converter")
    return functions[rank](
        node.input(0),
        pool_size=kernel,
        strides=strides,
        padding=pads,
        dilation=dilations,
        ceil_mode=False,
        count_include_pad=bool(node.integer("count_include_pad", 0)),
        layout=_LAYOUTS[rank],
    )


def _ceiled(node: Node, pads: list[int], kernel: Sequence[int]) -> tuple[list[int], bool]:
    """The paddings with which rounding down gives the size that rounding up gave; whether any grew."""
    strides, dilations, spatial = _geometry(node, kernel)
    rank = len(spatial)
    result = list(pads)
    for axis, (n, k, s, d) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
        effective = (k - 1) * d + 1
        padded = n + pads[axis] + pads[rank + axis]
        out = -(-(padded - effective) // s) + 1
        if (out - 1) * s >= n + pads[axis]:
            out -= 1
        result[rank + axis] = max((out - 1) * s + effective - n - pads[axis], pads[rank + axis])
        if (n + pads[axis] + result[rank + axis] - effective) // s + 1 != out:
            result[rank + axis] = (out - 1) * s + effective - n - pads[axis]
    if min(result) < 0:
        raise Refused("a rounded-up size that crops its input has no converter")
    return result, result != list(pads)


def _lp_pool(node: Node) -> relax.Expr:
    """(Σ |x|^p)^(1/p) over each window: the mean that counts padding, times the size of the window."""
    kernel = node.integers("kernel_shape", [])
    order = node.integer("p", 2)
    if node.integer("ceil_mode", 0):
        raise Refused("a rounded-up size has no converter here")
    rank = node.rank(0)
    if rank not in _AVERAGE_POOLS:
        raise Refused(f"pooling over {rank - 2} dimensions has no converter")
    strides, dilations, _ = _geometry(node, kernel)
    x = node.input(0)
    raised = op.multiply(x, x) if order == 2 else op.power(op.abs(x), scalar(order, "float32"))
    mean = _AVERAGE_POOLS[rank](
        node.emit(raised),
        pool_size=kernel,
        strides=strides,
        padding=_explicit_pads(node, kernel),
        dilation=dilations,
        count_include_pad=True,
        layout=_LAYOUTS[rank],
    )
    total = op.multiply(mean, scalar(math.prod(kernel), "float32"))
    return op.sqrt(total) if order == 2 else op.power(total, scalar(1.0 / order, "float32"))


def _global(node: Node, function: Callable[..., relax.Expr]) -> relax.Expr:
    return function(node.input(0), list(range(2, node.rank(0))), keepdims=True)


def _global_max(node: Node) -> relax.Expr:
    if node.rank(0) != 4:
        return _global(node, op.max)
    return op.nn.max_pool2d(node.input(0), pool_size=list(node.shape(0)[2:]), layout="NCHW")


def _global_lp(node: Node) -> relax.Expr:
    order, x = node.integer("p", 2), node.input(0)
    axes = list(range(2, node.rank(0)))
    if order == 2:
        return op.sqrt(op.sum(op.multiply(x, x), axes, keepdims=True))
    total = op.sum(op.power(op.abs(x), scalar(order, "float32")), axes, keepdims=True)
    return op.power(total, scalar(1.0 / order, "float32"))


WINDOWS: Mapping[str, Converter] = {
    "AveragePool": lambda node: _pool(_AVERAGE_POOLS, node),
    "Conv": _conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": lambda node: _global(node, op.mean),
    "GlobalLpPool": _global_lp,
    "GlobalMaxPool": _global_max,
    "LpPool": _lp_pool,
    "MatMulInteger": _matmul_integer,
    "MaxPool": lambda node: _pool(_MAX_POOLS, node),
}
