"""A board that knows what each variant costs and how much memory it has; nothing is built for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from edgekit.artifacts import CompiledModel, Image, MemoryUse, Serving
from edgekit.device import BoardAddress
from edgekit.errors import DeviceError, DoesNotFitError
from edgekit.stages import STAGES, ConnectedBoard, Stages
from edgekit.target import Target

__all__ = ["ScriptedBoard"]


@dataclass
class ScriptedBoard:
    """`ticks` by variant, 1000 for others. `ram` by variant, summed over a program, `limit` in all."""

    ticks: Mapping[str, int] = field(default_factory=dict)
    ram: Mapping[str, int] = field(default_factory=dict)
    limit: int = 1 << 20
    probe_limit: int = 96
    """Variants that fit in one image."""
    fails_at: int | None = None
    """The number of the flash, from 1, at which the board is gone."""
    flashes: int = 0
    built: list[tuple[str, ...]] = field(default_factory=list)
    """Variants of whole programs that were built."""
    _compiled: CompiledModel | None = None

    def stages(self) -> Stages:
        return replace(
            STAGES,
            build_image=self._build,
            flash=self._flash,
            open_board=self._open,
            health=lambda target, image, board: None,
            unmeasurable=lambda target, serving: None,
        )

    def _build(
        self, compiled: CompiledModel, target: Target, directory: Path, provenance: Mapping[str, str]
    ) -> Image:
        names = tuple(operator.schedule for operator in compiled.operators)
        taken = sum(self.ram.get(name, 0) for name in names)
        if compiled.name == "tune":
            if len(names) > self.probe_limit:
                raise DoesNotFitError("too many")
            self._compiled = compiled
        else:
            self.built.append(names)
            if taken > self.limit:
                raise DoesNotFitError("too large", excess_bytes=taken - self.limit)
        memory = MemoryUse(1000, taken, taken, 0, 0, None, self.limit)
        return Image(
            target.name, directory, directory / "firmware.elf", compiled.model_hash, memory, directory
        )

    @contextmanager
    def _flash(self, target: Target, image: Image, board: BoardAddress | None) -> Iterator[None]:
        self.flashes += 1
        if self.flashes == self.fails_at:
            raise DeviceError("unplugged")
        yield None

    @contextmanager
    def _open(
        self, target: Target, image: Image, board: BoardAddress | None, serving: Serving
    ) -> Iterator[ConnectedBoard]:
        assert self._compiled is not None
        ticks = tuple(self.ticks.get(operator.schedule, 1000) for operator in self._compiled.operators)
        client: Any = SimpleNamespace(
            write_input=lambda index, data, program=0: None,
            profile_run=lambda program=0: sum(ticks),
            profile_operators=lambda program=0: ticks,
            high_water=lambda program=0: SimpleNamespace(stack_bytes=None, arena_bytes=None),
        )
        yield cast(ConnectedBoard, client)
