"""What a bad line does to bytes, as data: no I/O, no clock of its own.

    bytes ──Cutter──▶ pieces ──Line──▶ (arrives at, bytes)

A *piece* is what a fault hits: a frame of docs/protocol.md (`piece_bytes` 0: everything up to and with the
delimiter after it), or so many bytes. Each piece suffers each fault on its own with that fault's chance. So
"5 % of each" leaves seven frames in ten (0.95^7) untouched and loses or damages one in seven for good
(1 − 0.95^3: dropped, cut or flipped); a round trip of two frames has to be repeated one time in four.

All decisions come from the seed and the number of the piece; time only says when a piece arrives.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, fields
from typing import Final

__all__ = ["Cutter", "Faults", "Line"]

FRAME: Final = 0
_LONGEST_FRAME: Final = 4096
_TRICKLE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances from 0 to 1 that a piece…"""

    drop: float = 0.0
    """… never arrives."""
    duplicate: float = 0.0
    """… arrives twice."""
    reorder: float = 0.0
    """… arrives after one to eight later ones, or after `late_s` when fewer follow."""
    delay: float = 0.0
    """… stops for up to `delay_s`, and everything behind it too."""
    throttle: float = 0.0
    """… trickles with `throttle_bytes_per_s`, and everything behind it waits."""
    cut: float = 0.0
    """… loses its end, its middle or its start."""
    flip: float = 0.0
    """… has a bit flipped."""
    piece_bytes: int = FRAME
    delay_s: float = 0.3
    late_s: float = 0.5
    throttle_bytes_per_s: float = 4000.0

    @staticmethod
    def of_each(chance: float, piece_bytes: int = FRAME) -> Faults:
        return Faults(chance, chance, chance, chance, chance, chance, chance, piece_bytes)

    @staticmethod
    def kinds() -> tuple[str, ...]:
        names = tuple(field.name for field in fields(Faults))
        return names[: names.index("piece_bytes")]


class Cutter:
    """Divides a stream into pieces, however it comes in."""

    def __init__(self, piece_bytes: int) -> None:
        self._size = piece_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        if self._size != FRAME:
            return [data[at : at + self._size] for at in range(0, len(data), self._size)]
        pieces: list[bytes] = []
        self._rest += data
        # A frame has a delimiter before it too: a zero with nothing before it belongs to what follows.
        while (end := self._rest.find(b"\0", len(self._rest) - len(self._rest.lstrip(b"\0")))) >= 0:
            pieces.append(self._rest[: end + 1])
            self._rest = self._rest[end + 1 :]
        if len(self._rest) > _LONGEST_FRAME:  # not a frame of this protocol
            pieces.append(self._rest)
            self._rest = b""
        return pieces


@dataclass(slots=True)
class _Late:
    piece: bytes
    after: int
    """So many more pieces pass first."""
    at_s: float


class Line:
    """One direction of a bad line. `happened` counts the faults; `pieces` what was sent."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self.pieces = 0
        self._faults = faults
        self._random = random.Random(seed)
        self._cutter = Cutter(faults.piece_bytes)
        self._free_at_s = 0.0
        self._late: list[_Late] = []
        self._under_way: list[tuple[float, int, bytes]] = []
        self._number = 0

    def send(self, data: bytes, now_s: float) -> None:
        for piece in self._cutter.feed(data):
            self._send_piece(piece, now_s)

    def arrived(self, now_s: float) -> bytes:
        """What has arrived by now and was not asked for yet."""
        for late in [late for late in self._late if late.at_s <= now_s]:
            self._late.remove(late)
            self._put(late.piece, late.at_s, None)
        parts: list[bytes] = []
        while self._under_way and self._under_way[0][0] <= now_s:
            parts.append(heapq.heappop(self._under_way)[2])
        return b"".join(parts)

    def next_s(self) -> float | None:
        """When something arrives, if nothing more is sent; None when nothing is under way."""
        times = [late.at_s for late in self._late]
        if self._under_way:
            times.append(self._under_way[0][0])
        return min(times, default=None)

    def mend(self) -> None:
        """No faults from now on; what is under way is lost, as when a cable is replaced."""
        self._faults = Faults()
        self._cutter = Cutter(1 << 16)
        self._late.clear()
        self._under_way.clear()
        self._free_at_s = 0.0

    def _send_piece(self, piece: bytes, now_s: float) -> None:
        self.pieces += 1
        # Every piece draws for every fault, so that one fault's chance does not shift the others.
        drawn = {kind: self._random.random() < getattr(self._faults, kind) for kind in Faults.kinds()}
        how = random.Random(self._random.getrandbits(32))
        self.happened.update(kind for kind, hit in drawn.items() if hit)
        if drawn["drop"]:
            piece = b""
        if drawn["cut"] and piece:
            start, end = sorted((how.randrange(len(piece) + 1), how.randrange(len(piece) + 1)))
            piece = how.choice((piece[:start], piece[end:], piece[:start] + piece[end:]))
        if drawn["flip"] and piece:
            at = how.randrange(len(piece))
            piece = piece[:at] + bytes([piece[at] ^ 1 << how.randrange(8)]) + piece[at + 1 :]
        if drawn["duplicate"]:
            self._put(piece, now_s, None)
        if drawn["reorder"]:
            self._late.append(_Late(piece, how.randint(1, 8), now_s + self._faults.late_s))
            return
        wait_s = how.uniform(0.0, self._faults.delay_s) if drawn["delay"] else 0.0
        rate = self._faults.throttle_bytes_per_s if drawn["throttle"] else None
        self._put(piece, now_s + wait_s, rate)
        self._let_late_ones_in(now_s)

    def _let_late_ones_in(self, now_s: float) -> None:
        for late in self._late:
            late.after -= 1
        for late in [late for late in self._late if late.after <= 0]:
            self._late.remove(late)
            self._put(late.piece, now_s, None)

    def _put(self, piece: bytes, at_s: float, bytes_per_s: float | None) -> None:
        at_s = max(at_s, self._free_at_s)
        step = len(piece) if bytes_per_s is None else _TRICKLE_BYTES
        for start in range(0, len(piece), max(step, 1)):
            part = piece[start : start + step]
            if bytes_per_s is not None:
                at_s += len(part) / bytes_per_s
            self._number += 1
            heapq.heappush(self._under_way, (at_s, self._number, part))
        self._free_at_s = at_s
