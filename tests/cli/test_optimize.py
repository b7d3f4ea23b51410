"""`edgekit optimize` as a user types it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgekit.project import load_project
from tests.cli.conftest import Run, document
from tests.optimization.boards import CountingBoard
from tests.optimization.searches import write_rows

FACTORY = """
import torch
from torch import nn
from edgekit.compress.training import Training, train
from tests.compress.networks import blobs, classifier

def network():
    module = classifier(16)
    train(module, Training(epochs=8, batch_size=32, learning_rate=1e-2), blobs(300, 0), None)
    return module, (torch.zeros(1, 4),)

def jitter(inputs, generator):
    return inputs + 0.01 * torch.randn(inputs.shape, generator=generator)
"""

SETTINGS = """
schema = 1
target = "host"
[model]
path = "clouds:network"
[optimize]
data = "rows.npz"
augment = "clouds:jitter"
step = 0.3
short_rows = 96
batch_size = 32
multiple_of = 2
final_epochs = 1
qat_epochs = 0
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "clouds.py").write_text(FACTORY)
    (tmp_path / "edgekit.toml").write_text(SETTINGS)
    write_rows(tmp_path / "rows.npz")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    importlib.invalidate_caches()
    sys.modules.pop("clouds", None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.optimization import loop

    monkeypatch.setitem(
        loop.optimize.__kwdefaults__,  # type: ignore[arg-type]
        "stages",
        CountingBoard().stages(),
    )


def test_a_folder_with_settings_needs_a_budget_only(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _counted(monkeypatch)
    result = run("optimize", "--max-latency", "1ms", "--json")
    assert result.exit_code == 0, result.stderr
    found = document(result)
    assert found["schema"] == "edgekit.optimize/1"
    assert found["budget"]["cost"] == 1000.0
    assert found["winner"]["cost"] <= 1000.0 < found["baseline"]["cost"]
    assert found["met"] is True
    # the table of trials goes by on stderr
    lines = [line.split() for line in result.stderr.splitlines() if line.startswith("  ")]
    assert lines[0] == ["step", "group", "channels", "predicted", "measured", "accuracy"]
    assert len(lines) == 1 + len(found["trials"])
    assert sum(line[0].endswith("*") for line in lines) == found["measurements"] - 2
    place = project / "build" / "clouds_network-host-optimized"
    assert (place / "report.html").is_file()
    # a budget that nothing meets: exit 8, what it takes, and the group that binds
    refused = run("optimize", "--max-latency", "100us", "--json", "-q")
    assert refused.exit_code == 8
    assert "the group that binds" in document(refused)["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("optimize",), 2, "no budget is given"),
        (("optimize", "--max-latency", "soon"), 2, "--max-latency"),
        (("optimize", "--max-instructions", "1M"), 2, "not instructions"),
        (("optimize", "--max-latency", "1ms", "--target", "mps2-an386"), 2, "--max-instructions"),
        (("optimize", "--max-latency", "1ms", "--guide", "luck"), 2, "measurements or macs"),
        (("optimize", "--max-latency", "1ms", "--augment", "clouds:nothing"), 2, "can't be imported"),
        (("optimize", "m.tflite", "--max-latency", "1ms", "--data", "rows.npz"), 3, "nothing to train"),
        (("optimize", "clouds2:network", "--max-latency", "1ms", "--data", "rows.npz"), 3, "clouds2"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    run: Run, project: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (project / "m.tflite").write_bytes(b"\x20\x00\x00\x00TFL3" + bytes(64))
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    assert words in result.stderr


def test_data_are_asked_for(run: Run, project: Path) -> None:
    (project / "edgekit.toml").unlink()
    result = run("optimize", "clouds:network", "--target", "host", "--max-latency", "1ms")
    assert result.exit_code == 2
    assert "--data" in result.stderr


def test_settings_are_read_strictly(project: Path) -> None:
    found = load_project(project / "edgekit.toml").optimize
    assert (found.step, found.qat_epochs, found.importance) == (0.3, 0, None)
    (project / "edgekit.toml").write_text(SETTINGS + "short_row = 3\n")
    with pytest.raises(Exception, match=r"short_row.*short_rows"):
        load_project(project / "edgekit.toml")
