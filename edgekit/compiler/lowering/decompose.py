"""Relax operators that are put in other words before TVM legalises them.

Some legalise to calls of TVM's runtime (sorting, scans), some to one function for all of several results
(split), and some read out of bounds where an index is negative, which ONNX and torch allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from tvm import relax, te, tirx

__all__ = ["DECOMPOSITIONS"]


def _extent(expression: Any, axis: int) -> int:
    return int(expression.ty.shape[axis])


def _rank(expression: Any) -> int:
    return len(expression.ty.shape)


def _constant(expression: Any) -> np.ndarray[Any, Any] | None:
    data: Any = getattr(expression, "value", None)
    return data.numpy() if hasattr(data, "numpy") else None


def _within(indices: Any, extent: int) -> Any:
    """Indices counted from the end, too, as indices from the start; none leads outside."""
    values = _constant(indices)
    if values is not None:
        return relax.const(np.mod(values, extent).astype(values.dtype), str(values.dtype))
    dtype = str(indices.ty.dtype)
    if dtype.startswith("uint"):
        return indices
    return relax.op.floor_mod(indices, relax.const(extent, dtype))


def _take(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis = 0 if call.attrs.axis is None else int(call.attrs.axis) % _rank(args[0])
    if _constant(args[1]) is None:
        # Wrapping counts from the end, too, and leads nowhere outside.
        return relax.op.take(args[0], args[1], axis, mode="wrap")
    return relax.op.take(args[0], _within(args[1], _extent(args[0], axis)), axis, mode="clip")


def _gather_elements(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis = int(call.attrs.axis) % _rank(args[0])
    return relax.op.gather_elements(args[0], _within(args[1], _extent(args[0], axis)), axis)


def _scatter_elements(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis = int(call.attrs.axis) % _rank(args[0])
    indices = _within(args[1], _extent(args[0], axis))
    return relax.op.scatter_elements(args[0], indices, args[2], axis, str(call.attrs.reduction))


def _coordinates_within(data: Any, indices: Any, skipped: int) -> Any:
    """Tuples of indices along the last axis, each for a dimension of the data behind the first `skipped`."""
    dtype = str(indices.ty.dtype)
    count = _extent(indices, -1)
    extents = np.array([_extent(data, skipped + axis) for axis in range(count)], dtype)
    values = _constant(indices)
    if values is not None:
        return relax.const(np.mod(values, extents).astype(dtype), dtype)
    return relax.op.floor_mod(indices, relax.const(extents, dtype))


def _gather_nd(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    batch = int(call.attrs.batch_dims)
    return relax.op.gather_nd(args[0], _coordinates_within(args[0], args[1], batch), batch)


def _scatter_nd(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    indices = _coordinates_within(args[0], args[1], 0)
    return relax.op.scatter_nd(args[0], indices, args[2], str(call.attrs.reduction))


def _split(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis = int(call.attrs.axis) % _rank(args[0])
    extent = _extent(args[0], axis)
    sections: Any = call.attrs.indices_or_sections
    if hasattr(sections, "__len__"):
        bounds = [0, *(min(int(each), extent) for each in sections), extent]
    else:
        count = int(sections)
        step = -(-extent // count)
        bounds = [min(step * position, extent) for position in range(count + 1)]
    parts = [
        builder.emit(relax.op.strided_slice(args[0], [axis], [begin], [end]))
        for begin, end in pairwise(bounds)
    ]
    return relax.Tuple(parts)


def _batch_norm(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    """x · scale + shift with both worked out here, where all four parameters are constant.

    It is inference whatever the call says of training, as in TVM's own decomposition.
    """
    constants = [_constant(each) for each in args[1:5]]
    if any(each is None for each in constants):
        return relax.Call(call.op, list(args), call.attrs, call.ty_args)
    gamma, beta, mean, variance = (np.asarray(each, np.float64) for each in constants)
    deviation = np.sqrt(variance + float(call.attrs.epsilon))
    scale = (gamma if bool(call.attrs.scale) else 1.0) / deviation
    shift = (beta if bool(call.attrs.center) else 0.0) - mean * scale
    shape = [1] * _rank(args[0])
    shape[int(call.attrs.axis) % len(shape)] = -1
    scaled = relax.op.multiply(args[0], relax.const(scale.reshape(shape).astype(np.float32)))
    result = relax.op.add(builder.emit(scaled), relax.const(shift.reshape(shape).astype(np.float32)))
    return relax.Tuple([builder.emit(result), args[3], args[4]])


def _scan(combine: Callable[[Any, Any], Any], identity: float) -> Callable[[Any, Any, Sequence[Any]], Any]:
    """Each element combined with all before it along the axis."""

    def decompose(builder: Any, call: Any, args: Sequence[Any]) -> Any:
        data = args[0]
        if call.attrs.axis is None:
            data = builder.emit(relax.op.reshape(data, [-1]))
        axis = 0 if call.attrs.axis is None else int(call.attrs.axis) % _rank(data)
        dtype = str(call.attrs.dtype or data.ty.dtype)
        dtype = str(data.ty.dtype) if dtype in ("", "None", "void") else dtype
        exclusive = bool(call.attrs.exclusive)

        def compute(source: Any) -> Any:
            along = te.reduce_axis((0, source.shape[axis]), name="k")
            reducer = te.comm_reducer(combine, lambda kind: tirx.const(identity, kind), name="scan")

            def element(*at: Any) -> Any:
                index = (*at[:axis], along, *at[axis + 1 :])
                before = along < at[axis] if exclusive else along <= at[axis]
                value = tirx.Cast(dtype, source(*index)) if dtype != source.dtype else source(*index)
                return reducer(tirx.Select(before, value, tirx.const(identity, dtype)), axis=along)

            return te.compute(source.shape, element, name="scan")

        return builder.call_te(compute, data, primfunc_name_hint="scan")

    return decompose


def _ranks(source: Any, axis: int, descending: bool) -> Any:
    """The place of each element along the axis when sorted; equal ones stay in order."""
    along = te.reduce_axis((0, source.shape[axis]), name="k")

    def element(*at: Any) -> Any:
        value, other = source(*at), source(*at[:axis], along, *at[axis + 1 :])
        ahead = other > value if descending else other < value
        first = tirx.Or(ahead, tirx.And(tirx.EQ(other, value), along < at[axis]))
        return te.sum(tirx.Select(first, tirx.const(1, "int32"), tirx.const(0, "int32")), axis=along)

    return te.compute(source.shape, element, name="ranks")


def _sorted(source: Any, axis: int, count: int, descending: bool, dtype: str | None) -> Any:
    """The first `count` of the sorted axis: their indices as `dtype`, or without one their values."""
    ranks = _ranks(source, axis, descending)
    extent = int(source.shape[axis])
    along = te.reduce_axis((0, extent), name="i")
    shape = [*source.shape[:axis], count, *source.shape[axis + 1 :]]

    def position(*at: Any) -> Any:
        here = tirx.EQ(ranks(*at[:axis], along, *at[axis + 1 :]), tirx.Cast("int32", at[axis]))
        return te.sum(tirx.Select(here, tirx.Cast("int32", along), tirx.const(0, "int32")), axis=along)

    positions = te.compute(shape, position, name="positions")

    def element(*at: Any) -> Any:
        # Places are no permutation where there are NaNs; no index may lead outside even then.
        index = tirx.min(positions(*at), tirx.const(extent - 1, "int32"))
        return source(*at[:axis], index, *at[axis + 1 :]) if dtype is None else tirx.Cast(dtype, index)

    return te.compute(shape, element, name="sorted")


def _order(
    builder: Any, data: Any, axis: int, count: int, descending: bool, dtype: str | None, name: str
) -> Any:
    def compute(source: Any) -> Any:
        return _sorted(source, axis % _rank(data), count, descending, dtype)

    return builder.call_te(compute, data, primfunc_name_hint=name)


def _sort(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis = int(call.attrs.axis)
    return _order(builder, args[0], axis, _extent(args[0], axis), bool(call.attrs.descending), None, "sort")


def _argsort(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis, dtype = int(call.attrs.axis), str(call.attrs.dtype)
    count = _extent(args[0], axis)
    return _order(builder, args[0], axis, count, bool(call.attrs.descending), dtype, "argsort")


def _topk(builder: Any, call: Any, args: Sequence[Any]) -> Any:
    axis, largest = int(call.attrs.axis), bool(call.attrs.largest)
    extent = _extent(args[0], axis)
    count = extent if int(call.attrs.k) < 1 else min(int(call.attrs.k), extent)
    kind = str(call.attrs.ret_type)
    parts = [
        builder.emit(_order(builder, args[0], axis, count, largest, dtype, "topk"))
        for name, dtype in (("values", None), ("indices", str(call.attrs.dtype)))
        if kind in ("both", name)
    ]
    return relax.Tuple(parts) if kind == "both" else parts[0]


DECOMPOSITIONS: Mapping[str, Callable[[Any, Any, Sequence[Any]], Any]] = {
    "relax.take": _take,
    "relax.gather_elements": _gather_elements,
    "relax.scatter_elements": _scatter_elements,
    "relax.gather_nd": _gather_nd,
    "relax.scatter_nd": _scatter_nd,
    "relax.split": _split,
    "relax.nn.batch_norm": _batch_norm,
    "relax.cumsum": _scan(lambda a, b: a + b, 0),
    "relax.cumprod": _scan(lambda a, b: a * b, 1),
    "relax.sort": _sort,
    "relax.argsort": _argsort,
    "relax.topk": _topk,
}
"""`decompose(builder, call, arguments)` returns the expression that stands for the call."""
