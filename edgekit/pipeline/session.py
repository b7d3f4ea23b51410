"""A board that stays connected while an application gives it rows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.arrays import dequantized
from edgekit.artifacts import CompiledModel, TensorSpec
from edgekit.data import Rows
from edgekit.pipeline.answers import Array, given_rows
from edgekit.pipeline.board import BoardPlace, address_of, connected, serving_of
from edgekit.progress import Progress, Step, silent, step
from edgekit.stages import STAGES, ConnectedBoard, Stages
from edgekit.verify import infer

__all__ = ["BoardSession", "connect"]


class BoardSession:
    """A program on a connected board, from `connect`. Threads may share it: their rows take turns."""

    def __init__(self, board: ConnectedBoard, compiled: CompiledModel) -> None:
        self._board = board
        self._compiled = compiled
        self._turn = threading.Lock()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape, stored type, scale and zero point of each input."""
        return self._compiled.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._compiled.outputs

    def run(self, *inputs: npt.ArrayLike, dequantize: bool = False) -> tuple[Array, ...]:
        """Run one row or several on the board.

        Args:
            inputs: One array an input: one row of the input's shape, or (N, …) rows; stored integers, or
                reals as float.
            dequantize: Reals as float32 instead of stored integers.

        Returns:
            One array (N, *shape) an output.

        Raises:
            ModelError: The arrays don't fit the inputs.
            DeviceError: The board is gone or crashed; connect again.
        """
        answers = self.answer(given_rows(inputs, self.inputs))
        if not dequantize:
            return answers
        return tuple(dequantized(values, spec) for values, spec in zip(answers, self.outputs, strict=True))

    def answer(self, rows: Rows, advanced: Callable[[int], None] = lambda count: None) -> tuple[Array, ...]:
        """The same for rows in the model's own types; `advanced` is told after each how many there were."""
        answers: list[tuple[Array, ...]] = []
        for row in range(len(rows)):
            with self._turn:
                answers.append(infer(self._board, rows.input_bytes(row), self.outputs))
            advanced(row + 1)
        return tuple(np.stack(values) for values in zip(*answers, strict=True))


@contextmanager
def connect(
    directory: str | Path,
    *,
    board: str | None = None,
    threads: int | None = None,
    core: int | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Iterator[BoardSession]:
    """The board that a bundle was flashed to, until the end of the context; an emulated one is started.

    Args:
        board: `ssh:…` or `serial:…` as `--board` takes it; the only one on USB by default.
        threads: Of the program, and `core` the first thread's, on Linux.

    Raises:
        ModelError: `directory` is no bundle.
        DeviceError: The board is not there, or somebody else has it.
        VerificationError: It runs another image.
    """
    bundle = stages.load_bundle(Path(directory))
    target = bundle.target
    place = BoardPlace(target, bundle.image, address_of(board, stages), serving_of(target, threads, core))
    with ExitStack() as opened:
        with step(progress, Step.CONNECT, target.name):
            client = opened.enter_context(connected(place, stages))
        yield BoardSession(client, bundle.compiled)
