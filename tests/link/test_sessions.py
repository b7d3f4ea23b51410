"""Complete sessions over a bad line: each ends with the right answers or with exit 6 or 7, in bounded time,
and the next one on a good line is right.

`EDGEKIT_CAMPAIGN=1 pytest -s tests/link/test_sessions.py` tells how many were right.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.campaign import campaign_count
from tests.device import toy
from tests.link.boards import SpoiledBoard, board_in_an_emulator, board_on_a_pipe, board_on_a_pty
from tests.link.faults import Faults
from tests.link.sessions import Tally, one_board

FIVE_PERCENT = Faults.of_each(0.05)
"""Of the frames suffer each of the seven faults (tests.link.faults says what that comes to)."""

BYTES = Faults.of_each(0.0005, piece_bytes=1)
"""One byte in 2000 suffers each fault: of frames with 1 KiB, one in thirteen gets through."""

Opener = Callable[[Path, Faults, int], AbstractContextManager[SpoiledBoard]]


def sessions(open_board: Opener, image: Path, faults: Faults, count: int, at_once: int) -> Tally:
    """They mostly wait, so several run at once; each is one seed with a board of its own."""
    tally = Tally()
    with ThreadPoolExecutor(min(at_once, count)) as pool:
        done = [
            pool.submit(one_board, partial(open_board, image, faults, seed), seed, tally)
            for seed in range(count)
        ]
    for future in done:
        future.result()
    print(f"\n{open_board.__name__}, pieces of {faults.piece_bytes or 'a frame'}: {tally}")
    assert len(tally.outcomes) == count
    assert set(tally.happened) == set(Faults.kinds())
    assert {outcome.error.exit_code for outcome in tally.outcomes if outcome.error is not None} <= {6, 7}
    return tally


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.build("host", tmp_path_factory.mktemp("link"), flags=("-O2",), link=("-static",))


def test_a_pipe_that_spoils_frames(runner: Path) -> None:
    count = campaign_count(200, 10)
    tally = sessions(board_on_a_pipe, runner, FIVE_PERCENT, count, 25)
    assert tally.right >= 0.95 * count, tally


def test_a_serial_port_that_spoils_frames(runner: Path) -> None:
    count = campaign_count(50, 3)
    tally = sessions(board_on_a_pty, runner, FIVE_PERCENT, count, 25)
    assert tally.right >= 0.8 * count, tally


def test_a_pipe_that_spoils_bytes(runner: Path) -> None:
    count = campaign_count(50, 2)
    tally = sessions(board_on_a_pipe, runner, BYTES, count, 10)
    assert tally.right >= 0.8 * count, tally


@pytest.mark.emulator
def test_an_emulated_board_on_a_bad_serial_line(emulator: str, tmp_path: Path) -> None:
    image = toy.build(emulator, tmp_path, flags=("-Os",))
    count = campaign_count(20, 2)
    tally = sessions(board_in_an_emulator, image, FIVE_PERCENT, count, 2)
    assert tally.right >= 0.8 * count - 1, tally


def test_a_line_that_loses_everything_ends_with_exit_6(runner: Path) -> None:
    tally = Tally()
    one_board(partial(board_on_a_pipe, runner, Faults(drop=1.0), 0), 0, tally)
    (outcome,) = tally.outcomes
    assert outcome.error is not None
    assert outcome.error.exit_code == 6
    assert 20.0 < outcome.took_s < 40.0
