"""What is shown of long work: how far it is, what came of it, and how long it will take."""

from __future__ import annotations

import pytest

from edgekit.cli.progress_view import LinesView, TerminalView
from edgekit.compress.training import Epoch
from edgekit.progress import Step, StepAdvanced, StepFinished, StepStarted

EPOCH = Epoch(number=2, epochs=5, loss=0.31, accuracy=0.875, seconds=4.0, left=12.2)


def test_an_epoch_says_what_it_came_to_and_what_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EPOCH.summary == "accuracy 0.8750, about 12 s left"
    unlabelled = Epoch(number=2, epochs=5, loss=0.31, accuracy=None, seconds=4.0, left=12.2)
    assert unlabelled.summary == "loss 0.3100, about 12 s left"
    clock = iter([0.0, 0.0, 5.0, 11.0, 11.0])
    monkeypatch.setattr("edgekit.cli.progress_view.time.monotonic", lambda: next(clock))
    lines: list[str] = []
    view = LinesView(lines.append)
    view(StepStarted(Step.TRAIN, "2. fine_tune", 5))
    view(StepAdvanced(Step.TRAIN, 1, "not yet ten seconds"))
    view(StepAdvanced(Step.TRAIN, 2, EPOCH.summary))
    assert lines == ["train     2 of 5: accuracy 0.8750, about 12 s left"]


def test_a_terminal_shows_it_beside_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalView() as view:
        view(StepStarted(Step.TRAIN, "2. fine_tune", 5))
        view(StepAdvanced(Step.TRAIN, 2, EPOCH.summary))
        bars = view._bars
        assert bars is not None
        assert bars.tasks[0].description == f"train     2. fine_tune: {EPOCH.summary}"
        assert bars.tasks[0].completed == 2
        view(StepFinished(Step.TRAIN, "done", 1.0))
    assert "train     done  (1.0 s)" in capsys.readouterr().err
