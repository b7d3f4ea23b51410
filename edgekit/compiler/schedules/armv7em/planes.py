"""Planes of vertical pairs, from which 3x3 depthwise convolutions are computed, four channels at a time.

`split_rows` takes two input rows apart into a plane a channel, whose words are vertical pairs: the value of
one row in the bottom half, that of the row below in the top half, int16. With a window's pairs P = (w0, w1)
and Q = (w1, w2) for each of its columns, and input rows y…y+3 in planes p = (y, y+1) and q = (y+2, y+3),

    output row y:       p · P  (smlad)  +  q.bottom · Q.top  (smlabt)
    output row y + 1:   p.top · P.bottom (smlatb)  +  q · Q  (smlad)

Weights are doubled, so that sums come out as requantisation takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.schedules.armv7em.instructions import Assembler
from edgekit.compiler.schedules.armv7em.requantize import ChannelParameters

__all__ = [
    "CHANNEL_BYTES",
    "FARTHEST",
    "FARTHEST_LEFT",
    "FARTHEST_PAIR",
    "Planes",
    "Present",
    "pack_channels",
    "split_rows",
]

FARTHEST_LEFT = 6
"""By how many bits more than the doubling weights may be shifted: int16 holds −128 · 2^7."""

CHANNEL_BYTES = 40
"""Of the stream, for each channel: 10 words."""

FARTHEST_PAIR = 1020
FARTHEST = 4095

Present = Literal["both", "upper", "lower"]
"""Which of two rows are in the input; the other is all padding."""


@dataclass(frozen=True, slots=True)
class Planes:
    """Shape of the planes and of the rows they come from and go to.

    In memory: [pair of rows][channel of four][column], words. `columns` is the padded width.
    """

    columns: int
    filled: int
    """Input columns that are copied; the others are padding."""
    channels: int
    """Of the tensors, that is bytes from pixel to pixel of the input."""
    outputs: int
    """Output columns."""
    stride: int
    output_pitch: int
    """Bytes from pixel to pixel of the output."""

    @property
    def channel_bytes(self) -> int:
        return 4 * self.columns

    @property
    def pair_bytes(self) -> int:
        return 16 * self.columns

    @property
    def supported(self) -> bool:
        """Whether all offsets fit their instructions."""
        return (
            self.pair_bytes <= FARTHEST
            and 3 * self.channel_bytes <= FARTHEST
            and 2 * self.channels <= FARTHEST
        )


def pack_channels(weights: NDArray[np.int8], parameters: ChannelParameters) -> NDArray[np.int8]:
    """(3, 3, C) weights and the parameters as the stream: 2b, P of three columns, Q of three, m, c, e."""
    doubled = (2 * weights.astype(np.int16)) << parameters.left.astype(np.int16)
    upper, lower = doubled[[0, 1]], doubled[[1, 2]]
    pairs = np.stack([upper, lower]).transpose(3, 0, 2, 1)  # channel, P or Q, column, half
    words = np.ascontiguousarray(pairs, "<i2").view("<i4").reshape(weights.shape[2], 6)
    rows = parameters.rows().astype("<i4")
    stream = np.concatenate([rows[:, :1], words, rows[:, 1:]], axis=1)
    return np.ascontiguousarray(stream).reshape(-1).view(np.int8)


def split_rows(planes: Planes, present: Present, *, small: bool = False) -> Assembler:
    """void f(const int8_t *upper, const int8_t *lower, int32_t *to); a row that is missing: a word of four
    equal bytes in the place of its pointer.
    """
    code = Assembler(
        f"edgekit_split_{planes.filled}x{planes.channels}_{planes.columns}_{present}"
        f"{'_small' if small else ''}",
        f"Two rows of {planes.filled} pixels to planes of vertical pairs, four channels.\n(upper, lower, to)",
    )
    upper, lower, to, end, u0, u1, l0, l1, first, second, x0, x1 = code.registers(
        "upper lower to end u0 u1 l0 l1 first second x0 x1"
    )
    step = planes.channel_bytes
    code.enter()
    if present == "upper":
        code.mov(l0, lower)
        code.mov(l1, lower)
    elif present == "lower":
        code.mov(u0, upper)
        code.mov(u1, upper)

    def load(pixels: int) -> None:
        for source, values in ((upper, (u0, u1)), (lower, (l0, l1))):
            if (present == "upper" and source is lower) or (present == "lower" and source is upper):
                continue
            if pixels == 2:
                code.ldr(values[1], source, planes.channels)
            moved = pixels * planes.channels
            if moved <= 255:
                code.ldr(values[0], source, post=moved)
            else:
                code.ldr(values[0], source)
                code.add(source, source, moved)

    def store(pixels: int, channel: int) -> None:
        last = channel == 0
        if pixels == 1:
            code.str_(x0, to, channel * step)
        elif channel * step > FARTHEST_PAIR:
            code.str_(x0, to, channel * step)
            code.str_(x1, to, channel * step + 4)
        elif last:
            code.strd(x0, x1, to, post=8)
        else:
            code.strd(x0, x1, to, channel * step)

    def split(pixels: int) -> None:
        load(pixels)
        # Channels 2 and 3 before 0 and 1, whose store moves the pointer.
        for pair in (1, 0):
            for packed, u, low in ((first, u0, l0), (second, u1, l1))[:pixels]:
                if pair:
                    code.pkhtb(packed, low, u, asr=16)
                else:
                    code.pkhbt(packed, u, low, lsl=16)
            for odd in (1, 0):
                for value, packed in ((x0, first), (x1, second))[:pixels]:
                    code.sxtb16(value, packed, ror=8 * odd)
                store(pixels, 2 * pair + odd)

    turns, single = divmod(planes.filled, 2)
    unrolled = 2 if turns % 2 == 0 and turns > 2 and not small else 1
    if turns > unrolled:
        loop = code.new_label("pair")
        code.add(end, to, 8 * turns)
        code.label(loop)
        for _ in range(unrolled):
            split(2)
        code.cmp(to, end)
        code.branch(loop, "ne")
    else:
        for _ in range(turns):
            split(2)
    if single:
        split(1)
    code.leave()
    return code
