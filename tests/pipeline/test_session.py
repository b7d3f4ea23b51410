"""A connected board that an application gives rows to, in a loop and from several threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import edgekit
from edgekit.errors import ModelError, UsageError, VerificationError
from edgekit.pipeline import compile_bundle, connect
from tests.pipeline.fakes import FakeStages

Array = npt.NDArray[Any]


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    monkeypatch.chdir(tmp_path)
    fakes = FakeStages(board=lambda row: row[::-1])
    compile_bundle("m.tflite", target="mps2-an386", directory="out", stages=fakes.stages())
    return fakes


def test_one_connection_serves_many_calls(fakes: FakeStages) -> None:
    with connect("out", stages=fakes.stages()) as board:
        assert (board.inputs[0].shape, board.outputs[0].dtype) == ((1, 4), "int8")
        for first in range(3):
            (answer,) = board.run(np.array([[first, 1, 2, 3]], np.int8))
            assert answer.tolist() == [[[3, 2, 1, first]]]
        (several,) = board.run(np.zeros((5, 1, 4), np.int8))
        assert several.shape == (5, 1, 4)
        assert fakes.open_boards == 1
    assert fakes.open_boards == 0
    assert fakes.calls.count("open mps2-an386") == 1


def test_reals_go_in_and_come_out(fakes: FakeStages) -> None:
    with connect("out", stages=fakes.stages()) as board:
        scale = board.inputs[0].quantization
        assert scale is not None
        reals = [[[1.0 * scale.scale, 0.0, 0.0, 0.0]]]
        (stored,) = board.run(reals)
        (answer,) = board.run(reals, dequantize=True)
        out = board.outputs[0].quantization
        assert out is not None
        assert answer.dtype == np.float32
        expected = (stored.astype(np.float32) - out.zero_point) * np.float32(out.scale)
        np.testing.assert_array_equal(answer, expected)


def test_threads_take_turns(fakes: FakeStages) -> None:
    inside: list[int] = []
    together = threading.Event()

    def slow(row: Array) -> Array:
        inside.append(1)
        if len(inside) > 1:
            together.set()
        time.sleep(0.001)
        inside.pop()
        return row

    fakes.board = slow
    with connect("out", stages=fakes.stages()) as board, ThreadPoolExecutor(4) as pool:
        rows = [np.full((1, 4), value, np.int8) for value in range(16)]
        answers = list(pool.map(lambda row: board.run(row)[0][0], rows))
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer, row)
    assert not together.is_set()


@pytest.mark.parametrize("given", [["words"], [[1, 2], [3]], [None], object()])
def test_what_is_no_array_of_numbers_is_said(fakes: FakeStages, given: Any) -> None:
    with connect("out", stages=fakes.stages()) as board, pytest.raises(ModelError, match="input 0 is"):
        board.run(given)


def test_a_board_with_another_image_is_not_connected(fakes: FakeStages) -> None:
    fakes.board_hash = "ef" * 32
    with pytest.raises(VerificationError, match="another image"), connect("out", stages=fakes.stages()):
        pytest.fail("it must not be reached")
    assert fakes.open_boards == 0


def test_a_preference_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="ram, speed, size, not fast"):
        edgekit.CompileOptions("fast")  # type: ignore[arg-type]
