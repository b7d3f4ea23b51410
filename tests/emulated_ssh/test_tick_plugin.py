"""The counting plugin: exact, the same again, and a sentence where it cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.device.emulated_ssh import tick_problem
from edgekit.device.qemu_user import find_qemu, tick_plugin
from edgekit.errors import DeviceError, MissingToolError, TargetError
from edgekit.resources import firmware_templates_directory
from edgekit.target import load_target

SOURCE = firmware_templates_directory() / "plugin" / "tick.c"

# `programs.c`, loop_of_a_million: two instructions to set up, three a turn, and the second reading itself.
LOOP = 3_000_003


def _plugin(folder: Path, user: str = "aarch64") -> Path:
    qemu = find_qemu(user)
    assert qemu is not None
    return tick_plugin(user, qemu, folder)


def _count(plugin: Path, program: Path, user: str, cpu: str, ticks: Path) -> list[int]:
    ticks.write_bytes(bytes(4096))
    argv = [f"qemu-{user}", "-cpu", cpu, "-plugin", f"file={plugin}", str(program), "count"]
    done = subprocess.run(
        argv, capture_output=True, timeout=60, check=True, env={"EDGEKIT_TICK_FILE": str(ticks)}
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize(
    ("user", "cpu"), [("aarch64", "cortex-a72"), ("aarch64", "cortex-a76"), ("arm", "cortex-a7")]
)
def test_the_count_is_exact(user: str, cpu: str, programs: dict[str, Path], tmp_path: Path) -> None:
    counts = _count(_plugin(tmp_path, user), programs[user], user, cpu, tmp_path / "ticks")
    assert counts == [LOOP, LOOP, LOOP]


def test_the_form_for_later_qemus_counts_the_same(programs: dict[str, Path], tmp_path: Path) -> None:
    # It is loaded here under the version of this QEMU, which has that call too. A QEMU 9 is not at hand.
    plugin = tmp_path / "second.so"
    argv = ["gcc", "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall"]
    argv += ["-Wextra", "-Werror", "-DEDGEKIT_PLUGIN_API=2", "-DEDGEKIT_PLUGIN_VERSION=1"]
    subprocess.run([*argv, "-o", str(plugin), str(SOURCE)], check=True, timeout=60)
    counts = _count(plugin, programs["aarch64"], "aarch64", "cortex-a72", tmp_path / "ticks")
    # A block is counted when it starts, so the reading's own block is in it from its first instruction on.
    assert max(counts) - min(counts) == 0
    assert abs(counts[0] - LOOP) <= 64


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    argv = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-fPIC", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion"]
    for api in ("1", "2"):
        made = [*argv, "-Werror", f"-DEDGEKIT_PLUGIN_API={api}", "-c", "-o", "tick.o", str(SOURCE)]
        subprocess.run(made, check=True, timeout=60, cwd=tmp_path)


def test_it_refuses_to_load_without_a_file_to_count_in(programs: dict[str, Path], tmp_path: Path) -> None:
    plugin = _plugin(tmp_path)
    small, link = tmp_path / "small", tmp_path / "link"
    small.write_bytes(b"1234")
    (tmp_path / "real").write_bytes(bytes(4096))
    link.symlink_to(tmp_path / "real")
    for path in (None, "/nonexistent", str(small), str(link), str(tmp_path), "/dev/null"):
        environment = {} if path is None else {"EDGEKIT_TICK_FILE": path}
        argv = ["qemu-aarch64", "-plugin", f"file={plugin}", str(programs["aarch64"])]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False, env=environment)
        assert done.returncode != 0, path
        assert b"hello" not in done.stdout


def test_it_is_made_once_and_again_for_another_qemu(tmp_path: Path) -> None:
    folder = tmp_path / "a, b 'c' \"d\" $e"
    first = _plugin(folder)
    made = first.stat().st_mtime_ns
    assert _plugin(folder) == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in folder.iterdir()] == [first.name]
    other = tmp_path / "qemu-aarch64"
    shutil.copy(Path(str(find_qemu("aarch64"))).resolve(), other)
    assert tick_plugin("aarch64", other, folder) != first


def test_a_machines_three_instructions_are_what_the_assembler_makes_of_them(tmp_path: Path) -> None:
    from edgekit.device.qemu_user import MACHINES

    for compiler, user, text in (
        ("aarch64-linux-gnu", "aarch64", "mov x0, #0\nmov x8, #93\nsvc #0\n"),
        ("arm-linux-gnueabihf", "arm", ".arm\nmov r0, #0\nmov r7, #1\nsvc #0\n"),
    ):
        (tmp_path / "three.s").write_text(text)
        for argv in (
            [f"{compiler}-gcc", "-c", "three.s", "-o", "three.o"],
            [f"{compiler}-objcopy", "-O", "binary", "-j", ".text", "three.o", "three.bin"],
        ):
            subprocess.run(argv, check=True, timeout=60, cwd=tmp_path)
        assert (tmp_path / "three.bin").read_bytes() == MACHINES[user].three_instructions


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_qemu_that_loads_no_plugins_is_told(tmp_path: Path) -> None:
    fake = _script(
        tmp_path / "qemu-aarch64",
        "[ \"$1\" = --version ] && { echo 'qemu-aarch64 version 7.2.22'; exit; }\n"
        "echo \"qemu: unknown option 'plugin'\" >&2; exit 1",
    )
    with pytest.raises(DeviceError, match="loads no plugin: qemu: unknown option 'plugin'"):
        tick_plugin("aarch64", fake, tmp_path / "plugins")
    assert list((tmp_path / "plugins").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ \"$1\" = --version ] && echo 'qemu-aarch64 version 7.2.22'; exit 0", "counted 0 where 3"),
        ("[ \"$1\" = --version ] && echo 'qemu-aarch64 version 10.0.0'; exit 0", "counted 0 where 3"),
        ("echo nothing", "does not say its version"),
        ("exit 1", "does not say its version"),
    ],
)
def test_a_qemu_that_counts_wrong_is_told(text: str, said: str, tmp_path: Path) -> None:
    fake = _script(tmp_path / "qemu-aarch64", text)
    with pytest.raises(DeviceError, match=said):
        tick_plugin("aarch64", fake, tmp_path / "plugins")


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = find_qemu("aarch64")
    assert qemu is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="no C compiler"):
        tick_plugin("aarch64", qemu, tmp_path / "plugins")


def test_a_compiler_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path / "gcc", "printf 'tick.c: \\033[31mno such header'; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(DeviceError) as raised:
        _plugin(tmp_path / "plugins")
    assert "does not compile: tick.c: \\x1b[31mno such header" in raised.value.message


def test_what_doctor_says(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target("rpi4-emulated")
    assert tick_problem(target) is None
    assert tick_problem(load_target("linux-armv7-emulated")) is None
    with pytest.raises(TargetError, match="rpi4 is no emulated linux board"):
        tick_problem(load_target("rpi4"))
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "none"))
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "qemu-aarch64").symlink_to(str(find_qemu("aarch64")))
    monkeypatch.setenv("PATH", str(tmp_path / "only"))
    assert tick_problem(target) == (
        "no C compiler is installed; it makes the plugin that counts instructions (sudo apt-get install gcc)"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tick_problem(target) == "qemu-aarch64 is not installed"
    (tmp_path / "file").touch()
    monkeypatch.undo()
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "file"))
    assert "cannot be kept" in str(tick_problem(target))
