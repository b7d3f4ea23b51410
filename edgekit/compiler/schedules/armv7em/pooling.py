"""Average and maximum pooling, and means over height and width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import tirx

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat
from edgekit.compiler.schedules.armv7em.requantize import LARGEST_EXPONENT
from edgekit.compiler.schedules.armv7em.windows import LARGEST_WINDOW, Reduction, reduce_window
from edgekit.compiler.schedules.kernel import Kernel, Overlap, Request, Variant
from edgekit.compiler.schedules.reading import element_overlaps

__all__ = ["mean_variants", "pool_variants"]


def pool_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """A routine call for each output pixel of an AveragePool or MaxPool; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.AveragePool | op.MaxPool)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    window = operator.window
    if source.shape[3] < 4 or window.dilation != (1, 1) or math.prod(window.kernel) > LARGEST_WINDOW:
        return ()
    if any(border >= size for border, size in zip(window.padding, window.kernel * 2, strict=True)):
        return ()  # A window that lies in the padding altogether has no pixel.
    name = f"armv7em.{operator.NAME}"

    def build() -> Kernel:
        frame = Frame([source], {}, output)
        with frame:
            _emit_pool(frame, operator, source, output)
        return frame.kernel(name, overlaps=_pool_overlaps(operator, source, output))

    return (Variant(name, build),)


def _emit_pool(frame: Frame, operator: op.AveragePool | op.MaxPool, source: Tensor, output: Tensor) -> None:
    batch, height, width, channels = source.shape
    _, rows, columns, _ = output.shape
    average = isinstance(operator, op.AveragePool)
    reduction: Reduction = "average" if average else "maximum"
    size = math.prod(operator.window.kernel)
    if average and _is_inside(operator.window, source, output) and size > 1 and size & (size - 1) == 0:
        reduction = "average_shift"
    with repeat(batch) as image, repeat(rows) as row, repeat(columns) as column:
        top, count_rows = _inside(row, operator.window, 0, height)
        left, count_columns = _inside(column, operator.window, 1, width)
        inside = count_rows * count_columns
        elements, added = inside, tirx.const(0, "int32")
        if isinstance(operator, op.AveragePool) and operator.count_padding:
            elements = tirx.const(size, "int32")
            added = (elements - inside) * operator.zero_point
        if reduction == "average_shift":
            elements, added = size.bit_length() - 1, size // 2
        frame.call(
            reduce_window(reduction, ragged=channels % 4 != 0),
            offset(frame.inputs[0], ((image * height + top) * width + left) * channels),
            offset(frame.output, ((image * rows + row) * columns + column) * output.pitch),
            channels,
            count_rows,
            count_columns,
            (width - count_columns) * channels,
            *((elements, added) if average else ()),
        )
    clamp_output(frame, operator.clamp, output)


def _pool_overlaps(operator: op.AveragePool | op.MaxPool, source: Tensor, output: Tensor) -> list[Overlap]:
    """As element by element, but that the last four channels read up to three again."""
    again = 3 if source.shape[3] % 4 else 0
    found = element_overlaps(operator, [source], output)
    return [Overlap(each.operand, each.distance + again) for each in found]


def _is_inside(window: op.Window, source: Tensor, output: Tensor) -> bool:
    """Whether all windows lie inside the input."""
    reaches = (
        (count - 1) * stride + kernel
        for count, stride, kernel in zip(output.shape[1:3], window.stride, window.kernel, strict=True)
    )
    fits = (reach <= extent for reach, extent in zip(reaches, source.shape[1:3], strict=True))
    return not any(window.padding[:2]) and all(fits)


def _inside(position: Any, window: op.Window, axis: int, size: int) -> tuple[Any, Any]:
    """First input position of a window and how many of its positions lie in the input, along an axis."""
    start = position * window.stride[axis] - window.padding[axis]
    first = tirx.max(start, tirx.const(0, "int32"))
    return first, tirx.min(start + window.kernel[axis], tirx.const(size, "int32")) - first


def mean_variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """Mean over height and width as one window; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Mean)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    if len(source.shape) != 4 or operator.axes != (1, 2) or source.shape[3] < 4:
        return ()
    batch, height, width, channels = source.shape
    elements, exponent = height * width, -operator.rescale.shift
    if elements > LARGEST_WINDOW or not 1 <= exponent <= LARGEST_EXPONENT:
        return ()
    constant = (1 << (exponent - 1)) + (operator.output_zero_point << exponent)
    bias = -2 * elements * operator.input_zero_point
    parameters = np.array([bias, operator.rescale.multiplier, constant, exponent], np.int32)
    name = "armv7em.mean"

    def build() -> Kernel:
        frame = Frame([source], {"parameters": parameters}, output)
        with frame:
            with repeat(batch) as image:
                frame.call(
                    reduce_window("mean", ragged=channels % 4 != 0),
                    offset(frame.inputs[0], image * (elements * channels)),
                    offset(frame.output, image * channels),
                    channels,
                    1,
                    elements,
                    0,
                    frame.constants["parameters"],
                )
            clamp_output(frame, operator.clamp, output)
        return frame.kernel(name)

    return (Variant(name, build),)
