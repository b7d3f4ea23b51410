"""The order of the stages, what they are given, what comes out when a board is wrong; all with fakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import CompileOptions, ImportOptions
from edgekit.budget import Budget
from edgekit.errors import BudgetError, ModelError, UsageError, VerificationError
from edgekit.pipeline import compile_bundle, deploy, flash_bundle, profile_bundle, run_bundle
from edgekit.progress import Notice, ProgressEvent, Step, StepAdvanced, StepFinished, StepStarted
from edgekit.report.document import read_document
from tests.pipeline.fakes import FakeStages


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save_rows(path: str = "rows.npz", *, dtype: type = np.int8, count: int = 20) -> str:
    x = np.arange(count * 4).reshape(count, 4) % 100
    np.savez(path, x=x.astype(dtype), y=np.argmax(x, axis=1))
    return path


def test_the_stages_run_in_their_order_and_everything_is_closed() -> None:
    fakes = FakeStages()
    found = deploy("m.tflite", target="mps2-an386", data=save_rows(), stages=fakes.stages())
    assert fakes.calls == [
        "import",
        "compile mps2-an386 armv7em+portable",
        "build mps2-an386",
        "compile host portable",
        "build host",
        "flash mps2-an386 None",
        "open host",
        "open mps2-an386",
    ]
    assert fakes.open_boards == 0
    assert found.verification is not None
    assert found.verification.samples == 20
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.measured_on) == (1.0, "device")
    assert found.measurement is not None
    assert found.measurement.p50 == 1000.0
    assert [operator.p50 for operator in found.measurement.operators] == [500.0, 500.0]


def test_documents_are_written_beside_the_image() -> None:
    found = deploy("m.tflite", target="mps2-an386", stages=FakeStages().stages())
    folder = Path("build/m-mps2-an386")
    assert read_document(folder / "deploy.json") == found.document
    values = json.loads((folder / "deploy.json").read_text())
    assert values["schema"] == "edgekit.deploy/1"
    assert values["accuracy"] is None
    assert values["verify"]["samples"] == 16
    assert values["artifacts"]["directory"] == str(folder)
    page = (folder / "report.html").read_text()
    assert "1,000" in page
    assert "gcc 12" in page


def test_progress_is_told_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[ProgressEvent] = []
    deploy(
        "m.tflite",
        target="mps2-an386",
        data=save_rows(),
        progress=events.append,
        stages=FakeStages().stages(),
    )
    started = [event.step for event in events if isinstance(event, StepStarted)]
    finished = [event.step for event in events if isinstance(event, StepFinished)]
    assert started == finished
    assert started == [
        Step.DATA,
        Step.IMPORT,
        Step.COMPILE,
        Step.BUILD,
        Step.REFERENCE,
        Step.FLASH,
        Step.CONNECT,
        Step.VERIFY,
        Step.PROFILE,
        Step.REPORT,
    ]
    rows = [event.done for event in events if isinstance(event, StepAdvanced) and event.step is Step.VERIFY]
    assert rows == list(range(1, 21))
    assert capsys.readouterr() == ("", "")


def test_a_preference_is_of_the_boards_program_and_not_of_the_reference() -> None:
    fakes = FakeStages()
    deploy(
        "m.tflite",
        target="mps2-an386",
        data=save_rows(),
        compile_options=CompileOptions("ram"),
        stages=fakes.stages(),
    )
    compiled = [call for call in fakes.calls if call.startswith("compile ")]
    assert compiled == ["compile mps2-an386 armv7em+portable for ram", "compile host portable"]


def test_a_board_that_answers_wrongly_is_an_error_with_its_documents_written() -> None:
    fakes = FakeStages(board=lambda row: row + (row == 6))
    with pytest.raises(
        VerificationError, match=r"row 1 of rows\.npz, output 0 \(scores\), index 2: host 6, board 7"
    ):
        deploy("m.tflite", target="mps2-an386", data=save_rows(), stages=fakes.stages())
    document = read_document(Path("build/m-mps2-an386/deploy.json"))
    assert document.verify is not None
    assert not document.verify.passed
    assert document.profile is None
    assert "1 add second" in (document.verify.first_difference or "")
    unchecked = deploy("m.tflite", target="mps2-an386", check=False, stages=fakes.stages())
    assert unchecked.verification is not None


def test_a_missed_budget_is_measured_and_told_together() -> None:
    budget = Budget(max_instructions=900, max_flash_bytes=999, max_ram_bytes=500)
    with pytest.raises(BudgetError) as raised:
        deploy("m.tflite", target="mps2-an386", budget=budget, stages=FakeStages().stages())
    assert "flash: 1,000 B of at most 999 B" in raised.value.message
    assert "instructions: 1,000 of at most 900" in raised.value.message
    assert "RAM" not in raised.value.message
    within = Budget(max_instructions=1000, max_flash_bytes=1000)
    assert not deploy("m.tflite", target="mps2-an386", budget=within, stages=FakeStages().stages()).problems


def test_a_budget_that_the_clock_cannot_decide_is_refused_before_anything_is_built() -> None:
    fakes = FakeStages()
    with pytest.raises(UsageError, match="emulated"):
        deploy("m.tflite", target="mps2-an386", budget=Budget(max_latency_us=5.0), stages=fakes.stages())
    with pytest.raises(UsageError, match="not instructions"):
        deploy("m.tflite", target="nucleo-f446re", budget=Budget(max_instructions=5), stages=fakes.stages())
    assert fakes.calls == []


def test_latency_of_real_hardware_is_cycles_by_its_clock() -> None:
    budget = Budget(max_latency_us=8.0)  # 1600 cycles at 180 MHz are 8.9 µs
    with pytest.raises(BudgetError, match="latency: 9 µs of at most 8 µs"):
        deploy("m.tflite", target="nucleo-f446re", budget=budget, stages=FakeStages().stages())


def test_a_board_with_another_image_is_not_measured() -> None:
    fakes = FakeStages(board_hash="00" * 32)
    with pytest.raises(VerificationError, match="another image") as raised:
        deploy("m.tflite", target="mps2-an386", stages=fakes.stages())
    assert raised.value.hint == "edgekit flash build/m-mps2-an386"
    assert fakes.open_boards == 0


def test_rows_that_calibrate_do_not_count() -> None:
    fakes = FakeStages(calibrates=True)
    x = np.arange(400, dtype=np.float32).reshape(100, 4) / 10
    np.savez("rows.npz", x=x, y=np.repeat([0, 1], 50))
    found = deploy("m.onnx", target="mps2-an386", data="rows.npz", stages=fakes.stages())
    assert fakes.calibration[0].shape == (60, 4)
    assert found.verification is not None
    assert found.verification.samples == 20
    other = FakeStages(calibrates=True)
    np.savez("calibration.npz", x=x[:30])
    found = deploy(
        "m.onnx", target="mps2-an386", data="rows.npz", calibration="calibration.npz", stages=other.stages()
    )
    assert other.calibration[0].shape == (30, 4)
    assert found.verification is not None
    assert found.verification.samples == 70


def test_calibration_rows_are_not_asked_of_a_quantised_model() -> None:
    fakes = FakeStages()
    data = save_rows()
    found = deploy("m.tflite", target="mps2-an386", data=data, calibration=data, stages=fakes.stages())
    assert fakes.calibration is None
    assert found.verification is not None
    assert found.verification.samples == 20


def test_samples_bounds_the_rows_and_a_serial_line_has_a_default() -> None:
    fakes = FakeStages()
    data = save_rows(count=1100)
    verification = deploy("m.tflite", target="mps2-an386", data=data, stages=fakes.stages()).verification
    assert verification is not None
    assert verification.samples == 1000
    for samples in (7, 1100):
        found = deploy("m.tflite", target="mps2-an386", data=data, samples=samples, stages=fakes.stages())
        assert found.verification is not None
        assert found.verification.samples == samples
    on_host = deploy("m.tflite", target="host", data=data, stages=fakes.stages())
    assert on_host.verification is not None
    assert on_host.verification.samples == 1100
    assert on_host.accuracy is not None
    assert on_host.accuracy.measured_on == "host"


def test_wrong_rows_are_refused_before_the_board_is_touched() -> None:
    fakes = FakeStages()
    np.savez("rows.npz", x=np.zeros((3, 5), np.int8))
    with pytest.raises(ModelError, match=r"a row of x is \(5,\)"):
        deploy("m.tflite", target="mps2-an386", data="rows.npz", stages=fakes.stages())
    np.savez("rows.npz", x=np.zeros((3, 4), np.int8), y=np.array([0, 1, 4]))
    with pytest.raises(ModelError, match="class 4"):
        deploy("m.tflite", target="mps2-an386", data="rows.npz", stages=fakes.stages())
    assert not [call for call in fakes.calls if call.startswith(("flash", "open"))]


def test_a_board_address_is_parsed_before_the_model_is_imported() -> None:
    fakes = FakeStages()
    with pytest.raises(UsageError, match="names no board"):
        deploy("m.tflite", target="nucleo-f446re", board="usb stick", stages=fakes.stages())
    assert fakes.calls == []
    deploy("m.tflite", target="nucleo-f446re", board="serial:/dev/ttyACM0", stages=fakes.stages())
    assert "flash nucleo-f446re serial:/dev/ttyACM0" in fakes.calls


def test_a_bundle_is_taken_up_again() -> None:
    fakes = FakeStages()
    compiled = compile_bundle("m.tflite", target="mps2-an386", directory="out", stages=fakes.stages())
    assert compiled.document.verify is None
    assert compiled.document.profile is None
    assert flash_bundle("out", stages=fakes.stages()).model.sha256 == "cd" * 32
    rows = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int8)
    (answers,) = run_bundle("out", [rows], stages=fakes.stages())
    assert answers.tolist() == [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]
    (one,) = run_bundle("out", [np.array([[0.5, 1.0, -0.5, 0.26]], np.float32)], stages=fakes.stages())
    assert one.tolist() == [[[1, 2, -1, 1]]]
    with pytest.raises(ModelError, match="the array given is"):
        run_bundle("out", [np.zeros((2, 3), np.int8)], stages=fakes.stages())
    measured = profile_bundle("out", runs=3, stages=fakes.stages()).measurement
    assert measured is not None
    assert measured.runs == (1000.0, 1000.0, 1000.0)


def test_documents_of_an_older_deployment_do_not_stay_beside_a_new_image() -> None:
    fakes = FakeStages()
    deploy("m.tflite", target="mps2-an386", stages=fakes.stages())
    compile_bundle("m.tflite", target="mps2-an386", stages=fakes.stages())
    assert not Path("build/m-mps2-an386/deploy.json").exists()
    assert not Path("build/m-mps2-an386/report.html").exists()


def test_a_hostile_model_name_stays_in_the_build_folder() -> None:
    found = deploy(
        "m.tflite",
        options=ImportOptions(name="../../\x1b[2J/etc"),
        target="host",
        stages=FakeStages().stages(),
    )
    folder = Path(found.document.artifacts.directory)
    assert folder.parent == Path("build")
    assert folder.is_dir()
    assert "\x1b" not in (folder / "report.html").read_text()


def test_a_shadowed_target_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.target import load_target

    shipped = load_target("mps2-an386").source_path
    assert shipped is not None
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / shipped.name).write_text(shipped.read_text())
    monkeypatch.setenv("EDGEKIT_TARGETS", str(folder))
    events: list[ProgressEvent] = []
    deploy("m.tflite", target="mps2-an386", progress=events.append, stages=FakeStages().stages())
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any(str(folder) in text for text in notices)
