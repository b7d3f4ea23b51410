"""`ziglang` in the place of a Linux board's gcc: when, with which arguments, and what it builds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgekit.cli.checks import all_checks
from edgekit.errors import MissingToolError, TargetError, UsageError
from edgekit.firmware import build_image, load_bundle, zig
from edgekit.firmware.elf import FileType, parse_elf
from edgekit.firmware.toolchain import find_toolchain
from edgekit.firmware.zig import zig_flags
from edgekit.target import Target, load_target

FAKE = """\
import json, os, sys
from pathlib import Path
with open(Path(__file__).with_name("log"), "a") as log:
    log.write(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]) + "\\n")
"""
Fake = Callable[[str], Callable[[], list[tuple[list[str], dict[str, str], str]]]]


def replace_flags(target: Target, flags: tuple[str, ...]) -> Target:
    """Past the rules on whole files, which refuse some of what is tried here before it gets to zig."""
    return target.model_copy(update={"toolchain": target.toolchain.model_copy(update={"flags": flags})})


@pytest.fixture
def no_gcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without compilers, and edgekit's cache in a folder of its own."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def fake(no_gcc: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Installs a `ziglang` that logs its runs and then does what the given Python says."""

    def install(body: str) -> Callable[[], list[tuple[list[str], dict[str, str], str]]]:
        package = no_gcc / "packages" / "ziglang"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(FAKE + body + "\n")
        monkeypatch.syspath_prepend(str(package.parent))
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        return lambda: [tuple(json.loads(line)) for line in (package / "log").read_text().splitlines()]

    return install


SOUND = "print('0.99.1')"


@pytest.mark.parametrize(
    ("name", "program", "shared", "core"),
    [
        ("linux-aarch64", "aarch64-linux-musl", "aarch64-linux-gnu.2.28", "generic"),
        ("rpi4", "aarch64-linux-musl", "aarch64-linux-gnu.2.28", "cortex_a72-aes-sha2"),
        (
            "linux-armv7",
            "arm-linux-musleabihf",
            "arm-linux-gnueabihf.2.28",
            "generic+v7a+vfp3d16-neon-d32",
        ),
    ],
)
def test_it_takes_the_place_of_a_gcc_that_is_not_there(
    name: str,
    program: str,
    shared: str,
    core: str,
    fake: Fake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = fake(SOUND)
    for variable in ("CPATH", "ZIG_LIB_DIR", "LD_PRELOAD"):
        monkeypatch.setenv(variable, "/nonexistent")
    found = find_toolchain(load_target(name))
    assert found.gcc.argv == (sys.executable, "-m", "ziglang", "cc")
    assert found.ar.argv == (sys.executable, "-m", "ziglang", "ar")
    always = (f"-mcpu={core}", "-g0", "-fno-sanitize=undefined")
    assert found.flags == ("-target", program, *always)
    assert found.static
    assert found.shared is not None
    assert found.shared.flags == ("-target", shared, *always)
    assert not found.shared.static
    assert found.versions == {"ziglang": "ziglang 0.99.1"}

    found.run_gcc([*found.flags, "-c", "a.c"], tmp_path)
    arguments, environment, directory = runs()[-1]
    assert arguments == ["cc", *found.flags, "-c", "a.c"]
    assert directory == str(tmp_path)
    assert environment["ZIG_GLOBAL_CACHE_DIR"] == str(tmp_path / "home" / "zig")
    # The cache of objects must not outlive the build: it does not see that weights.bin changed.
    assert environment["ZIG_LOCAL_CACHE_DIR"] == ".zig-cache"
    assert not {"CPATH", "ZIG_LIB_DIR", "LD_PRELOAD"} & set(environment)
    found.archive("a.a", ["a.o"], tmp_path)
    assert runs()[-1][0] == ["ar", "rcsD", "a.a", "a.o"]


def test_gcc_comes_first(fake: Fake, tmp_path: Path) -> None:
    runs = fake(SOUND)
    for name in ("gcc", "ar"):
        program = tmp_path / "bin" / f"aarch64-linux-gnu-{name}"
        program.write_text(f"#!{sys.executable}\nprint('/lib/' + __file__)\n")
        program.chmod(0o755)
    found = find_toolchain(load_target("linux-aarch64"))
    assert found.gcc.name == "aarch64-linux-gnu-gcc"
    assert found.shared is None
    with pytest.raises(FileNotFoundError):
        runs()


@pytest.mark.parametrize("name", ["mps2-an386", "nucleo-f446re", "host"])
def test_it_is_for_linux_boards_only(name: str, fake: Fake) -> None:
    fake(SOUND)
    with pytest.raises(MissingToolError, match="gcc is not installed") as raised:
        find_toolchain(load_target(name))
    assert "ziglang" not in str(raised.value.hint)


@pytest.mark.parametrize("name", ["linux-aarch64", "linux-armv7", "rpi5"])
def test_without_either_the_hint_names_both(name: str, no_gcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zig, "find_spec", lambda name: None)
    target = load_target(name)
    with pytest.raises(MissingToolError, match=f"{target.toolchain.prefix}gcc is not installed") as raised:
        find_toolchain(target)
    hint = f"sudo apt-get install -y \\S+ \\S+, or {re.escape(sys.executable)} -m pip install ziglang"
    assert re.fullmatch(hint, str(raised.value.hint))


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("linux-aarch64", ("-O3", "-mcpu=cortex-a53"), ("-O3", "-mcpu=cortex_a53-aes-sha2")),
        ("linux-aarch64", ("-mcpu=neoverse-n1",), ("-mcpu=neoverse_n1-aes-sha2",)),
        ("linux-aarch64", ("-march=armv8.2-a+dotprod",), ("-mcpu=generic+v8_2a+dotprod",)),
        ("linux-aarch64", ("-Os",), ("-Os", "-mcpu=generic")),
        (
            "linux-armv7",
            ("-march=armv7-a", "-mfpu=neon-vfpv4", "-mfloat-abi=hard"),
            ("-mcpu=generic+v7a+neon+vfp4",),
        ),
    ],
)
def test_flags_are_translated(name: str, flags: tuple[str, ...], expected: tuple[str, ...]) -> None:
    translated = zig_flags(replace_flags(load_target(name), flags))
    assert translated == (*expected, "-g0", "-fno-sanitize=undefined")


