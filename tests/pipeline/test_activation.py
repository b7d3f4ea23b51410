"""A board that goes on with what it has until the new image was verified; a target that can't be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edgekit.artifacts import Image, Serving
from edgekit.device import BoardAddress
from edgekit.errors import BudgetError, DeviceError, EdgekitError, MissingToolError, UsageError
from edgekit.pipeline import deploy, flash_bundle, profile_bundle
from edgekit.progress import Notice, ProgressEvent
from edgekit.stages import Stages
from edgekit.target import Target, load_target
from tests.pipeline.fakes import FakeStages


@dataclass
class Versions:
    """A board with versions; `events` is what happened to the new one, in order."""

    version: str = "0123456789abcdef"
    error: EdgekitError | None = None
    events: list[str] = field(default_factory=list)

    def keep(self) -> None:
        self.events.append("keep")
        if self.error is not None:
            raise self.error

    @contextmanager
    def flash(self, target: Target, image: Image, board: BoardAddress | None) -> Iterator[Versions]:
        self.events.append("flash")
        try:
            yield self
        finally:
            self.events.append("release")


def stages(fake: FakeStages, versions: Versions) -> Stages:
    # a board of which no state is asked: the fakes have none
    return replace(fake.stages(), flash=versions.flash, health=lambda target, image, board: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_verified_deployment_is_kept_while_the_board_is_held(folder: Path) -> None:
    versions = Versions()
    deploy("m.tflite", target="rpi4", stages=stages(FakeStages(), versions))
    assert versions.events == ["flash", "keep", "release"]


def test_wrong_answers_are_not_kept(folder: Path) -> None:
    versions = Versions()
    found = deploy(
        "m.tflite",
        target="rpi4",
        check=False,
        stages=stages(FakeStages(board=lambda row: row + 1), versions),
    )
    assert found.verification is not None
    assert not found.verification.passed
    assert versions.events == ["flash", "release"]


def test_a_missed_budget_is_kept_and_told(folder: Path) -> None:
    from edgekit.budget import Budget

    versions = Versions()
    with pytest.raises(BudgetError):
        deploy(
            "m.tflite",
            target="rpi4",
            budget=Budget(max_flash_bytes=1),
            stages=stages(FakeStages(), versions),
        )
    assert versions.events == ["flash", "keep", "release"]


def test_a_switch_that_fails_is_an_error_and_gives_the_board_back(folder: Path) -> None:
    versions = Versions(error=DeviceError("lost"))
    with pytest.raises(DeviceError, match="lost"):
        deploy("m.tflite", target="rpi4", stages=stages(FakeStages(), versions))
    assert versions.events == ["flash", "keep", "release"]
    assert not list(folder.rglob("deploy.json"))


@pytest.mark.parametrize("keep", [True, False])
def test_flash_keeps_unless_told_not_to(folder: Path, keep: bool) -> None:
    fake, versions = FakeStages(), Versions()
    deploy("m.tflite", target="rpi4", directory="bundle", stages=stages(fake, versions))
    versions.events.clear()
    flash_bundle("bundle", keep=keep, stages=stages(fake, versions))
    assert versions.events == ["flash", *(["keep"] if keep else []), "release"]


def test_where_nothing_can_be_measured_the_profile_is_null_and_says_why(folder: Path) -> None:
    fake, versions, told = FakeStages(), Versions(), list[ProgressEvent]()
    reason = MissingToolError("no plugin loads", hint="edgekit doctor --target rpi4-emulated")
    unable = replace(stages(fake, versions), unmeasurable=lambda target, serving: reason)
    found = deploy("m.tflite", target="rpi4", directory="bundle", stages=unable, progress=told.append)
    assert found.measurement is None
    assert found.document.profile is None
    assert versions.events == ["flash", "keep", "release"]
    notices = [event.text for event in told if isinstance(event, Notice)]
    assert any("no plugin loads" in text and "edgekit doctor" in text for text in notices)
    with pytest.raises(MissingToolError, match="no plugin loads"):
        profile_bundle("bundle", stages=unable)


def test_threads_and_core_reach_the_board_and_not_the_reference(folder: Path) -> None:
    fake, seen = FakeStages(), list[tuple[str, Serving]]()
    plain = stages(fake, Versions())

    @contextmanager
    def open_board(
        target: Target, image: Image, board: BoardAddress | None, serving: Serving
    ) -> Iterator[object]:
        seen.append((target.name, serving))
        with plain.open_board(target, image, board, serving) as client:
            yield client

    found = deploy("m.tflite", target="rpi4", threads=4, core=1, stages=replace(plain, open_board=open_board))
    assert dict(seen) == {"host": Serving(), "rpi4": Serving(4, 1)}
    assert found.document.profile is not None
    assert found.document.profile.threads == 4


def test_a_microcontroller_has_no_threads(folder: Path) -> None:
    fake = FakeStages()
    with pytest.raises(UsageError, match="no threads"):
        deploy("m.tflite", target=load_target("nucleo-f446re"), threads=2, stages=fake.stages())
    assert fake.calls == []


@pytest.mark.parametrize("runs", [0, -3])
def test_no_runs_are_refused_before_a_board_is_asked(runs: int) -> None:
    with pytest.raises(UsageError, match="runs must be at least 1"):
        profile_bundle("no such bundle", runs=runs)
