"""The agent, built once for each kind of place where it is tested."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.device import toy


@pytest.fixture(scope="session")
def host_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent with the toy programs for this machine, static as it is shipped."""
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    return toy.build("host", tmp_path_factory.mktemp("host"), flags=("-O2",), link=("-static",))


@pytest.fixture(scope="session")
def sanitized_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    return toy.build("host", tmp_path_factory.mktemp("sanitized"), flags=toy.SANITIZE)


@pytest.fixture(scope="session")
def emulated_image(emulator: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.build(emulator, tmp_path_factory.mktemp(emulator), flags=("-Os",))
