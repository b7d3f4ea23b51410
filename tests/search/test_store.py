"""The search's file and the table of measured operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.search.problem import Measured, Trained
from edgekit.search.shapes import Design, OperatorKey
from edgekit.search.store import LatencyTable, SearchStore

KEY = OperatorKey("conv2d 1x1 s1 25x5", (64, 64))
IDENTITY = {"model": "aa", "target": "mps2-an386"}


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    store = SearchStore(tmp_path / "search.sqlite", IDENTITY)
    assert store.trained("a") is None
    assert store.measured("a") is None
    store.add_trained("a", Trained(0.91, 0.3), 2.0)
    store.add_measured("a", Measured(1.5e6, 10, 20), [(KEY, 7.0)])
    store.add_designs([Design({"a": 8}, (KEY,))], [(KEY, 9.0)])
    store.add_flash("start")
    # never closed: as after a kill
    again = SearchStore(tmp_path / "search.sqlite", IDENTITY)
    assert again.trained("a") == Trained(0.91, 0.3)
    assert again.measured("a") == Measured(1.5e6, 10, 20)
    assert again.points("a") == ((KEY, 7.0),)
    assert again.points("b") == ()
    assert again.designs() == (Design({"a": 8}, (KEY,)),)
    assert again.points("designs") == ((KEY, 9.0),)
    assert again.flashes() == 1


def test_another_search_is_not_taken_up(tmp_path: Path) -> None:
    SearchStore(tmp_path / "search.sqlite", IDENTITY).close()
    with pytest.raises(UsageError, match="another model"):
        SearchStore(tmp_path / "search.sqlite", IDENTITY | {"model": "bb"})
    (tmp_path / "damaged.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="no search"):
        SearchStore(tmp_path / "damaged.sqlite", IDENTITY)


def test_operators_are_known_by_their_conditions(tmp_path: Path) -> None:
    key = KEY
    table = LatencyTable(tmp_path / "operators.sqlite", {"target": "a", "toolchain": "gcc 12"})
    table.add(
        [(key, "armv7em.conv2d_3px", 100.0), (OperatorKey(key.kind, (32, 64)), "portable.conv2d", 60.0)]
    )
    assert table.points(key.kind) == {(64, 64): 100.0, (32, 64): 60.0}
    assert table.points("conv2d 3x3 s1 25x5") == {}
    other = LatencyTable(tmp_path / "operators.sqlite", {"target": "a", "toolchain": "gcc 13"})
    assert other.points(key.kind) == {}
    table.add([(key, "armv7em.conv2d_4px", 90.0)])
    assert table.points(key.kind)[64, 64] == 90.0
