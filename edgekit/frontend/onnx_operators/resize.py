"""Resize and Upsample: TVM's own resize where it says the same, else a gather or a product an axis.

Every mode of ONNX's Resize but the cropping one is linear and works axis by axis, so that what it does along
one axis is a matrix: what ONNX's reference implementation makes of the unit matrix. Nearest neighbour is one
index an output, everything else a product with that matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from tvm import relax

from edgekit.frontend.onnx_node import Array, Converter, Node, Refused, scalar

__all__ = ["RESIZE"]

op = relax.op

MAX_SIDE = 4096


def _sizes(node: Node) -> tuple[list[int], list[float], bool]:
    """(axes, factors as given or implied, whether the factors are what was given)."""
    upsample = node.proto.op_type == "Upsample"
    scales = node.constant(1 if upsample else 2, "scale")
    sizes = None if upsample else node.constant(3, "size")
    shape = node.shape(0)
    chosen = node.integers("axes", range(len(shape)))
    axes = [node.axis(a, len(shape)) for a in chosen]
    if scales is not None and scales.size:
        return axes, [float(s) for s in scales.reshape(-1)], True
    if sizes is None or sizes.size != len(axes):
        raise node.wrong("has neither scales nor sizes")
    return axes, [float(s) for s in sizes.reshape(-1)], False


def _matrix(node: Node, size: int, factor: float, given: bool, part: Sequence[float]) -> Array:
    """(new size, size): the weights of each input element in each output element, along one axis."""
    if size > MAX_SIDE:
        raise Refused(f"an axis of {size} has no converter")
    kept: dict[str, Any] = {
        name: value
        for name, value in node.attributes.items()
        if name not in ("axes", "keep_aspect_ratio_policy")
    }
    operands = ["x", "roi" if part else "", "scales"] if given else ["x", "roi" if part else "", "", "sizes"]
    values: dict[str, Array] = (
        {"scales": np.asarray([factor], dtype=np.float32)}
        if given
        else {"sizes": np.asarray([int(factor)], dtype=np.int64)}
    )
    if part:
        values["roi"] = np.asarray(part, dtype=np.float32)
        # What lies outside counts as 0 here, and is filled behind the products.
        kept["extrapolation_value"] = 0.0
    kept["axes"] = [1]
    inner = onnx.helper.make_node("Resize", operands, ["y"], **kept)
    function = ReferenceEvaluator(inner, opsets={"": max(node.opset, 19)})
    results: Any = function.run(None, {"x": np.eye(size, dtype=np.float32), **values})
    matrix: Array = np.asarray(results[0]).T
    return matrix


def _native(node: Node, matrices: Mapping[int, Array], mode: str, coordinates: str) -> relax.Expr | None:
    """TVM's resize2d, where it is the same: height and width by whole factors, of an image (N, C, H, W)."""
    shape = node.shape(0)
    if len(shape) != 4 or not set(matrices) <= {2, 3} or mode not in ("nearest", "linear"):
        return None
    if coordinates not in ("half_pixel", "asymmetric", "align_corners") or node.integer("antialias", 0):
        return None
    target = [matrices[a].shape[0] if a in matrices else shape[a] for a in (2, 3)]
    if any(t < n or t % n for t, n in zip(target, shape[2:], strict=True)) and coordinates != "align_corners":
        return None
    if coordinates == "align_corners" and min(target) < 2:
        return None
    rounding = ""
    if mode == "nearest":
        rounding = {"round_prefer_floor": "round_prefer_floor", "floor": "floor", "ceil": "ceil"}.get(
            node.text("nearest_mode", "round_prefer_floor"), ""
        )
        if rounding != "floor" or coordinates != "asymmetric":
            return None
    return op.image.resize2d(
        node.input(0),
        tuple(target),
        layout="NCHW",
        method="nearest_neighbor" if mode == "nearest" else "linear",
        coordinate_transformation_mode=coordinates,
        rounding_method=rounding,
    )


def _resize(node: Node) -> relax.Expr:
    if node.dtype(0) != "float32":
        raise Refused(f"{node.dtype(0)} data has no converter here")
    mode = node.text("mode", "nearest")
    upsample = node.proto.op_type == "Upsample" or node.opset < 11
    coordinates = "asymmetric" if upsample else node.text("coordinate_transformation_mode", "half_pixel")
    if node.output_shape is None:
        raise Refused("its output shape is computed, not constant")
    axes, factors, given = _sizes(node)
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        factors = [float(node.output_shape[a]) for a in axes]
    shape = node.shape(0)
    crop = coordinates == "tf_crop_and_resize"
    region = node.constant(1, "region") if crop else None
    if crop and (region is None or region.size != 2 * len(axes)):
        raise node.wrong("has no region to crop")
    matrices = {}
    for position, (axis, factor) in enumerate(zip(axes, factors, strict=True)):
        part = [] if region is None else [float(v) for v in region.reshape(-1)[position :: len(axes)]]
        if part in ([], [0.0, 1.0]) and ((factor == 1.0) if given else (int(factor) == shape[axis])):
            continue
        matrices[axis] = _matrix(node, shape[axis], factor, given, part)
    native = _native(node, matrices, mode, coordinates)
    if native is not None:
        return native
    value = node.input(0)
    for axis, matrix in matrices.items():
        chosen = matrix.argmax(1)
        if mode == "nearest" and np.array_equal(matrix, np.eye(matrix.shape[1], dtype=np.float32)[chosen]):
            value = node.emit(op.take(value, relax.const(chosen.astype(np.int64)), axis, mode="clip"))
            continue
        # The axis last, a product, and back.
        order = [a for a in range(len(shape)) if a != axis] + [axis]
        back = [order.index(a) for a in range(len(shape))]
        last = node.emit(op.permute_dims(value, order))
        product = op.matmul(last, relax.const(np.ascontiguousarray(matrix.T)))
        value = node.emit(op.permute_dims(node.emit(product), back))
    return _filled(node, value, matrices) if crop else value


def _filled(node: Node, value: relax.Expr, matrices: Mapping[int, Array]) -> relax.Expr:
    """The extrapolation value where an output lies outside the cropped input along any axis."""
    shape = [int(d) for d in value.ty.shape]
    inside = np.ones(shape, dtype=bool)
    for axis, matrix in matrices.items():
        along = [1] * len(shape)
        along[axis] = shape[axis]
        inside &= np.any(matrix != 0, axis=1).reshape(along)
    if inside.all():
        return value
    return op.where(relax.const(inside), value, scalar(node.real("extrapolation_value", 0.0), "float32"))


RESIZE: Mapping[str, Converter] = {"Resize": _resize}
