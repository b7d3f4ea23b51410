"""The state of a board around a measurement: what spoils a time, and what does not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgekit.artifacts import Measurement, Serving
from edgekit.profile import under_conditions
from edgekit.profile.conditions import spoiled_by


@dataclass(frozen=True)
class Health:
    machine: str | None = "aarch64"
    kernel: str | None = None
    clock: str | None = "clock_monotonic_raw"
    cores: int | None = 4
    governor: str | None = "performance"
    frequency_khz: int | None = 1_800_000
    temperature_millicelsius: int | None = 55_000
    throttled: int | None = 0


def measured(unit: str = "us", trusted: bool = True) -> Measurement:
    return Measurement(unit, trusted, (1.0,), 1.0, 1.0, 1.0, (), None, None)  # type: ignore[arg-type]


CALM = Health()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Health(governor="ondemand"), Health(governor="ondemand"), ['"ondemand"']),
        (CALM, Health(governor="powersave"), ['"powersave"']),
        (CALM, Health(frequency_khz=600_000), ["from 1,800 to 600 MHz"]),
        (CALM, Health(temperature_millicelsius=80_001), ["80.0 °C"]),
        (Health(throttled=0x1), CALM, ["the firmware says: under-voltage"]),
        (CALM, Health(throttled=0x4), ["the firmware says: throttled"]),
        (CALM, Health(throttled=0x20000), ["since the board was started: the frequency is capped"]),
        (CALM, Health(throttled=0x80008), ["says: at the soft temperature limit"]),
        (Health(governor="ondemand", throttled=0x50005), CALM, ["ondemand", "under-voltage, throttled"]),
    ],
)
def test_what_spoils_a_time(before: Health, after: Health, words: list[str]) -> None:
    reasons = list(spoiled_by(before, after))
    assert len(reasons) == len(words)
    for reason, word in zip(reasons, words, strict=True):
        assert word in reason
    found = under_conditions(measured(), before, after, Serving())
    assert found.trusted is False
    assert found.untrusted_because == tuple(reasons)


@pytest.mark.parametrize(
    "after",
    [CALM, Health(frequency_khz=1_799_000), Health(temperature_millicelsius=80_000),
     Health(governor=None, frequency_khz=None, temperature_millicelsius=None, throttled=None)],
)  # fmt: skip
def test_what_does_not(after: Health) -> None:
    found = under_conditions(measured(), CALM, after, Serving(threads=4, core=2))
    assert found.trusted is True
    assert found.untrusted_because == ()
    assert found.threads == 4
    assert found.conditions is not None
    assert found.conditions.core == 2
    assert found.conditions.frequency_before_khz == 1_800_000
    assert found.conditions.frequency_after_khz == after.frequency_khz


def test_an_untrusted_clock_stays_untrusted() -> None:
    assert under_conditions(measured(trusted=False), CALM, CALM, Serving()).trusted is False


def test_instructions_do_not_depend_on_the_state_of_the_board() -> None:
    hot = Health(governor="ondemand", temperature_millicelsius=99_000)
    found = under_conditions(measured("instructions", False), hot, hot, Serving())
    assert found.untrusted_because == ()
    assert found.conditions is not None


def test_a_board_that_tells_nothing() -> None:
    found = under_conditions(measured(), None, None, Serving())
    assert (found.trusted, found.conditions, found.threads) == (True, None, 1)