@pytest.mark.parametrize(
    ("name", "flags", "named"),
    [
        ("linux-aarch64", ("-mcpu=cortex-a72", "-mtune=cortex-a53"), "-mtune=cortex-a53"),
        ("linux-aarch64", ("-mcpu=cortex-a72", "-mcpu=cortex-a53"), "-mcpu=cortex-a72"),
        ("linux-aarch64", ("-mcpu=cortex-a72+crypto",), "cortex-a72"),
        ("linux-aarch64", ("-march=armv8.2-a", "-mcpu=cortex-a76"), "armv8.2-a"),
        ("linux-aarch64", ("-mstrict-align",), "-mstrict-align"),
        ("linux-armv7", ("-march=armv7-a", "-mfpu=vfpv3-d16", "-mfloat-abi=softfp"), "softfp"),
        ("linux-armv7", ("-march=armv7-a", "-mfpu=vfpv3-d16"), "armv7-a"),
        ("linux-armv7", ("-march=armv7-a", "-mfloat-abi=hard"), "hard"),
        ("linux-armv7", ("-march=armv7-a", "-mfpu=crypto-neon", "-mfloat-abi=hard"), "crypto-neon"),
        ("linux-armv7", ("-mcpu=cortex-a7", "-mfpu=neon", "-mfloat-abi=hard"), "cortex-a7"),
    ],
)
def test_what_has_no_equal_is_refused(name: str, flags: tuple[str, ...], named: str, fake: Fake) -> None:
    fake(SOUND)
    with pytest.raises(MissingToolError, match="no equal to") as raised:
        find_toolchain(replace_flags(load_target(name), flags))
    assert named in raised.value.message
    assert str(raised.value.hint).startswith("sudo apt-get install -y gcc-")


def test_a_zig_that_does_not_run_is_missing(fake: Fake) -> None:
    fake("sys.exit('\\x1b[31mno such instruction')")
    with pytest.raises(MissingToolError, match="no such instruction") as raised:
        find_toolchain(load_target("linux-aarch64"))
    assert "\x1b" not in raised.value.message


def test_a_core_without_an_fpu_is_found_out(fake: Fake) -> None:
    """What the probe says is believed: it fails where the compiler has no registers for floats."""
    fake("if sys.argv[1] == 'cc' and '#error no FPU' in Path('probe.c').read_text(): sys.exit('no FPU')")
    with pytest.raises(MissingToolError, match="no FPU"):
        find_toolchain(load_target("linux-armv7"))


