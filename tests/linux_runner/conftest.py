"""The runner built once for each machine, as it is shipped and with faults; a board for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.linux_runner.board import Board
from tests.linux_runner.build import FAULTS, MACHINES, Machine, build_runner


def installed(name: str) -> Machine:
    machine = MACHINES[name]
    if machine.missing():
        pytest.skip(f"not installed: {', '.join(machine.missing())}")
    return machine


@pytest.fixture(scope="session", params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    return installed(request.param)


@pytest.fixture(scope="session")
def host() -> Machine:
    return installed("host")


@pytest.fixture(scope="session")
def runners(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Machine, bool], bytes]:
    built: dict[tuple[str, bool], bytes] = {}

    def get(machine: Machine, faults: bool) -> bytes:
        key = machine.name, faults
        if key not in built:
            flags = (FAULTS,) if faults else ()
            built[key] = build_runner(machine, tmp_path_factory.mktemp(machine.name), *flags).read_bytes()
        return built[key]

    return get


@pytest.fixture
def board(machine: Machine, runners: Callable[[Machine, bool], bytes], tmp_path: Path) -> Board:
    """An empty home, on each machine, for runners as they are shipped."""
    return Board(machine, _home(tmp_path), runners(machine, False))


@pytest.fixture
def host_board(host: Machine, runners: Callable[[Machine, bool], bytes], tmp_path: Path) -> Board:
    return Board(host, _home(tmp_path), runners(host, False))


@pytest.fixture
def faulty_board(
    request: pytest.FixtureRequest, runners: Callable[[Machine, bool], bytes], tmp_path: Path
) -> Board:
    """For runners of the test build, on the machine that an indirect parameter names."""
    machine = installed(request.param)
    return Board(machine, _home(tmp_path), runners(machine, True))


def _home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home
