"""The file of measured costs: kept, merged, and never trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.tuning.costs import CostFile, OperatorKey, VariantCost

KEY = OperatorKey("conv2d k1x1 s1x1", (4, 8))
CONDITIONS = {"target": "a", "toolchain": "gcc 12"}


def _file(folder: Path, **changed: str) -> CostFile:
    return CostFile(folder, "a", "instructions", {**CONDITIONS, **changed})


def test_what_is_written_is_there_again_under_the_same_conditions_only(tmp_path: Path) -> None:
    file = _file(tmp_path)
    assert not file.costs(KEY)
    file.add([(KEY, VariantCost("slow", 90.0, 120)), (KEY, VariantCost("fast", 60.0, 80))])
    file.add_program("aa", ("fast",))
    again = _file(tmp_path)
    assert list(again.costs(KEY).values()) == [VariantCost("slow", 90.0, 120), VariantCost("fast", 60.0, 80)]
    assert again.chosen("aa") == ("fast",)
    assert again.chosen("bb") is None
    document = json.loads(file.path.read_text())
    assert document["schema"] == "edgekit.tuning/1"
    assert document["conditions"] == CONDITIONS
    assert document["operators"][0]["fastest"] == "fast"
    assert not _file(tmp_path, toolchain="gcc 13").costs(KEY)


def test_two_that_write_keep_each_others_costs(tmp_path: Path) -> None:
    one, other = _file(tmp_path), _file(tmp_path)
    one.add([(KEY, VariantCost("slow", 90.0))])
    other.add([(KEY, VariantCost("fast", 60.0))])
    assert set(_file(tmp_path).costs(KEY)) == {"slow", "fast"}


def _negative() -> bytes:
    operator = {"kind": "k", "channels": [1], "costs": [{"variant": "v", "cost": -1}], "fastest": "v"}
    file = {
        "schema": "edgekit.tuning/1",
        "target": "a",
        "unit": "instructions",
        "conditions": CONDITIONS,
        "operators": [operator],
        "programs": [],
    }
    return json.dumps(file).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"schema": "edgekit.tuning/2"}',
        _negative(),
    ],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    file = _file(tmp_path)
    file.path.write_bytes(content)
    again = _file(tmp_path)
    assert not again.costs(KEY)
    again.add([(KEY, VariantCost("fast", 60.0))])
    assert set(_file(tmp_path).costs(KEY)) == {"fast"}
