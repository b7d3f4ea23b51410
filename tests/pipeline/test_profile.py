"""Percentiles, units and the check that a table of operators adds up to the run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from edgekit.artifacts import CompiledOperator
from edgekit.errors import VerificationError
from edgekit.profile import TickUnit, default_runs, measure, percentile, tick_unit
from edgekit.target import load_target

INSTRUCTIONS = TickUnit("instructions", 0.625, False)


def operator(number: int) -> CompiledOperator:
    return CompiledOperator(number, f"o{number}", "conv2d", "portable.conv2d", 100, 0, 16, 0, 0, (1, 16))


@dataclass
class Marks:
    stack_bytes: int | None = 300
    arena_bytes: int | None = None


@dataclass
class FakeMeter:
    """Replays ticks, and insists that the inputs are written before each run, since a run destroys them."""

    runs: list[int]
    passes: list[tuple[int, ...]]
    loaded: dict[int, bytes] = field(default_factory=dict)
    written: int = 0

    def write_input(self, index: int, data: bytes, program: int = 0) -> None:
        self.loaded[index] = data
        self.written += 1

    def profile_run(self, program: int = 0) -> int:
        assert self.loaded == {0: b"\x01", 1: b"\x02"}
        self.loaded.clear()
        return self.runs.pop(0)

    def profile_operators(self, program: int = 0) -> tuple[int, ...]:
        assert self.loaded == {0: b"\x01", 1: b"\x02"}
        self.loaded.clear()
        return self.passes.pop(0)

    def high_water(self, program: int = 0) -> Marks:
        return Marks()


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=40), st.floats(0.5, 100))
def test_a_percentile_is_a_measured_value_that_enough_values_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
    below = [value for value in values if value < found]
    assert len(below) < percent / 100 * len(values) + 1e-9


def test_percentiles_of_ten_runs() -> None:
    runs = [float(value) for value in range(10, 0, -1)]
    assert [percentile(runs, percent) for percent in (10, 50, 90, 100)] == [1.0, 5.0, 9.0, 10.0]
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 50)


def test_an_emulated_25_mhz_clock_counts_instructions() -> None:
    unit = tick_unit(load_target("mps2-an386"))
    assert (unit.unit, unit.trusted) == ("instructions", False)
    assert unit.amount(64) == 40.0
    assert unit.amount(3) == 2.0


def test_the_plugin_of_an_emulated_linux_board_counts_instructions_themselves() -> None:
    unit = tick_unit(load_target("rpi4-emulated"))
    assert (unit.unit, unit.trusted, unit.amount(3_000_003)) == ("instructions", False, 3_000_003.0)
    board = tick_unit(load_target("rpi4"))
    assert (board.unit, board.trusted, board.amount(2_000)) == ("us", True, pytest.approx(2.0))


def test_a_cycle_counter_counts_cycles_and_the_host_microseconds() -> None:
    assert tick_unit(load_target("nucleo-f446re")).amount(1234) == 1234.0
    assert tick_unit(load_target("nucleo-f446re")).unit == "cycles"
    host = load_target("host")
    assert tick_unit(host).unit == "us"
    assert tick_unit(host).amount(host.clock.hz) == pytest.approx(1e6)


def test_the_run_comes_from_uninstrumented_runs_and_the_warm_up_does_not_count() -> None:
    meter = FakeMeter([999_999, 1600, 1616, 1584], [(800, 790), (810, 800), (790, 800)])
    done: list[int] = []
    found = measure(
        meter, [operator(0), operator(1)], [b"\x01", b"\x02"], INSTRUCTIONS, runs=3, advanced=done.append
    )
    assert found.runs == (1000.0, 1010.0, 990.0)
    assert (found.p10, found.p50, found.p90) == (990.0, 1000.0, 1010.0)
    assert [item.p50 for item in found.operators] == [500.0, 500.0]
    assert (found.stack_high_water_bytes, found.arena_high_water_bytes) == (300, None)
    assert done == [2, 4, 6]
    assert meter.written == 2 * 7


def test_operators_that_do_not_add_up_are_measured_again_and_then_left_out() -> None:
    meter = FakeMeter([1600] * 4, [(2000, 2000), (800, 800), (801, 799)])
    found = measure(meter, [operator(0), operator(1)], [b"\x01", b"\x02"], INSTRUCTIONS, runs=1)
    assert sum(item.p50 for item in found.operators) == pytest.approx(1000.0, rel=0.02)
    assert len(found.runs) == 2
    wrong = FakeMeter([1600] * 5, [(900, 800)] * 4)
    found = measure(wrong, [operator(0), operator(1)], [b"\x01", b"\x02"], INSTRUCTIONS, runs=1)
    assert found.operators == ()
    assert found.p50 == 1000.0


def test_a_clock_of_time_is_warmed_up_and_read_more_often() -> None:
    time = TickUnit("us", 1.0, True)
    assert default_runs(time) > default_runs(INSTRUCTIONS) == 5
    meter = FakeMeter([5000] * 30 + [1000], [(500, 500)])
    assert measure(meter, [operator(0), operator(1)], [b"\x01", b"\x02"], time, runs=1).runs == (1000.0,)


def test_another_number_of_operators_is_another_image() -> None:
    meter = FakeMeter(runs=[1600, 1600], passes=[(1600,)])
    with pytest.raises(VerificationError, match="1 operators"):
        measure(meter, [operator(0), operator(1)], [b"\x01", b"\x02"], INSTRUCTIONS, runs=1)
