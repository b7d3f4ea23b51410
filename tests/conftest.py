"""Fixtures and settings shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.campaign import is_campaign

# A job in the background of a script ignores SIGINT, one under nohup SIGHUP; what a test starts would ignore
# them too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# ONNX Runtime reports models to its makers unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ROOT = Path(__file__).resolve().parents[1]

# A working day's run draws the same examples every time; a campaign draws new ones. No deadline: other work
# may share the machine, and no test is about how fast an example was.
settings.register_profile("edgekit", deadline=None, derandomize=not is_campaign(), database=None)
settings.load_profile("edgekit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_campaign():
        return
    for item in items:
        if item.get_closest_marker("campaign"):
            item.add_marker(pytest.mark.skip(reason="runs under `make campaign` only"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the external test data: EDGEKIT_TEST_DATA, else ../shared/data beside the repository."""
    named = os.environ.get("EDGEKIT_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder} (set EDGEKIT_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def emulator() -> str:
    """Name of the emulated Cortex-M target, where everything that it needs is installed."""
    missing = [tool for tool in ("qemu-system-arm", "arm-none-eabi-gcc") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return "mps2-an386"
