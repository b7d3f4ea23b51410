"""Complete sessions with the toy programs over a bad line: what one does, and how it may end."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from edgekit.device import Client
from edgekit.errors import DeviceError, EdgekitError, VerificationError
from tests.device import toy
from tests.link.boards import SpoiledBoard

__all__ = ["Outcome", "Tally", "complete_session", "one_board"]

LONGEST_S = 300.0
"""No session may take longer, right or given up: 60 s of silence in a run is the longest single wait."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one session over the bad line ended. `error` is None when every answer was there, and right."""

    error: EdgekitError | None
    took_s: float


@dataclass(slots=True)
class Tally:
    """Of many sessions."""

    outcomes: list[Outcome] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    pieces: int = 0

    @property
    def right(self) -> int:
        return sum(outcome.error is None for outcome in self.outcomes)

    def __str__(self) -> str:
        took = sorted(outcome.took_s for outcome in self.outcomes)
        errors = Counter(
            f"exit {outcome.error.exit_code}: {outcome.error.message}"
            for outcome in self.outcomes
            if outcome.error is not None
        )
        return (
            f"{self.right} of {len(took)} right, {sum(errors.values())} gave up; "
            f"median {took[len(took) // 2]:.1f} s, longest {took[-1]:.1f} s; "
            f"{self.pieces} pieces, {dict(self.happened)}; {dict(errors)}"
        )


def complete_session(client: Client, rng: random.Random) -> None:
    """Everything that a deployment asks of a board that has just started; each answer is compared."""
    assert client.connect().program_count >= 2
    assert client.info().model_hash == "aa010203" + "00" * 28
    affine, wide = client.program_info(toy.AFFINE), client.program_info(toy.WIDE)
    assert [tensor.size_bytes for tensor in affine.inputs + affine.outputs] == [490, 12]
    assert [tensor.size_bytes for tensor in wide.inputs + wide.outputs] == [3000, 16, 3000, 16]

    data = rng.randbytes(490)
    client.write_input(0, data)
    client.run()
    runs = client.read_output(0)[-1]  # how often the program has run since the board started
    assert client.read_output(0) == toy.affine_answer(data, runs)
    assert len(client.profile_operators()) == 3
    assert client.operator_checksums() == toy.affine_checksums(data, runs + 2), "none of them ran twice"
    client.profile_run()
    # A run whose every answer was lost may be given up and asked for anew in a smaller frame.
    assert client.read_output(0)[-1] in (runs + 3, runs + 4)
    assert client.read_output(0)[:-1] == toy.affine_answer(data, runs)[:-1]
    marks = client.high_water()
    assert marks.arena_bytes == 1036
    assert marks.stack_bytes is not None

    first, second = rng.randbytes(3000), tuple(rng.getrandbits(32) for _ in range(4))
    client.write_input(0, first, toy.WIDE)
    client.write_input(1, struct.pack("<4I", *second), toy.WIDE)
    client.run(toy.WIDE)
    answer = (client.read_output(0, toy.WIDE), client.read_output(1, toy.WIDE))
    assert answer == toy.wide_answer(first, second)
    assert client.operator_checksums(toy.WIDE) == tuple(zlib.crc32(part) for part in answer)


def one_board(
    open_board: Callable[[], AbstractContextManager[SpoiledBoard]], seed: int, tally: Tally
) -> None:
    """One session over the bad line; then the line is mended, and a new session must go well."""
    rng = random.Random(seed)
    with open_board() as board:
        began = time.monotonic()
        error: EdgekitError | None = None
        try:
            complete_session(Client(board.transport), rng)
        except (DeviceError, VerificationError) as caught:
            error = caught
        took_s = time.monotonic() - began
        assert took_s < LONGEST_S, f"seed {seed} took {took_s:.0f} s"
        tally.outcomes.append(Outcome(error, took_s))
        tally.happened.update(board.lines.happened)
        tally.pieces += board.lines.pieces
        board.mend()
        complete_session(Client(board.transport), rng)
