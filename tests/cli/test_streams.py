"""Closed pipes, full disks, terminals without UTF-8: no traceback, a documented exit code, pure stdout."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import edgekit.cli.init
from edgekit.cli.failures import report_failure
from edgekit.cli.session import Session
from edgekit.errors import UsageError
from edgekit.fsutil import cache_folder
from tests.cli.conftest import Run, document

EDGEKIT = "import sys; from edgekit.cli import main; sys.exit(main())"


def _edgekit(
    *arguments: str, redirect: str = "", environment: Mapping[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a process of its own, its streams as a shell redirects them."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", EDGEKIT, *arguments],
        capture_output=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [["targets", "list"], ["deploy", "--help"], ["deploy", "no.tflite"]])
def test_a_pipe_that_nobody_reads_is_no_bug(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", EDGEKIT, *command],
        stdout=writing,
        stderr=writing if command[-1].endswith("tflite") else subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 141
    assert not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_output_that_is_full(flags: list[str]) -> None:
    code, _, said = _edgekit("targets", "list", *flags, redirect=">/dev/full")
    assert code == 2
    assert said == b"error: the output can't be written: No space left on device\n"


def test_streams_that_are_closed() -> None:
    assert _edgekit("targets", "list", redirect=">&-") == (0, b"", b"")
    code, shown, _ = _edgekit("targets", "show", "nonesuch", "--json", redirect="2>&-")
    assert (code, json.loads(shown)["error"]["kind"]) == (2, "TargetError")


def test_a_terminal_without_utf_8(tmp_path: Path) -> None:
    shipped = Path(edgekit.__file__).parents[1] / "targets" / "mps2-an386.toml"
    named = shipped.read_text().replace("Arm MPS2 AN386", "Brett für Töne")
    (tmp_path / "mps2-an386.toml").write_text(named, encoding="utf-8")
    ascii_only = {"PYTHONIOENCODING": "ascii", "EDGEKIT_TARGETS": str(tmp_path)}
    code, shown, said = _edgekit("targets", "show", "mps2-an386", environment=ascii_only)
    assert (code, said) == (0, b"")
    assert b"Brett f?r T?ne" in shown


def test_wrong_flags_are_a_document_too(run: Run) -> None:
    for arguments in (("deploy", "--nope"), ("targets", "show"), ("analyze", "--rows", "0"), ("nonesuch",)):
        result = run(*arguments, "--json")
        assert result.exit_code == 2
        told = document(result)["error"]
        assert (told["kind"], told["exit_code"]) == ("UsageError", 2)
        assert told["message"] in result.stderr
        assert told["hint"].endswith("--help")
    assert run("deploy", "--nope").stdout == ""


def test_what_the_machine_refuses_is_no_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(edgekit.cli.init, "atomic_write", refused)
    result = run("init", "--json")
    assert result.exit_code == 2
    told = document(result)["error"]
    assert told["message"] == "edgekit.toml: Read-only file system"
    assert "EDGEKIT_HOME" in told["hint"]
    assert report_failure(OSError(errno.ENOENT, "No such file or directory"), Session()) == 1


def test_a_user_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    for name in ("EDGEKIT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no home folder") as raised:
        cache_folder()
    assert raised.value.hint == "export EDGEKIT_HOME=FOLDER"
