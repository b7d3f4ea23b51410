"""Finding and running a toolchain."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgekit.errors import MissingToolError, TargetError
from edgekit.firmware import toolchain as module
from edgekit.firmware.toolchain import find_toolchain
from edgekit.target import load_target, parse_target

from .sample import document


def _fake_gcc(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("target", "tool", "package"),
    [("mps2-an386", "arm-none-eabi-gcc", "gcc-arm-none-eabi"), ("host", "gcc", "libc6-dev")],
)
def test_a_missing_compiler_is_exit_9_with_the_command_that_installs_it(
    target: str, tool: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=f"{tool} is not installed") as raised:
        find_toolchain(load_target(target))
    assert raised.value.exit_code == 9
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("sudo apt-get install -y ")
    assert package in raised.value.hint


def test_a_missing_c_library_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = "print(sys.argv[-1].split('=')[-1])"
    _fake_gcc(tmp_path, "arm-none-eabi-gcc", answer)
    _fake_gcc(tmp_path, "arm-none-eabi-ar", answer)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="not its C library") as raised:
        find_toolchain(load_target("mps2-an386"))
    assert "libnewlib-arm-none-eabi" in str(raised.value.hint)


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
def test_a_flag_that_gcc_does_not_know_is_the_targets_fault() -> None:
    made = document("mps2-an386")
    made["toolchain"]["flags"][0] = "-mcpu=cortex-m4000"
    made["compile"].pop("mcpu")
    with pytest.raises(TargetError, match="cortex-m4000"):
        find_toolchain(parse_target(made, "t"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_versions_are_recorded_for_the_manifest() -> None:
    found = find_toolchain(load_target("host"))
    assert set(found.versions) == {"gcc", "ar"}
    assert all(any(character.isdigit() for character in version) for version in found.versions.values())


def test_a_tool_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake_gcc(tmp_path / "bin", "gcc", "time.sleep(60)")
    _fake_gcc(tmp_path / "bin", "ar", "pass")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(module, "RUN_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(TargetError, match="did not finish"):
        find_toolchain(load_target("host"))


def test_variables_that_steer_gcc_do_not_reach_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake_gcc(tmp_path / "bin", "gcc", "print('/' + ' '.join(sorted(os.environ)))")
    _fake_gcc(tmp_path / "bin", "ar", "pass")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in (
        "CPATH",
        "LIBRARY_PATH",
        "GCC_EXEC_PREFIX",
        "COMPILER_PATH",
        "LD_PRELOAD",
        "SOURCE_DATE_EPOCH",
    ):
        monkeypatch.setenv(name, "/tmp")
    seen = find_toolchain(load_target("host")).run_gcc([], tmp_path).stdout.strip("/\n").split()
    assert {"PATH", "LC_ALL", "TMPDIR"} <= set(seen)
    assert not {name for name in seen if name not in ("PATH", "LC_ALL", "TMPDIR", "LC_CTYPE")}


def test_what_a_tool_prints_is_made_safe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fake_gcc(tmp_path / "bin", "gcc", "sys.stderr.write('\\x1b[31mno\\n' * 50); sys.exit(1)")
    _fake_gcc(tmp_path / "bin", "ar", "pass")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(TargetError) as raised:
        find_toolchain(load_target("host"))
    lines = raised.value.message.splitlines()
    assert all(line.isprintable() for line in lines)
    assert len(lines) < 20
