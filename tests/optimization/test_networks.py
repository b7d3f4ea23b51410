"""The short trainings of a search: which rows they see how often, and what they learn from."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edgekit.compress.apply import Rows
from edgekit.compress.channels import channel_groups
from edgekit.compress.training import Labelled
from edgekit.compression import TorchSource
from edgekit.optimization.networks import search_networks
from edgekit.search.problem import Candidate
from edgekit.search.store import SearchStore
from tests.compress.networks import blobs
from tests.optimization.searches import SETTINGS, network

ROWS = blobs(300, 0)
SEEN: list[int] = []


def _count(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    SEEN.append(len(inputs))
    return inputs


def _train_a_proposal(
    folder: Path, labels: npt.NDArray[np.int64] | None, **changed: object
) -> tuple[float, list[int]]:
    """The start with half of its first layer pruned, taught by rows with these labels: its accuracy, and the
    channels that went.
    """
    program = network()
    assert isinstance(program.program, torch.nn.Module)
    source = TorchSource(program.program, (torch.zeros(1, 4),), "clouds")
    rows = Rows(Labelled(ROWS.x, labels), blobs(120, 1), Labelled(ROWS.x, None))
    SEEN.clear()
    folder.mkdir()
    with closing(SearchStore(folder / "search.sqlite", {"model": "clouds"})) as store:
        settings = replace(SETTINGS, **changed)  # type: ignore[arg-type]
        networks = search_networks(source, rows, store, folder, settings, _count)
        group = networks.groups[0]
        start = Candidate(tuple((one.name, one.channels) for one in networks.groups))
        networks.train(start)
        proposal = start.with_channels(group.name, group.channels // 2, start.key)
        accuracy = networks.train(proposal).accuracy
    return accuracy, json.loads((folder / f"{proposal.key}.json").read_text())["channels"]


@pytest.mark.parametrize(("rows", "epochs"), [(96, 1), (64, 3)])
def test_a_proposal_sees_as_many_rows_as_often_as_the_settings_say(
    tmp_path: Path, rows: int, epochs: int
) -> None:
    _train_a_proposal(tmp_path / "search", ROWS.y, short_rows=rows, short_epochs=epochs)
    assert sum(SEEN) == rows * epochs


def test_labels_teach_by_their_weight(tmp_path: Path) -> None:
    """The labels are all wrong: without weight they do no harm, with all of it they are learned."""
    assert ROWS.y is not None
    wrong = (ROWS.y + 1) % 3
    accuracies = [
        _train_a_proposal(
            tmp_path / f"{weight}", wrong, short_epochs=20, learning_rate=1e-2, label_weight=weight
        )[0]
        for weight in (0.0, 1.0)
    ]
    assert accuracies[0] > 0.9
    assert accuracies[1] < 0.1


def test_without_labels_the_channels_that_matter_least_to_the_answers_go(tmp_path: Path) -> None:
    """The start's own answers as labels choose the same channels, also in the first step."""
    program = network().program
    assert isinstance(program, torch.nn.Module)
    with torch.no_grad():
        answers = program.eval()(torch.from_numpy(ROWS.x)).argmax(1).numpy()
    _, gone = _train_a_proposal(tmp_path / "none", None, short_rows=300)
    _, expected = _train_a_proposal(tmp_path / "answers", answers, short_rows=300)
    assert gone == expected != list(range(8))


def test_a_proposal_that_is_trained_on_keeps_its_channels_and_sees_all_rows(tmp_path: Path) -> None:
    program = network()
    assert isinstance(program.program, torch.nn.Module)
    source = TorchSource(program.program, (torch.zeros(1, 4),), "clouds")
    rows = Rows(ROWS, blobs(120, 1), Labelled(ROWS.x, None))
    with closing(SearchStore(tmp_path / "search.sqlite", {"model": "clouds"})) as store:
        settings = replace(SETTINGS, short_rows=64, long_epochs=3)
        networks = search_networks(source, rows, store, tmp_path, settings, _count)
        start = Candidate(tuple((one.name, one.channels) for one in networks.groups))
        networks.train(start)
        # Several groups at once, from the start.
        pruned = Candidate(tuple((name, count // 2) for name, count in start.channels), start.key)
        short = networks.train(pruned)
        SEEN.clear()
        further = Candidate(pruned.channels, pruned.key)
        longer = networks.train(further)
        assert sum(SEEN) == 3 * len(ROWS)
        assert longer.loss < short.loss
        kept = {
            one.name: one.channels for one in channel_groups(networks.module(further.key), source.example)
        }
        assert kept == dict(pruned.channels)
