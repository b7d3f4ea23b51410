"""Exit codes, words and silence: what every command has in common."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import edgekit
from edgekit import errors
from edgekit.cli import main

Run = Callable[..., Result]

COMMANDS = [
    "init",
    "analyze",
    "deploy",
    "compile",
    "tune",
    "flash",
    "run",
    "profile",
    "status",
    "rollback",
    "targets",
    "report",
    "doctor",
]


def test_help_lists_the_commands_in_the_order_of_their_use(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    places = [result.stdout.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: edgekit {name}")
    if name != "targets":
        for flag in ("--json", "--quiet", "--debug"):
            assert flag in result.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"edgekit {edgekit.__version__}\n"


def test_unknown_commands_and_flags_get_a_suggestion(run: Run) -> None:
    result = run("deplot")
    assert result.exit_code == 2
    assert "'deploy'" in result.stderr
    result = run("deploy", "--traget", "host")
    assert result.exit_code == 2
    assert "--target" in result.stderr


def test_deploy_without_model_and_toml_names_init(run: Run) -> None:
    result = run("deploy", "--target", "host")
    assert result.exit_code == 2
    assert "edgekit init" in result.stderr
    assert result.stdout == ""


def test_a_model_that_is_not_there_names_the_likely_one(run: Run) -> None:
    Path("kws_model.tflite").write_bytes(b"")
    result = run("deploy", "kws_modle.tflite", "--target", "host")
    assert result.exit_code == 2
    assert 'Did you mean "kws_model.tflite"?' in result.stderr


def test_no_target_and_unknown_targets_are_usage_errors(run: Run) -> None:
    Path("model.tflite").write_bytes(b"")
    result = run("deploy", "model.tflite")
    assert result.exit_code == 2
    assert "--target" in result.stderr
    result = run("deploy", "model.tflite", "--target", "mps2-an368")
    assert result.exit_code == 2
    assert "mps2-an386" in result.stderr


def test_a_latency_on_an_emulated_board_is_a_usage_error(run: Run) -> None:
    Path("model.tflite").write_bytes(b"")
    result = run("deploy", "model.tflite", "--target", "mps2-an386", "--max-latency", "20ms")
    assert result.exit_code == 2
    assert "--max-instructions" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-ram", "lots"),
        ("--max-latency", "20"),
        ("--max-instructions", "-4M"),
        ("--shape", "input"),
        ("--shape", "input=1,0,3"),
        ("--shape", "input=1,x"),
        ("--shape", "=1,2"),
        ("--samples", "0"),
        ("--runs", "many"),
    ],
)
def test_amounts_and_shapes_that_are_none_are_usage_errors(run: Run, arguments: tuple[str, ...]) -> None:
    Path("model.tflite").write_bytes(b"")
    result = run("deploy", "model.tflite", "--target", "host", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", ["\x1b[2J[bold]x", "[/red]", "a\nb", "\u202eevil"])
def test_hostile_names_reach_neither_terminal_nor_markup(run: Run, name: str) -> None:
    for arguments in (("deploy", name, "--target", "host"), ("targets", "show", name), ("report", name)):
        result = run(*arguments)
        assert result.exit_code in (2, 3)
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
        assert "Traceback" not in result.output


def test_a_damaged_model_exits_3_with_a_sentence(run: Run) -> None:
    Path("model.tflite").write_bytes(b"\x00" * 100)
    result = run("deploy", "model.tflite", "--target", "host", "--json", "--quiet")
    assert result.exit_code == 3
    values = json.loads(result.stdout)
    assert values["schema"] == "edgekit.error/1"
    assert values["error"]["exit_code"] == 3
    assert values["error"]["message"]
    assert result.stderr.startswith("error: ")


def _raising(error: BaseException) -> Callable[..., object]:
    def stage(*arguments: object, **options: object) -> object:
        raise error

    return stage


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("m"), 2),
        (errors.TargetError("m"), 2),
        (errors.ModelError("m"), 3),
        (errors.UnsupportedError("m"), 4),
        (errors.DoesNotFitError("m"), 5),
        (errors.DeviceError("m"), 6),
        (errors.VerificationError("m"), 7),
        (errors.BudgetError("m"), 8),
        (errors.MissingToolError("m", hint="the next command"), 9),
    ],
)
def test_each_error_has_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: errors.EdgekitError, code: int
) -> None:
    monkeypatch.setattr("edgekit.target.survey_targets", _raising(error))
    result = run("targets", "list", "--json")
    assert result.exit_code == code
    assert result.stderr.startswith("error: m\n")
    assert ("hint: the next command" in result.stderr) == (code == 9)
    assert json.loads(result.stdout)["error"]["kind"] == type(error).__name__


def test_a_bug_says_so_and_shows_its_traceback_only_on_demand(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.target.survey_targets", _raising(KeyError("\x1b[2Jgone")))
    result = run("targets", "list")
    assert result.exit_code == 1
    assert "bug" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    result = run("targets", "list", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_an_interrupt_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.target.survey_targets", _raising(KeyboardInterrupt()))
    result = run("targets", "list")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        assert main(["targets", "show", "nothing-like-it"]) == 2
        assert main(["targets", "list"]) == 0
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)
    assert "mps2-an386" in capsys.readouterr().out


def _processor_seconds(argv: list[str]) -> float:
    """The least of five runs, so that other work on the machine has little say."""
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(taken)


def test_targets_list_answers_at_once() -> None:
    """Under 0.3 s of processor time; or, where a core is shared or slow, under three times what Python takes
    to load the two libraries that every command line of this kind is made of.
    """
    libraries = _processor_seconds([sys.executable, "-c", "import typer.main, pydantic.main"])
    taken = _processor_seconds([sys.executable, "-m", "edgekit", "targets", "list"])
    assert 0.01 < taken < max(0.3, 3 * libraries)


def test_targets_list_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edgekit.cli import main\n"
        "assert main(['targets', 'list']) == 0\n"
        "heavy = {'torch', 'tvm', 'onnx', 'onnxruntime', 'numpy', 'tflite', 'jinja2', 'rich', 'serial'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_importing_edgekit_loads_nothing_else() -> None:
    code = "import sys, edgekit; print([name for name in sys.modules if name.startswith('edgekit.')])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_public_name_of_edgekit_is_there() -> None:
    for name in edgekit.__all__:
        assert getattr(edgekit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = edgekit.no_such_name  # type: ignore[attr-defined]
