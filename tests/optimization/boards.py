"""A board for searches: the host's real programs, with a clock that counts work instead of time.

Everything is real but the clock: programs are lowered, compiled, linked and run. What a run costs follows
from the operators' shapes alone, so that a search repeats itself, with a step every four channels as the
kernels of a real core have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from edgekit.artifacts import CompiledOperator, Image, Serving
from edgekit.device import BoardAddress
from edgekit.stages import STAGES, ConnectedBoard, Stages
from edgekit.target import Target

__all__ = ["CountingBoard", "operator_ticks"]

CALL_TICKS = 2_000


def operator_ticks(operator: CompiledOperator) -> int:
    """Ticks of one operator: its MACs, and its output elements in fours."""
    elements = 1
    for size in operator.output_shape:
        elements *= size
    return 1_000 * (3 * operator.macs + 4 * -(-elements // 4)) + 50_000


@dataclass
class CountingBoard:
    """Stages whose board counts. `opened(number)` is called before each session, and may raise."""

    opened: Callable[[int], None] = lambda number: None
    sessions: int = 0
    measured: list[str] = field(default_factory=list)
    """Names of the programs that were flashed."""

    def stages(self) -> Stages:
        return replace(STAGES, open_board=self._open, flash=self._flash)

    @contextmanager
    def _flash(self, target: Target, image: Image, board: BoardAddress | None) -> Iterator[None]:
        self.measured.append(STAGES.load_bundle(image.directory).compiled.name)
        yield None

    @contextmanager
    def _open(
        self, target: Target, image: Image, board: BoardAddress | None, serving: Serving
    ) -> Iterator[ConnectedBoard]:
        self.sessions += 1
        self.opened(self.sessions)
        operators = STAGES.load_bundle(image.directory).compiled.operators
        with STAGES.open_board(target, image, board, serving) as client:
            yield _Counting(client, operators)


class _Counting:
    """A client whose profile is counted."""

    def __init__(self, client: ConnectedBoard, operators: tuple[CompiledOperator, ...]) -> None:
        self._client = client
        self._ticks = tuple(operator_ticks(operator) for operator in operators)

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)

    def profile_run(self, program: int = 0) -> int:
        self._client.profile_run(program)
        return sum(self._ticks) + CALL_TICKS

    def profile_operators(self, program: int = 0) -> tuple[int, ...]:
        self._client.profile_operators(program)
        return self._ticks
