"""Resizing of images, in fixed point."""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from edgekit.compiler import operators as op
from edgekit.compiler.definitions.stages import OUTPUT, Definition, const
from edgekit.compiler.program import Tensor

__all__ = ["resize_bilinear"]


def resize_bilinear(operator: op.ResizeBilinear, inputs: tuple[Any, ...], output: Tensor) -> Definition:
    data = inputs[0]
    tables = [
        const(f"{name}_{part}", getattr(blend, part))
        for name, blend in (("row", operator.rows), ("column", operator.columns))
        for part in ("lower", "upper", "fraction")
    ]
    top, bottom, down, left, right, across = (table[0] for table in tables)
    # 128 · 2^20 fits 32 bits, 32768 · 2^20 does not.
    wide = "int32" if str(data.dtype) == "int8" else "int64"

    def number(value: int) -> Any:
        return tirx.const(value, wide)

    def along_row(name: str, row: Any) -> Any:
        def value(n: Any, y: Any, x: Any, c: Any) -> Any:
            share = tirx.Cast(wide, across[x])
            first = tirx.Cast(wide, data[n, row[y], left[x], c]) * (number(1024) - share)
            return first + tirx.Cast(wide, data[n, row[y], right[x], c]) * share

        return te.compute(output.shape, value, name=name)

    upper, lower = along_row("upper", top), along_row("lower", bottom)

    def blended(n: Any, y: Any, x: Any, c: Any) -> Any:
        share = tirx.Cast(wide, down[y])
        return upper[n, y, x, c] * (number(1024) - share) + lower[n, y, x, c] * share

    total = te.compute(output.shape, blended, name="total")

    def rounded(*at: Any) -> Any:
        half = number(1 << 19)
        up = tirx.shift_right(total[at] + half, number(20))
        down = -tirx.shift_right(half - total[at], number(20))
        return tirx.Cast(output.dtype, tirx.Select(total[at] > number(0), up, down))

    return Definition(inputs, tuple(tables), te.compute(output.shape, rounded, name=OUTPUT))
