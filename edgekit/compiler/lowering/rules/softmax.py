"""Softmax over any axis, which is laid out last."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.artifacts import Quantization
from edgekit.compiler import operators as op
from edgekit.compiler.lowering.builder import Order, axis_last
from edgekit.compiler.lowering.rules.site import Site, in_order, real_operand, rescale_of, same_quantization
from edgekit.compiler.lowering.values import NoIntegerForm, Pending, Value
from edgekit.compiler.softmax import SOFTMAX_MAX_CLASSES, exponential_table

__all__ = ["softmax"]

SOFTMAX_OUTPUT = Quantization(1.0 / 256.0, -128)


def softmax(site: Site, args: Sequence[Value]) -> Value:
    data = real_operand(args[0], "its input")
    rank = len(site.shape)
    axis = int(site.attrs.axis) % rank
    if site.shape[axis] > SOFTMAX_MAX_CLASSES:
        raise NoIntegerForm(f"softmax over more than {SOFTMAX_MAX_CLASSES} values")
    order = axis_last(data.order, axis)

    def emit(quantization: Quantization, clamp: op.Clamp) -> tuple[int, Order]:
        source = in_order(site, data, order)
        rows = site.physical(order)
        try:
            table = exponential_table(data.quantization.scale)
        except ValueError as error:
            raise NoIntegerForm(str(error)) from None
        tensor = site.builder.step(op.Softmax(table), (source,), site.place, site.name, rows, SOFTMAX_OUTPUT)
        if not same_quantization(quantization, SOFTMAX_OUTPUT) or clamp != op.FullRange:
            rescale = rescale_of(SOFTMAX_OUTPUT.scale / quantization.scale)
            change = op.Requantize(SOFTMAX_OUTPUT.zero_point, quantization.zero_point, rescale, clamp)
            tensor = site.builder.step(change, (tensor,), site.place, site.name, rows, quantization)
        return tensor, order

    return Pending(emit, site.shape, site.place)
