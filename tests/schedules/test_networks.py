"""Random networks on the emulated Cortex-M4 equal the portable schedule: kernels, memory plan and driver."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import Preference
from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.schedules.batch import answers_on_board, answers_on_host
from tests.schedules.networks import random_network

pytestmark = pytest.mark.emulator

EACH = campaign_count(10, 3)


@pytest.mark.parametrize("prefer", ["speed", "ram", "size"])
@pytest.mark.parametrize("batch", range(campaign_count(12, 1)))
def test_networks_equal_the_portable_schedule(batch: int, prefer: Preference, emulator: str) -> None:
    first = 1000 * batch + {"speed": 0, "ram": 300, "size": 600}[prefer]
    networks = [random_network(seed) for seed in range(first, first + EACH)]
    with tempfile.TemporaryDirectory() as directory:
        expected = answers_on_host(networks, Path(directory) / "host")
        answers = answers_on_board(networks, load_target(emulator), Path(directory) / "board", prefer=prefer)
    notes = [network.note for network in networks for _ in network.answers]
    for note, answer, wanted in zip(notes, answers, expected, strict=True):
        np.testing.assert_array_equal(answer, wanted, err_msg=note)
