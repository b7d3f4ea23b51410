"""The JSON document: exactly the schema's fields, null for what was not measured, read back strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.artifacts import Verification
from edgekit.errors import ModelError
from edgekit.report import read_document, to_json, to_values

from . import sample

FIELDS = {
    "": ["schema", "edgekit", "model", "target", "memory", "verify", "accuracy", "profile", "artifacts"],
    "model": ["name", "format", "sha256", "macs", "parameters"],
    "target": ["name", "emulated"],
    "memory": [
        "flash_bytes", "ram_bytes", "arena_bytes", "weights_bytes", "stack_bytes", "flash_limit", "ram_limit",
    ],
    "verify": [
        "mode", "passed", "bit_exact", "samples", "tolerance", "max_abs_error", "first_difference",
    ],
    "accuracy": ["metric", "value", "samples", "measured_on"],
    "profile": [
        "unit", "trusted", "runs", "p10", "p50", "p90", "operators", "threads", "conditions",
        "untrusted_because",
    ],
    "artifacts": ["directory", "image", "manifest"],
}  # fmt: skip
OPERATOR_FIELDS = ["id", "name", "op", "schedule", "macs", "p50"]


def test_fields_are_those_of_the_schema() -> None:
    document, _ = sample.document(sample.network())
    values = json.loads(to_json(document))
    assert values["schema"] == "edgekit.deploy/1"
    assert list(values) == FIELDS[""]
    for section, fields in FIELDS.items():
        if section:
            assert list(values[section]) == fields
    assert [list(operator) for operator in values["profile"]["operators"]] == [OPERATOR_FIELDS] * 8


def test_numbers_are_those_of_the_stages() -> None:
    compiled = sample.network()
    values = json.loads(to_json(sample.document(compiled)[0]))
    assert values["model"]["macs"] == 1_488_768
    assert values["memory"]["stack_bytes"] == 4096
    assert values["profile"]["runs"] == 5
    assert values["profile"]["operators"][2]["p50"] == 512_000 * 6 + 1200
    assert isinstance(values["profile"]["p50"], int)


def test_what_was_not_measured_is_null() -> None:
    document, _ = sample.document(sample.network(), measured=False)
    assert json.loads(to_json(document))["profile"] is None


def test_a_difference_without_a_number_is_null_and_valid_json() -> None:
    broken = Verification("tolerance", False, False, 3, 1e-4, float("nan"), "row 0, output 0")
    document, _ = sample.document(sample.network(), verification=broken)
    values = json.loads(to_json(document), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert values["verify"]["max_abs_error"] is None


def test_hostile_names_stay_ascii_and_come_back(tmp_path: Path) -> None:
    name = "*/<script>\x1b[2J../\u202e"
    document, _ = sample.document(sample.network(name), name=name)
    text = to_json(document)
    assert text.isascii()
    assert "\x1b" not in text
    (tmp_path / "deploy.json").write_text(text)
    assert read_document(tmp_path / "deploy.json") == document


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("edgekit.deploy/1", "edgekit.deploy/2"),
        ('"macs": 1488768,', ""),
        ('"emulated": true', '"emulated": true, "colour": 1'),
        ('"value": 0.8983', '"value": 1.5'),
        ('"flash_bytes": 61440', '"flash_bytes": "61440"'),
        ("{", ""),
    ],
)
def test_another_document_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = to_json(sample.document(sample.network())[0])
    assert old in text
    (tmp_path / "deploy.json").write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=r"deploy\.json"):
        read_document(tmp_path / "deploy.json")


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        read_document(tmp_path / "none.json")


def test_a_section_alone_is_a_part_of_the_document() -> None:
    document, _ = sample.document(sample.network())
    whole = to_values(document)
    assert isinstance(whole, dict)
    assert document.profile is not None
    assert to_values(document.profile) == whole["profile"]
