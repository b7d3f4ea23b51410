"""Sums of products in tiles of vector registers: some positions by some channels at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.stages import (
    holds,
    is_identity,
    is_product,
    is_spatial,
    reads_in_step,
    stages,
    variables,
)

__all__ = ["tile_product"]

TILE_REGISTERS = 12
"""Vector registers of eight floats that the sums of a tile take at most; 16 is what AVX2 has in all."""

TILE_CHANNELS = (64, 32, 16, 8, 4)

UNROLLED_WINDOW = 25
"""A reduction of up to this many steps is unrolled: its loops cost more than its work."""


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """The sum of products of a function: axes of its output by what they select of the two operands."""

    stage: Any
    extents: tuple[int, ...]
    reductions: tuple[int, ...]
    positions: tuple[int, ...]
    """Axes that only the first operand depends on."""
    channels: tuple[int, ...]
    """Axes that only the second operand depends on."""
    second: Any
    """The second operand's buffer."""


def _product(sch: Any) -> _Product | None:
    found = [stage for stage in stages(sch) if is_product(sch.get(stage))]
    if len(found) != 1:
        return None
    block = sch.get(found[0])
    spatial = [each for each in block.iter_vars if is_spatial(each)]
    reductions = [each for each in block.iter_vars if not is_spatial(each)]
    if list(block.iter_vars) != [*spatial, *reductions] or not is_identity(block.body.indices, spatial):
        return None
    factor = block.body.value.b
    first, second = ([*variables(load.indices)] for load in (factor.a, factor.b))
    positions: list[int] = []
    channels: list[int] = []
    for axis, each in enumerate(spatial):
        in_first, in_second = holds(first, each.var), holds(second, each.var)
        if in_first != in_second:
            (positions if in_first else channels).append(axis)
    return _Product(
        stage=found[0],
        extents=tuple(int(each.dom.extent) for each in spatial),
        reductions=tuple(int(each.dom.extent) for each in reductions),
        positions=tuple(positions),
        channels=tuple(channels),
        second=factor.b.source,
    )


def tile_product(
    sch: Any, constants: Mapping[int, NDArray[np.generic]]
) -> Mapping[int, NDArray[np.generic]] | None:
    """Schedule the sum of products of a function in tiles; None where there is none that this is for.

    Returns the constants among its parameters that are to be laid out anew, by position.
    """
    product = _product(sch)
    if product is None or not product.extents:
        return None
    consumers = sch.get_consumers(product.stage)
    if len(consumers) > 1 or (consumers and not reads_in_step(sch, product.stage, consumers[0])):
        return None
    channel = max(product.channels, key=lambda axis: product.extents[axis], default=None)
    position = max((axis for axis in product.positions if product.extents[axis] > 1), default=None)
    if channel is not None:
        lanes, rows = _best_tile(
            product.extents[channel], 1 if position is None else product.extents[position]
        )
    else:
        position = None
        channel = len(product.extents) - 1
        lanes, rows = _divisor(product.extents[channel], 16), 1
    if lanes < 4:
        return None
    packed = _pack(sch, product, channel, lanes, constants) if product.channels else {}
    _tile_loops(sch, product, consumers, (channel, lanes), (position, rows))
    return packed


def _divisor(extent: int, largest: int) -> int:
    return max(each for each in range(1, min(extent, largest) + 1) if extent % each == 0)


def _best_tile(channels: int, positions: int) -> tuple[int, int]:
    """Channels and positions of a tile: as many sums as the registers hold, each tile whole."""
    best = (1, 1)
    for lanes in TILE_CHANNELS:
        if channels % lanes == 0:
            rows = _divisor(positions, max(1, TILE_REGISTERS * 8 // max(lanes, 8)))
            if lanes * rows > best[0] * best[1]:
                best = (lanes, rows)
    return best


def _pack(
    sch: Any,
    product: _Product,
    channel: int,
    lanes: int,
    constants: Mapping[int, NDArray[np.generic]],
) -> Mapping[int, NDArray[np.generic]]:
    """Lay constant weights out so that the channels of a tile are side by side."""
    parameters = list(sch.mod["main"].params)
    position = next((index for index, each in enumerate(parameters) if each.same_as(product.second)), None)
    if position is None or position not in constants:
        return {}
    block = sch.get(product.stage)
    indices = block.body.value.b.b.indices
    axis = next(
        (axis for axis, index in enumerate(indices) if index.same_as(block.iter_vars[channel].var)), None
    )
    if axis is None or axis == len(indices) - 1:
        return {}
    operand = next(index for index, region in enumerate(block.reads) if region.source.same_as(product.second))

    def outside_in(*at: Any) -> list[Any]:
        return [at[axis] // lanes, *at[:axis], *at[axis + 1 :], at[axis] % lanes]

    sch.transform_layout(product.stage, ("read", operand), outside_in)
    data = constants[position]
    split = data.reshape(*data.shape[:axis], data.shape[axis] // lanes, lanes, *data.shape[axis + 1 :])
    return {position: np.ascontiguousarray(np.moveaxis(split, (axis, axis + 1), (0, -1)))}


def _tile_loops(
    sch: Any,
    product: _Product,
    consumers: Sequence[Any],
    channel: tuple[int, int],
    position: tuple[int | None, int],
) -> None:
    stage = product.stage
    if consumers:
        output = consumers[0]
        sch.set_scope(stage, 0, "local")
    else:
        output = sch.cache_write(stage, 0, "local")
    if channel[0] != len(product.extents) - 1:
        sch.transform_layout(
            stage, ("write", 0), lambda *at: [*at[: channel[0]], *at[channel[0] + 1 :], at[channel[0]]]
        )
    loops = list(sch.get_loops(output))
    outer, inner = list(loops), []
    for axis, size in (position, channel):
        if axis is not None and size > 1:
            outer[axis], part = sch.split(loops[axis], [None, size])
            inner.append((axis, part))
    # What lies side by side in memory is written last.
    inner.sort(key=lambda each: each[0])
    sch.reorder(*outer, *(part for _, part in inner))
    sch.compute_at(stage, outer[-1], preserve_unit_loops=True)
    inside = list(sch.get_loops(stage))[len(outer) :]
    spatial, reductions = inside[: len(product.extents)], inside[len(product.extents) :]
    tiled = [spatial[axis] for axis, size in (position, channel) if axis is not None and size > 1]
    units = [loop for loop in spatial if not any(loop.same_as(each) for each in tiled)]
    sch.reorder(*units, *reductions, *tiled)
    sch.vectorize(tiled[-1])
    for loop in tiled[:-1]:
        sch.unroll(loop)
    sch.decompose_reduction(stage, reductions[0])
    if math.prod(product.reductions) <= UNROLLED_WINDOW:
        for loop in list(sch.get_loops(stage))[-len(tiled) - len(reductions) : -len(tiled)]:
            sch.unroll(loop)
    written = list(sch.get_loops(output))[-len(inner) :]
    if inner[-1][0] == channel[0]:
        sch.vectorize(written[-1])
        for loop in written[:-1]:
            sch.unroll(loop)
    else:
        for loop in written:
            sch.unroll(loop)
