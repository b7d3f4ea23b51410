"""`edgekit doctor` finds what is missing and names the command that mends it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from edgekit.cli.checks import PACKAGES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Run = Callable[..., Result]


def test_the_packages_are_those_that_edgekit_requires(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    required = {}
    for requirement in project["dependencies"]:
        if ";" in requirement:  # only for an older Python
            continue
        name, exact = re.fullmatch(r"([A-Za-z0-9-]+)(?:==([^,]+)|[<>=].*)?", requirement).groups()  # type: ignore[union-attr]
        required[name] = exact
    assert dict(PACKAGES) == required


def test_the_host_is_sound_here(run: Run) -> None:
    result = run("doctor", "--target", "host", "--json")
    values = json.loads(result.stdout)
    assert values["schema"] == "edgekit.doctor/1"
    assert {check["name"] for check in values["checks"]} >= {"python", "apache-tvm", "C compiler for host"}
    assert result.exit_code == 0, result.output


def test_a_missing_tool_exits_9_with_its_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("doctor", "--target", "mps2-an386")
    assert result.exit_code == 9
    assert "sudo apt-get install -y qemu-system-arm" in result.stdout
    assert "gcc-arm-none-eabi" in result.stdout
    assert "hint: sudo apt-get install" in result.stderr


def test_a_wrong_package_version_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.cli.checks.version", lambda name: "9.9")
    result = run("doctor", "--target", "host")
    assert result.exit_code == 9
    assert "9.9, and edgekit needs 0.27.0.post1" in result.stdout
    assert "-m pip install apache-tvm==0.27.0.post1" in result.stdout
