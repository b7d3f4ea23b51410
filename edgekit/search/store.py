"""What a search has found out, in one SQLite file: nothing that was written is lost by a kill.

Every trial, every measurement of a whole candidate and every measurement of an operator is a row, written
when it is known. A search that is run again with the same identity takes each of them from here instead of
doing it anew, and so comes to the same end.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from edgekit.errors import UsageError
from edgekit.search.problem import Measured, Trained
from edgekit.search.shapes import Design, OperatorKey
from edgekit.text import printable

__all__ = ["DESIGNS_SOURCE", "LatencyTable", "SearchStore"]

DESIGNS_SOURCE = "designs"
"""Where points come from that no candidate gave."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trained (
    candidate TEXT PRIMARY KEY, accuracy REAL NOT NULL, loss REAL NOT NULL, seconds REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS measured (
    candidate TEXT PRIMARY KEY, cost REAL NOT NULL, flash_bytes INTEGER NOT NULL, ram_bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS points (
    source TEXT NOT NULL, kind TEXT NOT NULL, channels TEXT NOT NULL, cost REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS points_of ON points (source);
CREATE TABLE IF NOT EXISTS designs (channels TEXT NOT NULL, operators TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS flashes (number INTEGER PRIMARY KEY, what TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS looks (winner TEXT PRIMARY KEY, found TEXT NOT NULL);
"""
_TABLE = """
CREATE TABLE IF NOT EXISTS operators (
    conditions TEXT NOT NULL, kind TEXT NOT NULL, channels TEXT NOT NULL, schedule TEXT NOT NULL,
    cost REAL NOT NULL, PRIMARY KEY (conditions, kind, channels)
);
"""


class SearchStore:
    """The file of one search."""

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        """Open or make it.

        Raises:
            UsageError: the file is another search's, or is damaged.
        """
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # A row that was committed survives a kill; a power cut may take the last ones.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
            self._check_identity(identity)
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{printable(str(path))} is no search of edgekit's: {error}", hint="choose another folder"
            ) from error

    def close(self) -> None:
        self._database.close()

    def _check_identity(self, identity: Mapping[str, str]) -> None:
        known = dict(self._database.execute("SELECT name, value FROM identity").fetchall())
        if not known:
            self._database.executemany("INSERT INTO identity VALUES (?, ?)", list(identity.items()))
            return
        different = sorted(name for name in {*known, *identity} if known.get(name) != identity.get(name))
        if different:
            raise UsageError(
                f"{printable(str(self._path))} is a search with another {', '.join(different)}",
                hint="choose another folder with -o, or begin anew with --fresh",
            )

    def trained(self, candidate: str) -> Trained | None:
        row = self._database.execute(
            "SELECT accuracy, loss FROM trained WHERE candidate = ?", (candidate,)
        ).fetchone()
        return None if row is None else Trained(*row)

    def add_trained(self, candidate: str, found: Trained, seconds: float) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO trained VALUES (?, ?, ?, ?)",
            (candidate, found.accuracy, found.loss, seconds),
        )

    def measured(self, candidate: str) -> Measured | None:
        row = self._database.execute(
            "SELECT cost, flash_bytes, ram_bytes FROM measured WHERE candidate = ?", (candidate,)
        ).fetchone()
        return None if row is None else Measured(*row)

    def add_measured(
        self, candidate: str, found: Measured, points: Iterable[tuple[OperatorKey, float]]
    ) -> None:
        """Write what a candidate and its operators cost, both or neither."""
        with self._transaction():
            self._write_points(candidate, points)
            self._database.execute(
                "INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?)",
                (candidate, found.cost, found.flash_bytes, found.ram_bytes),
            )

    def points(self, source: str) -> tuple[tuple[OperatorKey, float], ...]:
        """The operators' costs that this search learned from a candidate, or from its designs."""
        rows = self._database.execute(
            "SELECT kind, channels, cost FROM points WHERE source = ? ORDER BY rowid", (source,)
        ).fetchall()
        return tuple((OperatorKey(kind, tuple(json.loads(channels))), cost) for kind, channels, cost in rows)

    def designs(self) -> tuple[Design, ...]:
        """The networks that this search learns the operators' shapes from; none before they are written."""
        rows = self._database.execute("SELECT channels, operators FROM designs ORDER BY rowid").fetchall()
        return tuple(
            Design(
                json.loads(channels),
                tuple(OperatorKey(kind, tuple(counts)) for kind, counts in json.loads(operators)),
            )
            for channels, operators in rows
        )

    def add_designs(self, designs: Iterable[Design], points: Iterable[tuple[OperatorKey, float]]) -> None:
        """Write them and what their operators cost, both or neither."""
        with self._transaction():
            self._write_points(DESIGNS_SOURCE, points)
            self._database.execute("DELETE FROM designs")
            self._database.executemany(
                "INSERT INTO designs VALUES (?, ?)",
                [
                    (
                        json.dumps(dict(one.channels)),
                        json.dumps([(key.kind, list(key.channels)) for key in one.operators]),
                    )
                    for one in designs
                ],
            )

    def _write_points(self, source: str, points: Iterable[tuple[OperatorKey, float]]) -> None:
        self._database.execute("DELETE FROM points WHERE source = ?", (source,))
        self._database.executemany(
            "INSERT INTO points VALUES (?, ?, ?, ?)",
            [(source, key.kind, json.dumps(list(key.channels)), cost) for key, cost in points],
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def measurements(self) -> int:
        """Whole candidates that were measured."""
        return int(self._database.execute("SELECT COUNT(*) FROM measured").fetchone()[0])

    def flashes(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM flashes").fetchone()[0])

    def add_flash(self, what: str) -> None:
        self._database.execute("INSERT INTO flashes (what) VALUES (?)", (what,))

    def look(self, winner: str) -> str | None:
        """What the test rows said of a winner, where they were asked before."""
        row = self._database.execute("SELECT found FROM looks WHERE winner = ?", (winner,)).fetchone()
        return None if row is None else str(row[0])

    def add_look(self, winner: str, found: str) -> None:
        self._database.execute("INSERT INTO looks VALUES (?, ?)", (winner, found))

    def looks(self) -> int:
        """Winners for which the test rows were asked: of several, the rows have chosen one."""
        return int(self._database.execute("SELECT COUNT(*) FROM looks").fetchone()[0])


class LatencyTable:
    """Measured costs of operators, kept across searches: keyed by what was measured and under which
    conditions (target, board, clock, memory placement, toolchain, edgekit's version).
    """

    def __init__(self, path: Path, conditions: Mapping[str, str]) -> None:
        self._conditions = json.dumps(dict(sorted(conditions.items())))
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(_TABLE)
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{printable(str(path))} is no table of measured operators: {error}", hint="remove it"
            ) from error

    def close(self) -> None:
        self._database.close()

    def points(self, kind: str) -> dict[tuple[int, ...], float]:
        """All measured points of one kind: channels to cost."""
        with closing(
            self._database.execute(
                "SELECT channels, cost FROM operators WHERE conditions = ? AND kind = ?",
                (self._conditions, kind),
            )
        ) as rows:
            return {tuple(json.loads(channels)): cost for channels, cost in rows}

    def add(self, measurements: Iterable[tuple[OperatorKey, str, float]]) -> None:
        """Write (operator, schedule, cost)."""
        self._database.executemany(
            "INSERT OR REPLACE INTO operators VALUES (?, ?, ?, ?, ?)",
            [
                (self._conditions, key.kind, json.dumps(list(key.channels)), schedule, cost)
                for key, schedule, cost in measurements
            ],
        )
