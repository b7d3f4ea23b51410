"""Resizing of images: places and shares are worked out here, so that a board does integer arithmetic only.

Of stored integers the rule is LiteRT's (resize_nearest_neighbor.h, resize_bilinear.h: ResizeBilinearInteger).
Of reals, which ONNX and torch resize, places are exact and shares are rounded to 1/1024 each, where LiteRT
rounds the step between places, an error that grows along the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import operators as op
from edgekit.compiler.lowering.rules.selection import gathered
from edgekit.compiler.lowering.rules.site import (
    Site,
    in_order,
    quantization_of,
    real_operand,
    shape_of,
    with_tensor,
)
from edgekit.compiler.lowering.rules.spatial import channels_last
from edgekit.compiler.lowering.values import NoIntegerForm, Stored, Value

__all__ = ["resize2d"]

Indices = NDArray[np.int32]
Reals = NDArray[np.float64]


def resize2d(site: Site, args: Sequence[Value]) -> Value:
    value = args[0]
    data = value if isinstance(value, Stored) else real_operand(value, "its input", dtypes=("int8", "int16"))
    order = channels_last(str(site.attrs.layout))
    method, mode = str(site.attrs.method), str(site.attrs.coordinate_transformation_mode)
    source = shape_of(site, data)
    pairs = [(source[order[i]], site.shape[order[i]]) for i in (1, 2)]
    integer = isinstance(data, Stored)
    if method == "nearest_neighbor":
        rounding = str(site.attrs.rounding_method)
        places = [
            _litert_nearest(size, extent, mode) if integer else _nearest(size, extent, mode, rounding)
            for size, extent in pairs
        ]
        return gathered(site, data, {order[1]: places[0], order[2]: places[1]})
    if method != "linear":
        raise NoIntegerForm(f"a {method} resize")
    rows, columns = (
        _litert_blend(size, extent, mode) if integer else _blend(size, extent, mode) for size, extent in pairs
    )
    tensor = site.builder.step(
        op.ResizeBilinear(rows, columns),
        (in_order(site, data, order),),
        site.place,
        site.name,
        site.physical(order),
        quantization_of(site, data),
        site.builder.tensors[data.tensor].dtype,
    )
    return with_tensor(data, tensor, order)


def _litert_nearest(size: int, extent: int, mode: str) -> Indices:
    """GetNearestNeighbor, in float32."""
    aligned = mode == "align_corners"
    if mode not in ("align_corners", "asymmetric", "tf_half_pixel_for_nn"):
        raise NoIntegerForm(f"nearest places of the mode {mode}")
    step = (
        np.float32(size - 1) / np.float32(extent - 1)
        if aligned and extent > 1
        else np.float32(size) / np.float32(extent)
    )
    offset = np.float32(0.5 if mode == "tf_half_pixel_for_nn" else 0.0)
    at = (np.arange(extent).astype(np.float32) + offset) * step
    # Places are not negative: rounding half away from zero is rounding half up.
    whole = np.trunc(at)
    rounded = whole + (at - whole >= np.float32(0.5)) if aligned else np.floor(at)
    return np.asarray(np.minimum(rounded, size - 1), np.int32)


def _litert_blend(size: int, extent: int, mode: str) -> op.Blend:
    """ComputeInterpolationValuesInteger: places in steps of 2^-10.

    LiteRT may read beyond the end of an image when the rounded step runs past it; here the last place is.
    """
    if mode not in ("align_corners", "asymmetric", "half_pixel"):
        raise NoIntegerForm(f"bilinear places of the mode {mode}")
    before, after = (size - 1, extent - 1) if mode == "align_corners" and extent > 1 else (size, extent)
    step = (1024 * before + after // 2) // after
    at = np.arange(extent, dtype=np.int64) * step
    if mode == "half_pixel":
        at += step // 2 - 512
    lower = np.maximum(np.trunc(at / 1024).astype(np.int64), 0)
    upper = np.minimum(np.trunc((at + 1023) / 1024).astype(np.int64), size - 1)
    return _blend_of(lower, upper, at - 1024 * lower, size)


def _blend_of(
    lower: NDArray[np.int64], upper: NDArray[np.int64], fraction: NDArray[np.int64], size: int
) -> op.Blend:
    lower = np.minimum(lower, size - 1)
    upper = np.maximum(np.minimum(upper, size - 1), lower)
    # Where both places are one, its share does not matter.
    fraction = np.where(lower == upper, 0, fraction)
    return op.Blend(lower.astype(np.int32), upper.astype(np.int32), fraction.astype(np.int32))


def _places(size: int, extent: int, mode: str) -> Reals:
    """Where each output place lies in the input (ONNX: coordinate_transformation_mode)."""
    at = np.arange(extent, dtype=np.float64)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and extent > 1):
        return (at + 0.5) * (size / extent) - 0.5
    if mode == "pytorch_half_pixel":
        return at * 0.0
    if mode == "align_corners":
        return at * ((size - 1) / (extent - 1) if extent > 1 else 0.0)
    if mode == "asymmetric":
        return at * (size / extent)
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) * (size / extent)
    raise NoIntegerForm(f"places of the mode {mode}")


NUDGE = 1e-6
"""Far less than the distance between a place and a half or whole that it is not, for images below 1000."""


def _nearest(size: int, extent: int, mode: str, rounding: str) -> Indices:
    at = _places(size, extent, mode)
    rounded = {
        "round": np.rint(at),
        "round_prefer_floor": np.ceil(at - 0.5 - NUDGE),
        "round_prefer_ceil": np.floor(at + 0.5 + NUDGE),
        "floor": np.floor(at + NUDGE),
        "ceil": np.ceil(at - NUDGE),
    }.get(rounding)
    if rounded is None:
        raise NoIntegerForm(f"nearest places by {rounding}")
    return np.asarray(np.clip(rounded, 0, size - 1), np.int32)


def _blend(size: int, extent: int, mode: str) -> op.Blend:
    at = np.clip(_places(size, extent, mode), 0, size - 1)
    steps = np.rint(at * 1024).astype(np.int64)
    lower = steps >> 10
    return _blend_of(lower, lower + 1, steps & 1023, size)
