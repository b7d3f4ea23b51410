"""The state of a Linux board around a measurement: reported with the figures, and making them untrusted where
it spoiled them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Protocol

from edgekit.artifacts import Conditions, Measurement, Serving

__all__ = ["HOTTEST_MILLICELSIUS", "Health", "spoiled_by", "under_conditions"]

HOTTEST_MILLICELSIUS: Final = 80_000
"""From 80 °C on a Raspberry Pi lowers its clock (Raspberry Pi documentation, "Frequency management and
thermal control")."""

_FREQUENCY_TOLERANCE: Final = 0.01
_NOW: Final = {
    0: "under-voltage",
    1: "the frequency is capped",
    2: "throttled",
    3: "at the soft temperature limit",
}
_SINCE_START_SHIFT: Final = 16


class Health(Protocol):
    """What a board tells of itself; None is what it can't."""

    @property
    def machine(self) -> str | None: ...
    @property
    def kernel(self) -> str | None: ...
    @property
    def clock(self) -> str | None: ...
    @property
    def cores(self) -> int | None: ...
    @property
    def governor(self) -> str | None: ...
    @property
    def frequency_khz(self) -> int | None: ...
    @property
    def temperature_millicelsius(self) -> int | None: ...
    @property
    def throttled(self) -> int | None: ...


def under_conditions(
    measurement: Measurement, before: Health | None, after: Health | None, serving: Serving
) -> Measurement:
    """`measurement` with the conditions under which it was made.

    A count of instructions does not depend on them: only times become untrusted.
    """
    with_threads = replace(measurement, threads=serving.threads or 1)
    if before is None or after is None:
        return with_threads
    reasons = tuple(spoiled_by(before, after)) if measurement.unit == "us" else ()
    return replace(
        with_threads,
        conditions=Conditions(
            machine=after.machine,
            kernel=after.kernel,
            clock=after.clock,
            cores=after.cores,
            core=serving.core,
            governor=after.governor,
            frequency_before_khz=before.frequency_khz,
            frequency_after_khz=after.frequency_khz,
            temperature_before_millicelsius=before.temperature_millicelsius,
            temperature_after_millicelsius=after.temperature_millicelsius,
            throttled_before=before.throttled,
            throttled_after=after.throttled,
        ),
        untrusted_because=reasons,
        trusted=measurement.trusted and not reasons,
    )


def spoiled_by(before: Health, after: Health) -> Iterator[str]:
    """A sentence for each thing that makes times of these conditions untrusted."""
    for governor in dict.fromkeys((before.governor, after.governor)):
        if governor is not None and governor != "performance":
            yield f'the governor is "{governor}", not "performance": the clock follows the load'
    first, last = before.frequency_khz, after.frequency_khz
    if first is not None and last is not None and abs(first - last) > _FREQUENCY_TOLERANCE * max(first, last):
        yield f"the core's frequency changed from {first / 1000:,.0f} to {last / 1000:,.0f} MHz"
    known = [bits for bits in (before.throttled, after.throttled) if bits is not None]
    yield from _throttling(known)
    hottest = max(
        (t for t in (before.temperature_millicelsius, after.temperature_millicelsius) if t is not None),
        default=None,
    )
    if hottest is not None and hottest > HOTTEST_MILLICELSIUS:
        limit = HOTTEST_MILLICELSIUS // 1000
        yield f"the chip is at {hottest / 1000:.1f} °C, and from {limit} °C on it slows down"


def _throttling(readings: list[int]) -> Iterator[str]:
    """One sentence each for what was so at a reading, and for what was so at some time since the start."""
    seen = 0
    for bits in readings:
        seen |= bits
    now = [name for bit, name in _NOW.items() if seen >> bit & 1]
    earlier = [
        name for bit, name in _NOW.items() if seen >> (bit + _SINCE_START_SHIFT) & 1 and not seen >> bit & 1
    ]
    if now:
        yield f"the firmware says: {', '.join(now)}"
    if earlier:
        yield f"the firmware says, of some time since the board was started: {', '.join(earlier)}"
