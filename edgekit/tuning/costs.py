"""What variants of operators cost on a target, kept in the cache folder as `edgekit.tuning/1`.

One file for each set of conditions: target, board, toolchain, compiler. A file that can't be read is as good
as none: what was in it is measured anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit.fsutil import atomic_write
from edgekit.text import file_name

__all__ = ["CostFile", "OperatorKey", "Unit", "VariantCost", "ranked"]

Unit = Literal["instructions", "cycles", "us"]


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """An operator as far as its cost goes: its kind with all its geometry, and its channels apart."""

    kind: str
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VariantCost:
    """What a variant cost on the board, and what the core's documented timing makes of it, in cycles.

    `model_cycles` is None where the target's clock counts time or cycles itself, and without a model.
    """

    variant: str
    cost: float
    model_cycles: int | None = None

    def weight(self, among: Sequence[VariantCost]) -> float:
        """What is compared between variants of an operator: the model's cycles where they are known of each
        one, else the cost.
        """
        modelled = all(other.model_cycles is not None for other in among)
        return float(self.model_cycles) if modelled and self.model_cycles is not None else self.cost


def ranked(costs: Sequence[VariantCost]) -> tuple[VariantCost, ...]:
    """Variants of one operator from the cheapest up; those that cost the same stay in order."""
    return tuple(sorted(costs, key=lambda cost: cost.weight(costs)))


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Cost(_Record):
    variant: str
    cost: float = Field(ge=0, allow_inf_nan=False)
    model_cycles: int | None = Field(default=None, ge=0)


class _Operator(_Record):
    kind: str
    channels: tuple[int, ...]
    costs: tuple[_Cost, ...]
    fastest: str


class _Program(_Record):
    sha256: str
    """Over the program's operators and the limits that the choice had to keep."""
    chosen: tuple[str, ...]


class _File(_Record):
    schema_: Literal["edgekit.tuning/1"] = Field(alias="schema")
    target: str
    unit: Unit
    conditions: dict[str, str]
    operators: tuple[_Operator, ...]
    programs: tuple[_Program, ...]


class CostFile:
    """The costs that are known under some conditions, and the choices that were found to fit."""

    def __init__(self, folder: Path, target: str, unit: Unit, conditions: Mapping[str, str]) -> None:
        """Open or begin one.

        Args:
            folder: made at the first write.
            conditions: all that the costs depend on; see `edgekit.tuning.conditions`.
        """
        digest = hashlib.sha256(json.dumps(dict(sorted(conditions.items()))).encode()).hexdigest()
        self.path = folder / f"{file_name(target)}-{digest[:16]}.json"
        self._target, self._unit, self._conditions = target, unit, dict(conditions)
        self._costs: dict[OperatorKey, dict[str, VariantCost]] = {}
        self._programs: dict[str, tuple[str, ...]] = {}
        self._read()

    def costs(self, key: OperatorKey) -> Mapping[str, VariantCost]:
        """The known costs of an operator by variant."""
        return self._costs.get(key, {})

    def chosen(self, sha256: str) -> tuple[str, ...] | None:
        """The variants that were chosen for a program before, operator by operator."""
        return self._programs.get(sha256)

    def add(self, found: Iterable[tuple[OperatorKey, VariantCost]]) -> None:
        """Write costs. What another process wrote meanwhile stays."""
        self._read()
        for key, cost in found:
            self._costs.setdefault(key, {})[cost.variant] = cost
        self._write()

    def add_program(self, sha256: str, chosen: tuple[str, ...]) -> None:
        """Write the choice for a program that was built and fits."""
        self._read()
        self._programs[sha256] = chosen
        self._write()

    def _read(self) -> None:
        try:
            file = _File.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return
        if file.conditions != self._conditions:
            return
        for operator in file.operators:
            known = self._costs.setdefault(OperatorKey(operator.kind, operator.channels), {})
            for cost in operator.costs:
                known.setdefault(cost.variant, VariantCost(cost.variant, cost.cost, cost.model_cycles))
        for program in file.programs:
            self._programs.setdefault(program.sha256, program.chosen)

    def _write(self) -> None:
        file = _File(
            schema="edgekit.tuning/1",
            target=self._target,
            unit=self._unit,
            conditions=self._conditions,
            operators=tuple(
                _Operator(
                    kind=key.kind,
                    channels=key.channels,
                    costs=tuple(
                        _Cost(variant=cost.variant, cost=cost.cost, model_cycles=cost.model_cycles)
                        for cost in costs.values()
                    ),
                    fastest=ranked(tuple(costs.values()))[0].variant,
                )
                for key, costs in self._costs.items()
            ),
            programs=tuple(_Program(sha256=one, chosen=two) for one, two in self._programs.items()),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, file.model_dump_json(by_alias=True, indent=1).encode())
