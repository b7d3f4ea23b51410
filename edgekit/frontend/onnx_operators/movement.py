"""What moves, selects or repeats values without computing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from tvm import relax

from edgekit.frontend.onnx_node import Array, Converter, Node, Refused, scalar
from edgekit.frontend.onnx_operators.arithmetic import CAST_TYPES

__all__ = ["MOVEMENT"]

op = relax.op


def _reshape(node: Node) -> relax.Expr:
    if node.output_shape is None:
        raise Refused("its output shape is computed, not constant")
    return op.reshape(node.input(0), node.output_shape)


def _same(node: Node) -> relax.Expr:
    if node.outputs > 1:
        raise Refused("its second output has no converter")
    return node.input(0)


def _dropout(node: Node) -> relax.Expr:
    training = node.constant(2, "training mode")
    if training is not None and bool(training.reshape(-1)[0]):
        raise Refused("its training form has no converter")
    if node.opset < 12 and node.outputs > 1:
        raise Refused("its mask has no converter")
    if node.outputs > 1:
        return [node.input(0), op.full(node.shape(0), scalar(True, "bool"), "bool")]
    return node.input(0)


def _concat(node: Node) -> relax.Expr:
    parts = [node.input(i) for i in range(len(node.inputs)) if 0 not in node.shape(i)]
    if len(parts) < 2:
        return parts[0] if parts else node.input(0)
    return op.concat(parts, axis=node.axis(node.integer("axis", 0), node.rank(0)))


def _transpose(node: Node) -> relax.Expr:
    order = node.integers("perm", list(reversed(range(node.rank(0)))))
    if sorted(order) != list(range(node.rank(0))):
        raise node.wrong("permutes axes that it does not have")
    return op.permute_dims(node.input(0), order) if order else node.input(0)


def _split(node: Node) -> list[relax.Expr]:
    axis = node.axis(node.integer("axis", 0), node.rank(0))
    size, parts = node.shape(0)[axis], len(node.proto.output)
    if node.opset >= 13:
        given = node.constant(1, "list of sizes")
        sizes = None if given is None else [int(v) for v in given.reshape(-1)]
    else:
        sizes = node.integers("split", ()) or None
    if sizes is None:
        step = -(-size // parts)
        sizes = [min(step, size - i * step) for i in range(parts)]
    if len(sizes) != parts or sum(sizes) != size or min(sizes) < 0:
        raise node.wrong(f"splits {size} into {sizes[:8]}")
    shape = node.shape(0)
    nothing = relax.const(np.zeros((*shape[:axis], 0, *shape[axis + 1 :]), node.dtype(0)), node.dtype(0))
    filled = [i for i in range(parts) if sizes[i]]
    if len(filled) < 2:
        return [node.input(0) if i in filled else nothing for i in range(parts)]
    cuts = [int(v) for v in np.cumsum([sizes[i] for i in filled])[:-1]]
    whole = node.emit(op.split(node.input(0), cuts, axis))
    pieces = {i: relax.TupleGetItem(whole, number) for number, i in enumerate(filled)}
    return [pieces.get(i, nothing) for i in range(parts)]


def _slice(node: Node) -> relax.Expr:
    shape = node.shape(0)
    starts, ends = node.constant(1, "start"), node.constant(2, "end")
    axes, steps = node.constant(3, "list of axes"), node.constant(4, "step")
    if starts is None or ends is None:
        raise node.wrong("lacks its start or end")
    count = starts.size
    along = list(range(count)) if axes is None else [node.axis(int(a), len(shape)) for a in axes.reshape(-1)]
    strides = [1] * count if steps is None else [int(s) for s in steps.reshape(-1)]
    if len(along) != count or len(strides) != count or ends.size != count or 0 in strides:
        raise node.wrong("has a start, end, axis or step too many")
    begin, end = [], []
    for axis, first, last, stride in zip(along, starts.reshape(-1), ends.reshape(-1), strides, strict=True):
        # Python's own rules, which are ONNX's; a step backwards past the first element ends at −size − 1.
        low, high, _ = slice(int(first), int(last), stride).indices(shape[axis])
        begin.append(low)
        end.append(high if high >= 0 else -shape[axis] - 1)
    return op.strided_slice(node.input(0), along, begin, end, strides)


def _indices(node: Node, position: int, size: int) -> relax.Expr:
    """Indices along an axis of `size`, counted from 0. Beyond it is an error in ONNX, and clipped here."""
    known = node.known(position)
    if known is not None:
        if known.size and (known.min() < -size or known.max() >= size):
            raise node.wrong(f"reads beyond the {size} elements that are there")
        return relax.const(np.where(known < 0, known + size, known).astype(np.int64), "int64")
    given = node.input(position)
    dtype = node.dtype(position)
    return op.where(op.less(given, scalar(0, dtype)), op.add(given, scalar(size, dtype)), given)


def _gather(node: Node) -> relax.Expr:
    shape = node.shape(0)
    axis = node.axis(node.integer("axis", 0), len(shape))
    known = node.known(1)
    if known is not None and known.size == 1 and -shape[axis] <= int(known.reshape(-1)[0]) < shape[axis]:
        # One index is a slice, which also has an integer form.
        first = int(known.reshape(-1)[0]) % shape[axis]
        part = op.strided_slice(node.input(0), [axis], [first], [first + 1], [1])
        return op.reshape(node.emit(part), (*shape[:axis], *known.shape, *shape[axis + 1 :]))
    indices = node.emit(_indices(node, 1, shape[axis]))
    if node.rank(1) == 1:
        return op.take(node.input(0), indices, axis, mode="clip")
    flat = node.emit(op.take(node.input(0), node.emit(op.reshape(indices, [-1])), axis, mode="clip"))
    return op.reshape(flat, (*shape[:axis], *node.shape(1), *shape[axis + 1 :]))


def _gather_elements(node: Node) -> relax.Expr:
    axis = node.axis(node.integer("axis", 0), node.rank(0))
    return op.gather_elements(node.input(0), node.emit(_indices(node, 1, node.shape(0)[axis])), axis)


def _scatter_elements(node: Node) -> relax.Expr:
    axis = node.axis(node.integer("axis", 0), node.rank(0))
    reduction = {"none": "update"}.get(node.text("reduction", "none"), node.text("reduction", "none"))
    indices = node.emit(_indices(node, 1, node.shape(0)[axis]))
    return op.scatter_elements(node.input(0), indices, node.input(2), axis, reduction)


def _flat_indices(node: Node, batch: int) -> Array:
    """Tuples of indices along the last axis as one index each, into all the leading axes flattened."""
    shape, depth = node.shape(0), node.shape(1)[-1]
    known = node.known(1)
    if known is None:
        raise Refused("its indices are computed, not constant")
    limits = np.asarray(shape[batch : batch + depth], dtype=np.int64)
    if known.size and (np.any(known < -limits) or np.any(known >= limits)):
        raise node.wrong("reads or writes beyond its input")
    values = np.where(known < 0, known + limits, known).astype(np.int64)
    strides = np.cumprod([1, *limits[::-1][:-1]])[::-1]
    flat: Array = (values * strides).sum(-1)
    for axis in range(batch):
        step = np.arange(shape[axis]).reshape([-1, *[1] * (flat.ndim - axis - 1)])
        flat = flat + step * (math.prod(shape[axis + 1 : batch]) * int(np.prod(limits)))
    return flat


def _gather_nd(node: Node) -> relax.Expr:
    batch = node.integer("batch_dims", 0)
    shape, depth = node.shape(0), node.shape(1)[-1]
    flat = _flat_indices(node, batch)
    rest = shape[batch + depth :]
    data = node.emit(op.reshape(node.input(0), (math.prod(shape[: batch + depth]), *rest)))
    taken = node.emit(op.take(data, relax.const(flat.reshape(-1).astype(np.int64)), 0, mode="clip"))
    return op.reshape(taken, (*flat.shape, *rest))


_JOINS = {
    "add": (op.add, 0.0),
    "mul": (op.multiply, 1.0),
    "max": (op.maximum, -np.inf),
    "min": (op.minimum, np.inf),
}


def _scatter_nd(node: Node) -> relax.Expr:
    """Rows of the input, each taken from the updates where one says so, or joined with them in turn."""
    shape, depth = node.shape(0), node.shape(1)[-1]
    reduction, dtype = node.text("reduction", "none"), node.dtype(0)
    flat = _flat_indices(node, 0).reshape(-1)
    rows, rest = math.prod(shape[:depth]), shape[depth:]
    data = node.emit(op.reshape(node.input(0), (rows, *rest)))
    updates = node.emit(op.reshape(node.input(2), (flat.size, *rest)))
    if reduction == "none":
        table = np.arange(rows)
        table[flat] = rows + np.arange(flat.size)  # The last one wins.
        both = node.emit(op.concat([data, updates], axis=0))
        return op.reshape(op.take(both, relax.const(table.astype(np.int64)), 0, mode="clip"), shape)
    if reduction not in _JOINS or (dtype != "float32" and reduction in ("max", "min")):
        raise Refused(f"the reduction {reduction} of {dtype} has no converter")
    join, neutral = _JOINS[reduction]
    padded = node.emit(op.concat([updates, relax.const(np.full((1, *rest), neutral, dtype=dtype))], axis=0))
    seen: dict[int, int] = {}
    tables: list[Array] = []
    for position, row in enumerate(flat):
        turn = seen.get(int(row), 0)
        seen[int(row)] = turn + 1
        if turn == len(tables):
            tables.append(np.full(rows, flat.size))
        tables[turn][row] = position
    if len(tables) > 64:
        raise Refused("more than 64 updates of one row have no converter")
    for table in tables:
        chosen = op.take(padded, relax.const(table.astype(np.int64)), 0, mode="clip")
        data = node.emit(join(data, chosen))
    return op.reshape(data, shape)


def _take_all(node: Node, tables: Mapping[int, Array]) -> relax.Expr:
    """Rearrange along axes by tables of indices."""
    value = node.input(0)
    for axis, table in tables.items():
        value = node.emit(op.take(value, relax.const(table.astype(np.int64)), axis, mode="clip"))
    return value


def _pad(node: Node) -> relax.Expr:
    shape = node.shape(0)
    rank = len(shape)
    mode = node.text("mode", "constant")
    pads, axes = node.constant(1, "padding"), node.constant(3, "list of axes")
    chosen = list(range(rank)) if axes is None else [node.axis(int(a), rank) for a in axes.reshape(-1)]
    if pads is None or pads.size != 2 * len(chosen):
        raise node.wrong("has paddings that do not fit its input")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(chosen):
        before[axis], after[axis] = int(pads.reshape(-1)[i]), int(pads.reshape(-1)[len(chosen) + i])
    value = node.input(0)
    if min(*before, *after) < 0:
        # A negative padding crops.
        begin = [max(-b, 0) for b in before]
        end = [n - max(-a, 0) for n, a in zip(shape, after, strict=True)]
        if any(e <= b for b, e in zip(begin, end, strict=True)) or mode != "constant":
            raise Refused(
                "cropping that leaves nothing, or that is not of constant padding, has no converter"
            )
        value = node.emit(op.strided_slice(value, list(range(rank)), begin, end, [1] * rank))
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    if mode == "constant":
        fill = node.constant(2, "fill value")
        number = 0.0 if fill is None else float(fill.reshape(-1)[0])
        return op.nn.pad(value, [w for pair in widths for w in pair], pad_value=number)
    if mode not in ("reflect", "edge", "wrap"):
        raise node.wrong("pads in an unknown mode")
    tables = {}
    for axis, (low, high) in enumerate(widths):
        if low or high:
            if mode == "reflect" and shape[axis] == 1:
                raise Refused("a reflection of a single element has no converter")
            tables[axis] = np.pad(np.arange(shape[axis]), (low, high), mode=mode)  # type: ignore[call-overload]
    return _take_all(node, tables)


def _tile(node: Node) -> relax.Expr:
    repeats = node.constant(1, "number of repeats")
    if repeats is None:
        raise node.wrong("lacks its number of repeats")
    shape, times = node.shape(0), [int(v) for v in repeats.reshape(-1)]
    if len(times) != len(shape) or min(times, default=1) < 1:
        raise node.wrong("has repeats that do not fit its input")
    return op.tile(node.input(0), times)


def _expand(node: Node) -> relax.Expr:
    wanted = node.constant(1, "shape")
    if wanted is None:
        raise node.wrong("lacks its shape")
    try:
        shape = np.broadcast_shapes(node.shape(0), tuple(int(v) for v in wanted.reshape(-1)))
    except ValueError:
        raise node.wrong("expands to a shape that does not fit its input") from None
    return op.broadcast_to(node.input(0), list(shape))


def _depth_to_space(node: Node) -> relax.Expr:
    n, c, h, w = node.shape(0)
    b = node.integer("blocksize", 0)
    if b < 1 or c % (b * b):
        raise node.wrong(f"has a block of {b} on {c} channels")
    if node.text("mode", "DCR") == "DCR":
        parts = op.permute_dims(op.reshape(node.input(0), (n, b, b, c // b**2, h, w)), [0, 3, 4, 1, 5, 2])
    else:
        parts = op.permute_dims(op.reshape(node.input(0), (n, c // b**2, b, b, h, w)), [0, 1, 4, 2, 5, 3])
    return op.reshape(parts, (n, c // b**2, h * b, w * b))


def _space_to_depth(node: Node) -> relax.Expr:
    n, c, h, w = node.shape(0)
    b = node.integer("blocksize", 0)
    if b < 1 or h % b or w % b:
        raise node.wrong(f"has a block of {b} on {h} by {w}")
    order = [0, 3, 5, 1, 2, 4] if node.text("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    parts = op.permute_dims(op.reshape(node.input(0), (n, c, h // b, b, w // b, b)), order)
    return op.reshape(parts, (n, c * b * b, h // b, w // b))


def _trilu(node: Node) -> relax.Expr:
    k = node.constant(1, "diagonal")
    shift = 0 if k is None else int(k.reshape(-1)[0])
    rows, columns = node.shape(0)[-2:]
    upper = bool(node.integer("upper", 1))
    ones = np.ones((rows, columns), dtype=bool)
    mask = np.triu(ones, shift) if upper else np.tril(ones, shift)
    return op.where(relax.const(mask), node.input(0), scalar(0, node.dtype(0)))


def _one_hot(node: Node) -> relax.Expr:
    depth = node.constant(1, "depth")
    if depth is None:
        raise node.wrong("lacks its depth")
    count = int(depth.reshape(-1)[0])
    rank = node.rank(0) + 1
    axis = node.axis(node.integer("axis", -1), rank)
    indices, dtype = node.input(0), node.dtype(0)
    indices = op.where(op.less(indices, scalar(0, dtype)), op.add(indices, scalar(count, dtype)), indices)
    spread = op.expand_dims(node.emit(indices), axis)
    shape = [1] * rank
    shape[axis] = count
    positions = relax.const(np.arange(count).astype(dtype).reshape(shape))
    values = node.input(2)
    off = op.reshape(op.strided_slice(values, [0], [0], [1], [1]), [])
    on = op.reshape(op.strided_slice(values, [0], [1], [2], [1]), [])
    return op.where(op.equal(spread, positions), on, off)


def _eye_like(node: Node) -> relax.Expr:
    rows, columns = node.shape(0)
    number = node.integer("dtype", 0)
    dtype = CAST_TYPES.get(number) if number else node.dtype(0)
    if dtype is None:
        raise Refused(f"element type {number} has no converter")
    return relax.const(np.eye(rows, columns, k=node.integer("k", 0)).astype(dtype), dtype)


def _constant_of_shape(node: Node) -> relax.Expr:
    raise Refused("its shape is computed, not constant")


def _reverse_sequence(node: Node) -> relax.Expr:
    lengths = node.constant(1, "list of lengths")
    time, batch = node.integer("time_axis", 0), node.integer("batch_axis", 1)
    if lengths is None or {time, batch} != {0, 1}:
        raise node.wrong("lacks its lengths or reverses along an unknown axis")
    shape = node.shape(0)
    order = np.tile(np.arange(shape[time]), (shape[batch], 1))
    for row, length in enumerate(lengths.reshape(-1)):
        order[row, :length] = order[row, :length][::-1]
    flat = (
        np.arange(shape[batch])[:, None] * shape[time] + order
        if batch == 0
        else (order * shape[batch] + np.arange(shape[batch])[:, None]).T
    )
    data = node.emit(op.reshape(node.input(0), (shape[0] * shape[1], *shape[2:])))
    taken = op.take(data, relax.const(flat.reshape(-1).astype(np.int64)), 0, mode="clip")
    return op.reshape(node.emit(taken), shape)


def _compress(node: Node) -> relax.Expr:
    condition = node.constant(1, "condition")
    if condition is None:
        raise node.wrong("lacks its condition")
    chosen = np.flatnonzero(condition.reshape(-1))
    if "axis" not in node.attributes:
        flat = node.emit(op.reshape(node.input(0), [-1]))
        return op.take(flat, relax.const(chosen.astype(np.int64)), 0, mode="clip")
    axis = node.axis(node.integer("axis", 0), node.rank(0))
    return op.take(node.input(0), relax.const(chosen.astype(np.int64)), axis, mode="clip")


MOVEMENT: Mapping[str, Converter] = {
    "Compress": _compress,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": _same,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _reshape,
}