def test_a_build_that_takes_too_long_says_what_took_the_time(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("import time\nif '-static' in sys.argv: time.sleep(60)\nprint('0.99.1')")
    monkeypatch.setattr(zig, "RUN_TIMEOUT_SECONDS", 3.0)
    found = find_toolchain(load_target("linux-aarch64"))
    with pytest.raises(TargetError, match="did not finish in 3 s") as raised:
        found.run_gcc(["-static"], tmp_path)
    assert "C library" in str(raised.value.hint)


def test_a_cache_that_cannot_be_written_is_a_usage_error(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(SOUND)
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="no place for ziglang's cache") as raised:
        find_toolchain(load_target("linux-aarch64"))
    assert "EDGEKIT_HOME" in str(raised.value.hint)


def test_doctor_says_which_compiler_serves(fake: Fake) -> None:
    fake(SOUND)
    target = load_target("linux-aarch64")
    check = next(each for each in all_checks([target], chosen=True) if each.name.startswith("C compiler"))
    assert (check.status, check.detail) == ("ok", "ziglang 0.99.1")


MAIN = """\
#include "edgekit_model.h"
#include <stdio.h>
int main(void) {
    signed char *in = edgekit_model_input(0);
    for (unsigned i = 0; i < EDGEKIT_MODEL_INPUT_0_BYTES; i++) in[i] = (signed char)(i * 37u);
    if (edgekit_model_run()) return 1;
    const signed char *out = edgekit_model_output(0);
    for (unsigned i = 0; i < EDGEKIT_MODEL_OUTPUT_0_BYTES; i++) printf("%d ", out[i]);
    return 0;
}
"""


@pytest.mark.skipif(find_spec("ziglang") is None, reason="the Python package ziglang is not installed")
@pytest.mark.parametrize(("name", "machine"), [("linux-aarch64", "aarch64"), ("linux-armv7", "arm")])
def test_what_it_builds(name: str, machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes anywhere, the new weights and not the old ones, and the host's answers under QEMU."""
    from edgekit.compiler import compile_model
    from tests.compiler.test_compile import small_model

    qemu, gcc = shutil.which(f"qemu-{machine}"), shutil.which("gcc")
    monkeypatch.setattr("edgekit.firmware.toolchain.shutil.which", lambda program: None)
    target = load_target(name)
    compiled = compile_model(small_model(), target)
    image = build_image(compiled, target, tmp_path / "one", provenance={})
    build_image(compiled, target, tmp_path / "a longer name" / "two", provenance={})
    files = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*")}
    for relative, path in files.items():
        if path.is_file():
            assert (tmp_path / "a longer name" / "two" / relative).read_bytes() == path.read_bytes(), relative
            assert os.fsencode(tmp_path) not in path.read_bytes(), relative
    assert load_bundle(tmp_path / "one").manifest.tools["ziglang"].startswith("ziglang ")

    runner = image.path.read_bytes()
    assert parse_elf(runner, "runner").type == FileType.EXECUTABLE
    assert b"/ld-linux" not in runner
    assert b"ubsan" not in runner
    shared = next((tmp_path / "one" / "python").glob("*.so")).read_bytes()
    assert b"libc.so.6" in shared
    assert {int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", shared)} <= set(range(29))

    weights = bytes(255 - byte for byte in compiled.files["weights.bin"])
    other = replace(compiled, files={**compiled.files, "weights.bin": weights})
    changed = build_image(other, target, tmp_path / "other", provenance={}).path.read_bytes()
    first = weights[:144]  # the first of its tables
    assert first in changed
    assert first not in runner

    if qemu is None or gcc is None:
        return
    (tmp_path / "main.c").write_text(MAIN)
    toolchain = find_toolchain(target)
    link = ["-Ione", "main.c", *(str(path) for path in (tmp_path / "one").glob("*.a")), "-lm", "-o", "app"]
    made = toolchain.run_gcc([*toolchain.flags, "-O2", *link], tmp_path)
    assert made.returncode == 0, made.stderr
    answers = _output([qemu, "app"], tmp_path)
    monkeypatch.undo()
    host = load_target("host")
    build_image(compile_model(small_model(), host), host, tmp_path / "host", provenance={})
    archive = next((tmp_path / "host").glob("*.a"))
    _output([gcc, "-Ihost", "main.c", str(archive), "-lm", "-o", "host-app"], tmp_path)
    assert answers == _output(["./host-app"], tmp_path)
    assert len(set(answers.split())) > 1
    # The runner ends when its line does.
    silent = subprocess.DEVNULL
    subprocess.run([qemu, str(image.path)], stdin=silent, stdout=silent, check=True, timeout=30)


def _output(argv: list[str], directory: Path) -> str:
    return subprocess.run(
        argv,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    ).stdout
