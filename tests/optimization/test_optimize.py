"""The whole loop on real programs of this machine, with a clock that counts."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.compress.channels import ChannelPruning, channel_groups, plan_channels
from edgekit.compress.recipe import load_recipe
from edgekit.compress.training import accumulate_gradients
from edgekit.errors import BudgetError, DeviceError, UsageError
from edgekit.optimization import Optimization
from edgekit.optimization.document import optimize_values
from edgekit.progress import Notice, ProgressEvent
from tests.campaign import campaign_count
from tests.compress.networks import blobs
from tests.optimization.boards import CountingBoard
from tests.optimization.searches import SETTINGS, network, search, write_rows

LATENCY_US = 1000.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of operators of these tests' own; what a search learns does not depend on what is in it."""
    folder = tmp_path_factory.mktemp("operators-cache")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def board() -> CountingBoard:
    return CountingBoard()


@pytest.fixture(scope="module")
def found(cache: Path, board: CountingBoard, tmp_path_factory: pytest.TempPathFactory) -> Optimization:
    """One search that nobody disturbed."""
    return search(tmp_path_factory.mktemp("search"), LATENCY_US, board=board)


def _measured_rows(place: Path) -> list[tuple[str, float]]:
    with sqlite3.connect(place / "search" / "search.sqlite") as database:
        return sorted(database.execute("SELECT candidate, cost FROM measured").fetchall())


def test_the_budget_is_met_as_the_board_measures_it(found: Optimization) -> None:
    assert found.problems == ()
    assert found.raise_for_problems() is found
    assert found.winner.cost <= LATENCY_US < found.baseline.measured.cost
    assert found.deployment.measurement is not None
    assert found.winner.cost == found.deployment.measurement.p50
    assert found.deployment.verification is not None
    assert found.deployment.verification.bit_exact
    # the search saw the same program as the deployment
    assert found.outcome.best.measured is not None
    assert found.winner.cost == found.outcome.best.measured.cost
    start, kept = dict(found.trials[0].candidate.channels), dict(found.outcome.best.candidate.channels)
    assert any(kept[name] < start[name] for name in start)
    assert found.deployment.document.model.parameters < sum(
        one.numel() for one in network().program.parameters()
    )  # type: ignore[attr-defined]


def test_predictions_are_near_what_was_measured(found: Optimization) -> None:
    errors = found.prediction_errors
    assert errors is not None
    assert errors.count == sum(trial.role == "chosen" for trial in found.trials)
    assert errors.worst < 0.05


def test_flashes_and_measurements_are_counted_once(found: Optimization, board: CountingBoard) -> None:
    chosen = sum(trial.role == "chosen" for trial in found.trials)
    assert found.measurements == chosen + 2  # the start before, the deployment after
    # the operators of all designs fit one image; the host is its own reference and is not flashed for that
    assert found.flashes == len(board.measured) == found.measurements + 1
    assert board.measured[0] == "probe"


def test_the_documents_say_what_was_found(found: Optimization) -> None:
    values = optimize_values(found)
    assert json.loads((found.directory / "optimize.json").read_text()) == json.loads(json.dumps(values))
    assert values["schema"] == "edgekit.optimize/1"
    assert values["met"] is True
    test = values["test"]
    assert isinstance(test, dict)
    assert test["rows"] == 150
    assert test["low"] < test["accuracy"] < test["high"] or test["accuracy"] == 1.0
    assert test["looks"] == 1
    front = [trial.measured.cost for trial in found.front if trial.measured is not None]
    assert front == sorted(front)
    page = (found.directory / "report.html").read_text()
    assert "<script" not in page
    assert page.count("<svg") == 2
    assert page.count('<circle class="proposal"') == sum(t.role == "proposal" for t in found.trials)
    names = sorted(path.name for path in (found.directory / "model").iterdir())
    assert names == ["model.onnx", "recipe.toml", "report.json", "weights.safetensors"]


def test_the_recipe_in_the_folder_prunes_to_the_same_channels(found: Optimization) -> None:
    steps = load_recipe(found.directory / "model" / "recipe.toml").steps
    pruning = steps[0]
    assert isinstance(pruning, ChannelPruning)
    program = network()
    module, example = program.program, program.example_inputs or ()
    assert isinstance(module, torch.nn.Module)
    accumulate_gradients(module, blobs(100, 0))
    gone = plan_channels(module, pruning, example)
    for group in channel_groups(module, example):
        kept = group.channels - len(gone.get(group.name, ()))
        assert kept == found.outcome.best.candidate.count(group.name)


@pytest.fixture
def copied(found: Optimization, tmp_path: Path) -> Path:
    """The finished search's folder, to be changed."""
    return Path(shutil.copytree(found.directory.parent, tmp_path / "copied"))


