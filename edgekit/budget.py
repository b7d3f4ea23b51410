"""What a deployment may cost, checked against what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from edgekit.artifacts import Measurement, MemoryUse
from edgekit.errors import UsageError
from edgekit.target import Target

__all__ = ["Budget"]


Amount = TypeVar("Amount", int, float)


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits that a user set; None is no limit. Bytes, instructions, microseconds."""

    max_instructions: int | None = None
    max_latency_us: float | None = None
    max_flash_bytes: int | None = None
    max_ram_bytes: int | None = None

    def completed_by(self, other: Budget, target: Target) -> Budget:
        """This budget, with `other`'s limits where it has none. A limit of `other` that the target can't
        measure is left out: one edgekit.toml serves emulated and real boards.
        """
        instructions = other.max_instructions if target.unit == "instructions" else None
        latency = None if target.emulated else other.max_latency_us
        return Budget(
            _first(self.max_instructions, instructions),
            _first(self.max_latency_us, latency),
            _first(self.max_flash_bytes, other.max_flash_bytes),
            _first(self.max_ram_bytes, other.max_ram_bytes),
        )

    def check_measurable(self, target: Target) -> None:
        """Refuse, before anything is built, a limit that the target's clock can't decide.

        Raises:
            UsageError: A latency on an emulated board, or instructions on a clock that doesn't count them.
        """
        if self.max_latency_us is not None and target.emulated:
            raise UsageError(
                f"{target.name} is emulated: it counts instructions, and they are no time",
                hint="give --max-instructions instead of --max-latency",
            )
        if self.max_instructions is not None and target.unit != "instructions":
            raise UsageError(
                f"{target.name} measures {target.unit}, not instructions",
                hint="give --max-latency, or an emulated target",
            )

    def misses(self, memory: MemoryUse, measurement: Measurement | None, target: Target) -> tuple[str, ...]:
        """A sentence for each limit that was exceeded. Costs are the median run."""
        found = [
            _miss("flash", memory.flash_bytes, self.max_flash_bytes, "B"),
            _miss("RAM", memory.ram_bytes, self.max_ram_bytes, "B"),
        ]
        if measurement is not None:
            if measurement.unit == "instructions":
                found.append(_miss("instructions", measurement.p50, self.max_instructions, ""))
            else:
                found.append(_miss("latency", _microseconds(measurement, target), self.max_latency_us, "µs"))
        return tuple(sentence for sentence in found if sentence is not None)


def _miss(what: str, value: float, limit: float | None, unit: str) -> str | None:
    if limit is None or value <= limit:
        return None
    return f"{what}: {value:,.0f} {unit}".rstrip() + f" of at most {limit:,.0f} {unit}".rstrip()


def _microseconds(measurement: Measurement, target: Target) -> float:
    return measurement.p50 if measurement.unit == "us" else measurement.p50 * 1e6 / target.clock.hz


def _first(one: Amount | None, other: Amount | None) -> Amount | None:
    return other if one is None else one
