"""Flag, environment, edgekit.toml, default, in this order; what a file says of its model is for that model
only.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import edgekit.pipeline
from edgekit.artifacts import CompileOptions, Preference
from edgekit.cli.app import app
from edgekit.cli.settings import board_name, model_settings, project_of_this_folder, target_name
from edgekit.errors import UsageError
from edgekit.target import load_target

TOML = """
schema = 1
target = "host"
[model]
path = "own.tflite"
name = "mine"
[model.shapes]
a = [1, 2]
b = [3]
[data]
path = "rows.npz"
calibration = "package.module:rows"
samples = 5
seed = 9
[boards]
nucleo-f446re = "serial:toml"
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EDGEKIT_TARGET", "EDGEKIT_BOARD"):
        monkeypatch.delenv(name, raising=False)
    Path("edgekit.toml").write_text(TOML)


def test_target(monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of_this_folder()
    assert target_name(None, project) == "host"
    monkeypatch.setenv("EDGEKIT_TARGET", "mps2-an386")
    assert target_name(None, project) == "mps2-an386"
    assert target_name("nucleo-f446re", project) == "nucleo-f446re"
    monkeypatch.delenv("EDGEKIT_TARGET")
    with pytest.raises(UsageError, match="no target"):
        target_name(None, None)


def test_board(monkeypatch: pytest.MonkeyPatch) -> None:
    project, nucleo = project_of_this_folder(), load_target("nucleo-f446re")
    assert board_name(None, nucleo, None) is None
    assert board_name(None, nucleo, project) == "serial:toml"
    monkeypatch.setenv("EDGEKIT_BOARD", "serial:environment")
    assert board_name(None, nucleo, project) == "serial:environment"
    assert board_name("serial:flag", nucleo, project) == "serial:flag"
    # an emulated board is plugged in nowhere; only a flag that says otherwise is an error
    assert board_name(None, load_target("mps2-an386"), project) is None
    assert board_name("serial:flag", load_target("mps2-an386"), project) == "serial:flag"


def test_the_model_of_the_file_with_all_that_belongs_to_it() -> None:
    found = model_settings("deploy", project_of_this_folder(), model=None)
    assert (found.model, found.options.name, found.data, found.calibration) == (
        Path("own.tflite"),
        "mine",
        "rows.npz",
        "package.module:rows",
    )
    assert (found.samples, found.seed, found.options.shapes) == (5, 9, {"a": (1, 2), "b": (3,)})
    assert found.own is not None


def test_flags_go_before_the_file() -> None:
    found = model_settings(
        "deploy",
        project_of_this_folder(),
        model=Path("./own.tflite"),
        name="yours",
        shapes=["b=7,8"],
        data="other.npz",
        samples=1,
        seed=0,
    )
    assert (found.options.name, found.data, found.samples, found.seed) == ("yours", "other.npz", 1, 0)
    assert found.options.shapes == {"a": (1, 2), "b": (7, 8)}


def test_another_model_takes_nothing_of_it() -> None:
    found = model_settings("deploy", project_of_this_folder(), model=Path("other.tflite"))
    assert (
        found.options.name,
        found.data,
        found.calibration,
        found.samples,
        found.seed,
        found.options.shapes,
        found.own,
    ) == (
        None,
        None,
        None,
        None,
        0,
        {},
        None,
    )


def test_a_tensor_name_may_have_an_equals_sign_and_no_shape_is_given_twice() -> None:
    found = model_settings("deploy", None, model=Path("m.onnx"), shapes=["a=b:0=1,2"])
    assert found.options.shapes == {"a=b:0": (1, 2)}
    with pytest.raises(UsageError, match="twice"):
        model_settings("deploy", None, model=Path("m.onnx"), shapes=["a=1", "a=2"])


def test_what_programs_save_first() -> None:
    def preferred(flag: Preference | None = None, model: Path | None = None) -> Preference:
        found = model_settings("deploy", project_of_this_folder(), model=model, prefer=flag)
        return found.compile_options.prefer

    assert preferred() == "speed"
    with Path("edgekit.toml").open("a") as file:
        file.write('[build]\nprefer = "ram"\n')
    assert preferred() == "ram"
    assert preferred(model=Path("other.tflite")) == "ram", "[build] is the folder's, not the model's"
    assert preferred("size") == "size"
    Path("edgekit.toml").write_text('schema = 1\n[build]\nprefer = "fast"\n')
    with pytest.raises(UsageError, match=r"build\.prefer.*'ram', 'speed' or 'size'"):
        project_of_this_folder()


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (("deploy",), "deploy"),
        (("compile",), "compile_bundle"),
        (("compile", "--emit", "c"), "emit_sources"),
        (("analyze",), "analyze"),
        (("profile",), "compile_bundle"),
        (("tune",), "tune"),
    ],
)
def test_every_command_that_compiles_is_told(
    command: tuple[str, ...], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[CompileOptions] = []

    def asked(*_: object, compile_options: CompileOptions, **__: object) -> None:
        told.append(compile_options)
        raise UsageError("that is all")

    monkeypatch.setattr(edgekit.pipeline, function, asked)
    Path("own.tflite").touch()
    with Path("edgekit.toml").open("a") as file:
        file.write('[build]\nprefer = "ram"\n')
    for flags in ((), ("--prefer", "size")):
        assert CliRunner().invoke(app, [*command, *flags]).exit_code == 2
    assert [options.prefer for options in told] == ["ram", "size"]


def test_a_prefix_is_of_c_sources() -> None:
    Path("own.tflite").touch()
    result = CliRunner().invoke(app, ["compile", "--prefix", "kws"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--prefix is for --emit c" in result.stderr