def test_a_finished_search_run_again_measures_nothing_and_looks_at_no_test_row_again(
    found: Optimization, copied: Path
) -> None:
    board = CountingBoard()
    again = search(copied, LATENCY_US, board=board)
    assert board.measured == ["clouds"]  # the deployment
    assert again.trials == found.trials
    assert again.test == found.test
    assert again.looks == 1
    assert again.measurements == found.measurements
    with pytest.raises(UsageError, match="another settings"):
        search(copied, LATENCY_US, settings=replace(SETTINGS, short_rows=64))


def test_neither_the_cache_nor_the_test_rows_nor_a_board_that_comes_and_goes_decide(
    found: Optimization, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other test rows, hard ones: the same network wins and only the report differs. The operators are
    known from before, and the board is gone three times.
    """
    waits: list[float] = []
    monkeypatch.setattr("edgekit.optimization.board.sleep", waits.append)
    heard: list[ProgressEvent] = []
    rows = dict(np.load(found.directory.parent / "rows.npz"))
    module = network().program
    assert isinstance(module, torch.nn.Module)
    rows["x_test"] = np.random.default_rng(0).normal(0, 1, (400, 4)).astype(np.float32)
    rows["y_test"] = module(torch.from_numpy(rows["x_test"])).argmax(1).numpy()
    np.savez(tmp_path / "rows.npz", **rows)

    def sometimes(number: int) -> None:
        if number in (1, 2, 4):
            raise DeviceError("it was unplugged")

    other = search(tmp_path, LATENCY_US, board=CountingBoard(sometimes), progress=heard.append, max_drop=0.0)
    assert other.trials == found.trials
    assert other.winner_accuracy == found.winner_accuracy
    assert other.winner.cost == found.winner.cost
    notices = [event.text for event in heard if isinstance(event, Notice)]
    assert sum("unplugged" in text for text in notices) == 3
    assert len(waits) == 3
    assert waits[0] < waits[1]
    assert other.test is not None
    assert other.test.against_float.before == 1.0
    assert other.test.against_float.points > 0.0
    with pytest.raises(BudgetError, match="points of accuracy are lost on the test rows, 0 are allowed"):
        other.raise_for_problems()


def test_an_impossible_budget_is_refused_before_anything_is_trained(copied: Path) -> None:
    trained: list[object] = []
    with pytest.raises(BudgetError, match=r"smallest one still takes .* the group that binds is") as refused:
        search(copied, 100.0, tried=trained.append)
    assert refused.value.exit_code == 8
    assert trained == []


def test_any_budget_is_met_as_measured_or_refused(found: Optimization, copied: Path) -> None:
    rng = random.Random(5)
    for _ in range(campaign_count(5, 1)):
        budget = round(rng.uniform(150.0, found.baseline.measured.cost), 1)
        refusal, cost = None, 0.0
        try:
            cost = search(copied, budget).raise_for_problems().winner.cost
        except BudgetError as refused:
            refusal = refused.message
        if refusal is None:
            assert 0.0 < cost <= budget
        else:
            assert re.search(r"smallest one still takes|over the budget", refusal)


def test_flashes_that_are_spent_end_the_search_with_the_best_so_far(
    found: Optimization, copied: Path
) -> None:
    board = CountingBoard()
    few = search(copied, 700.0, board=board, max_flashes=found.flashes + 2)
    assert len(board.measured) == 2  # one more candidate, and the deployment
    assert few.flashes == found.flashes + 2
    assert few.baseline.measured.cost > found.winner.cost > few.winner.cost > 700.0
    assert "flashes are spent" in few.problems[0]
    with pytest.raises(UsageError, match="at least 3"):
        search(copied, LATENCY_US, max_flashes=2)


def test_a_board_that_stays_away_is_reported(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("edgekit.optimization.board.sleep", waits.append)

    def gone(number: int) -> None:
        raise DeviceError("it was unplugged")

    with pytest.raises(DeviceError, match="did not come back: it was unplugged"):
        search(copied, 700.0, board=CountingBoard(gone))
    assert sum(waits) == 75.0


def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    found: Optimization, cache: Path, tmp_path: Path
) -> None:
    rng = random.Random(campaign_count(20, 2))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    write_rows(tmp_path / "rows.npz")
    for _ in range(campaign_count(20, 2)):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.optimization.searches", str(tmp_path), str(LATENCY_US)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        events = rng.randrange(6, 45)
        for number, _line in enumerate(process.stdout):
            if number == events:
                break
        try:
            process.wait(rng.uniform(0.0, 0.5))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait(60)
    resumed = search(tmp_path, LATENCY_US)
    assert resumed.trials == found.trials
    assert resumed.winner_accuracy == found.winner_accuracy
    assert resumed.winner.cost == found.winner.cost
    assert resumed.test == found.test
    assert resumed.measurements == found.measurements
    assert _measured_rows(resumed.directory) == _measured_rows(found.directory)
