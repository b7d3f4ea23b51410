"""Every variant of every operator equals the portable schedule, byte for byte, on the emulated cores."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.schedules.batch import compare_on_board
from tests.schedules.cases import OPERATORS, case

pytestmark = pytest.mark.emulator

CASES_EACH = campaign_count(6, 3)
_SEEDS = st.integers(0, 2**40)
# No shrinking: a case names its seed, and the message the one that differs.
_SETTINGS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


@settings(_SETTINGS, max_examples=campaign_count(60, 1))
@given(st.lists(_SEEDS, min_size=CASES_EACH, max_size=CASES_EACH, unique=True))
def test_variants_equal_the_portable_schedule(emulator: str, seeds: list[int]) -> None:
    cases = [case(operator, seed) for operator in sorted(OPERATORS) for seed in seeds]
    with tempfile.TemporaryDirectory() as directory:
        counts = compare_on_board(cases, load_target(emulator), Path(directory))
    assert len(counts) >= len(OPERATORS)


@pytest.mark.parametrize("name", ["mps2-an500", "mps2-an505"])
@settings(_SETTINGS, max_examples=campaign_count(20, 1))
@given(seed=_SEEDS)
def test_other_cores(name: str, emulator: str, seed: int) -> None:
    cases = [case(operator, seed + number) for operator in sorted(OPERATORS) for number in range(2)]
    with tempfile.TemporaryDirectory() as directory:
        compare_on_board(cases, load_target(name), Path(directory))
