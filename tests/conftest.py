"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the external test data: EDGEKIT_TEST_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("EDGEKIT_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder} (set EDGEKIT_TEST_DATA)")
    return folder
