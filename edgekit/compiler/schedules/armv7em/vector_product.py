"""One vector by a matrix of weights: what fully connected layers are, and convolutions to a single pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.dot_products import (
    CHANNELS,
    dot_products,
    entry_offset,
    pack_channel_fours,
    part_k,
    parts_of,
    widen,
)
from edgekit.compiler.schedules.armv7em.frame import Frame
from edgekit.compiler.schedules.armv7em.memory import copy_bytes
from edgekit.compiler.schedules.armv7em.pixel_blocks import FEW_STEPS, STEPS
from edgekit.compiler.schedules.armv7em.requantize import ChannelParameters, Form
from edgekit.compiler.schedules.kernel import Request

__all__ = ["VectorProduct", "is_widened", "vector_product"]

LARGEST_WIDENED = 256
"""Inputs of a layer that are widened once; more would take more memory than the layer itself."""


def is_widened(k: int, request: Request) -> bool:
    """Whether a vector is best widened once for all channels."""
    return k <= LARGEST_WIDENED and request.prefer != "ram"


@dataclass(frozen=True, slots=True, eq=False)
class VectorProduct:
    """(K,) · (C, K) → (C,), packed."""

    channels: int
    k: int
    parts: int
    stream: NDArray[np.int8]
    form: Form

    @property
    def depth(self) -> int:
        """K filled up to whole parts, as it is read."""
        return self.parts * part_k(self.k, self.parts)

    def prepare(
        self, frame: Frame, request: Request, *, widened: bool, readable: int
    ) -> Callable[[Any, Any], None]:
        """Take scratch; returns what emits the product of the vector at one pointer to another.

        Args:
            readable: bytes that may be read from where a vector begins; less than `depth` costs a copy.
        """
        unrolled = FEW_STEPS if request.prefer == "size" else STEPS
        depth, wide = self.depth, -(-self.channels // CHANNELS) * CHANNELS
        length = part_k(self.k, self.parts)
        padded = frame.scratch(depth) if readable < depth else None
        vector = frame.scratch(2 * depth) if widened else None
        outputs = frame.scratch(wide) if wide != self.channels else None
        routine = dot_products(widened=widened, unrolled=unrolled, form=self.form, in_parts=self.parts > 1)
        part_bytes = (2 * length if widened else length,) if self.parts > 1 else ()

        def emit(inputs: Any, target: Any) -> None:
            if padded is not None:
                frame.call(copy_bytes(), padded, inputs, self.k)
                inputs = padded
            if vector is not None:
                frame.call(widen(), inputs, vector, depth)
                inputs = vector
            frame.call(
                routine,
                inputs,
                frame.constants["stream"],
                target if outputs is None else outputs,
                wide,
                2 * depth if widened else depth,
                entry_offset(length, widened=widened, unrolled=unrolled),
                *part_bytes,
            )
            if outputs is not None:
                frame.call(copy_bytes(), target, outputs, self.channels)

        return emit


def vector_product(weights: NDArray[np.int8], parameters: ChannelParameters) -> VectorProduct | None:
    """(C, K) weights and parameters packed; None where channels cannot share halfwords."""
    channels, k = weights.shape
    parts = parts_of(weights)
    if parts is None:
        return None
    wide, depth = -(-channels // CHANNELS) * CHANNELS, parts * part_k(k, parts)
    filled = np.pad(weights, ((0, wide - channels), (0, depth - k)))
    stream = pack_channel_fours(filled, parameters.filled(wide))
    return VectorProduct(channels, k, parts, stream, parameters.form)
