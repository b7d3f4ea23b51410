"""Convolutions a pixel at a time, each the product of its window and the weights.

For what pixel blocks leave: images of fewer pixels than a block, and sums too large for a block's halfwords.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as ir

from edgekit.compiler import operators as op
from edgekit.compiler.program import Program, Step, Tensor
from edgekit.compiler.schedules.armv7em.clamping import clamp_output
from edgekit.compiler.schedules.armv7em.frame import Frame, offset, repeat, word_of_bytes
from edgekit.compiler.schedules.armv7em.memory import copy_bytes, fill_bytes
from edgekit.compiler.schedules.armv7em.requantize import channel_parameters
from edgekit.compiler.schedules.armv7em.vector_product import VectorProduct, is_widened, vector_product
from edgekit.compiler.schedules.kernel import Kernel, Request, Variant

__all__ = ["variants"]

NAME = "armv7em.conv2d_1px"


def variants(program: Program, step: Step, request: Request) -> tuple[Variant, ...]:
    """The variant for a Conv2D step; none where preconditions fail."""
    operator = step.operator
    assert isinstance(operator, op.Conv2D)
    source, output = program.tensors[step.inputs[0]], program.tensors[step.output]
    window = operator.window
    last = (output.shape[2] - 1) * window.stride[1] - window.padding[1]
    if window.dilation[1] != 1 or window.padding[1] >= window.kernel[1] or last >= source.shape[2]:
        return ()  # Columns that do not follow one another, or windows that lie in the padding altogether.
    weights = operator.weights.reshape(output.shape[3], -1)
    parameters = channel_parameters(operator, weights)
    product = vector_product(weights, parameters) if parameters is not None else None
    if product is None:
        return ()

    def build() -> Kernel:
        frame = Frame([source], {"stream": product.stream}, output)
        with frame:
            _emit(frame, operator, source, output, product, request)
        return frame.kernel(NAME)

    return (Variant(NAME, build),)


def _emit(
    frame: Frame,
    operator: op.Conv2D,
    source: Tensor,
    output: Tensor,
    product: VectorProduct,
    request: Request,
) -> None:
    batch, height, width = source.shape[:3]
    rows, columns = output.shape[1:3]
    (down, along), (top, left) = operator.window.stride, operator.window.padding[:2]
    padded = _is_padded(operator.window, source, output)
    direct = not padded and _is_contiguous(operator.window, source) and product.depth == product.k
    window = None if direct else frame.scratch(product.depth)
    widened = is_widened(product.k, request)
    multiply = product.prepare(frame, request, widened=widened, readable=product.depth)
    with repeat(batch) as image, repeat(rows) as row, repeat(columns) as column:
        start = offset(frame.inputs[0], image * (height * width * source.pitch))
        vector = offset(start, (row * down * width + column * along) * source.pitch)
        if window is not None:
            if padded:
                frame.call(fill_bytes(), window, word_of_bytes(operator.input_zero_point), product.depth)
            _copy_window(
                frame, operator.window, source, start, window, row * down - top, column * along - left
            )
            vector = window
        multiply(vector, offset(frame.output, ((image * rows + row) * columns + column) * output.pitch))
    clamp_output(frame, operator.clamp, output)


def _is_padded(window: op.Window, source: Tensor, output: Tensor) -> bool:
    """Whether a window reaches outside the input."""
    reaches = [
        (outputs - 1) * stride + (size - 1) * dilation + 1 > extent
        for outputs, stride, size, dilation, extent in zip(
            output.shape[1:3], window.stride, window.kernel, window.dilation, source.shape[1:3], strict=True
        )
    ]
    return any(window.padding[:2]) or any(reaches)


def _is_contiguous(window: op.Window, source: Tensor) -> bool:
    """Whether the inputs of a window inside the input follow one another."""
    rows, columns = window.kernel
    return rows == 1 or (columns == source.shape[2] and window.dilation[0] == 1)


def _copy_window(
    frame: Frame, window: op.Window, source: Tensor, image: Any, to: Any, top: Any, left: Any
) -> None:
    """What of the window whose first input is at (top, left) lies inside the input, to its place in `to`.

    Inputs in runs have windows of one pixel.
    """
    _, height, width, depth = source.shape
    rows, columns = window.kernel
    first = tirx.max(-left, tirx.const(0, "int32"))
    copied = tirx.min(width - left, tirx.const(columns, "int32")) - first
    with repeat(rows) as tap:
        y = top + tap * window.dilation[0]
        inside = tirx.And(y >= 0, y < height)
        with ir.If(inside), ir.Then():
            frame.call(
                copy_bytes(),
                offset(to, (tap * columns + first) * depth),
                offset(image, (y * width + left + first) * source.pitch),
                copied * depth,
            )
