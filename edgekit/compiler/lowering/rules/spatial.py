"""Layouts of images and sequences: every one is stored channels last, and computed on as (N, H, W, C).

A sequence (N, W, C) is an image of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.compiler.lowering.builder import Order
from edgekit.compiler.lowering.rules.site import Site, in_order, integers_of
from edgekit.compiler.lowering.values import NoIntegerForm, Real, Stored

__all__ = ["as_image", "channels_last", "image_shape", "on_image", "paddings_of", "pair_of"]

_SPATIAL = ("HW", "W")


def channels_last(layout: str) -> Order:
    """The order in which a source layout (NCHW, NHWC, NCW, NWC) is stored: N, (H,) W, C."""
    for spatial in _SPATIAL:
        if sorted(layout) == sorted(f"N{spatial}C"):
            return tuple(layout.index(letter) for letter in f"N{spatial}C")
    raise NoIntegerForm(f"data layout {layout}")


def image_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """(N, W, C) and (N, H, W, C) as (N, H, W, C)."""
    return (shape[0], 1 if len(shape) == 3 else shape[1], shape[-2], shape[-1])


def as_image(site: Site, value: Real | Stored, order: Order) -> int:
    """The tensor stored channels last, seen as (N, H, W, C)."""
    source = in_order(site, value, order)
    return site.builder.view(source, image_shape(site.builder.tensors[source].shape))


def on_image(site: Site, tensor: int, order: Order) -> int:
    """A result (N, H, W, C) seen in the shape of the site, stored in `order`."""
    return site.builder.view(tensor, site.physical(order))


def pair_of(values: Any, rank: int) -> tuple[int, int]:
    """Strides, dilations or sizes along (H, W), of one number where there is only W."""
    numbers = integers_of(values)
    return (1, numbers[0]) if rank == 3 else (numbers[0], numbers[1])


def paddings_of(values: Any, rank: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right)."""
    numbers = integers_of(values)
    if rank == 3:
        return (0, numbers[0], 0, numbers[1])
    return (numbers[0], numbers[1], numbers[2], numbers[3])
