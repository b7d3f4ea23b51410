"""A runner that starts each command in an empty folder, and a document reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgekit.cli.app import app

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in ("EDGEKIT_TARGET", "EDGEKIT_BOARD", "EDGEKIT_TARGETS"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="edgekit")

    return invoke


def document(result: Result) -> dict[str, Any]:
    """stdout must be one JSON object and nothing else."""
    values = json.loads(result.stdout)
    assert isinstance(values, dict)
    return values
