"""Whole builds: contents, sizes, the README's lines, determinism, interruption and hostile names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.errors import ModelError, UnsupportedError, UsageError
from edgekit.firmware import build, build_image, load_bundle
from edgekit.firmware.python_module import module_name
from edgekit.firmware.toolchain import Toolchain, ToolResult, find_toolchain
from edgekit.target import load_target

from .sample import KERNELS, compiled_model

needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)
EVERY = [
    pytest.param("host"),
    pytest.param("mps2-an386", marks=needs_arm),
    pytest.param("nucleo-f446re", marks=needs_arm),
]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", EVERY)
def test_a_bundle_has_what_its_manifest_lists(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    image = build_image(compiled_model(target), target, tmp_path / "out", provenance={"tvm": "0.27"})
    files = _files(tmp_path / "out")
    manifest = json.loads(files.pop("manifest.json"))
    assert {path: hashlib.sha256(data).hexdigest() for path, data in files.items()} == {
        path: record["sha256"] for path, record in manifest["files"].items()
    }
    assert image.path.name == ("runner" if name == "host" else "firmware.elf")
    assert {"README.md", "edgekit_model.h", "libsample.a", "model.c", "kernels.o", image.path.name} <= set(
        files
    )
    assert manifest["provenance"] == {"tvm": "0.27"}
    assert manifest["schema"] == "edgekit.bundle/1"
    assert any(path.startswith("agent/") for path in manifest["sources"])
    assert f"{target.toolchain.prefix}gcc" in manifest["tools"]
    assert load_bundle(tmp_path / "out").image == image


@pytest.mark.parametrize("name", EVERY)
def test_sizes_are_those_that_size_prints(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    memory = build_image(compiled_model(target), target, tmp_path / "out", provenance={}).memory
    path = tmp_path / "out" / ("runner" if name == "host" else "firmware.elf")
    printed = subprocess.run(
        [f"{target.toolchain.prefix}size", "-B", "-d", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    text, data, bss = (int(word) for word in printed.splitlines()[1].split()[:3])
    assert memory.flash_bytes == text + data
    assert memory.ram_bytes == data + bss
    assert memory.arena_bytes == 48
    assert memory.weights_bytes == 16
    if name == "host":
        assert (memory.stack_bytes, memory.flash_limit, memory.ram_limit) == (0, None, None)
    else:
        assert memory.stack_bytes == 4096
        assert memory.flash_limit == target.memory[0].size_bytes
        assert memory.ram_limit == target.memory[1].size_bytes


@pytest.mark.parametrize("name", EVERY)
def test_the_same_inputs_give_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target(name)
    compiled = compiled_model(target)
    build_image(compiled, target, tmp_path / "one", provenance={"b": "2", "a": "1"})
    elsewhere = tmp_path / "a much longer folder" / "ünïcode"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("HOME", "/nonexistent")
    os.umask(0o077)
    try:
        build_image(compiled, target, Path("two"), provenance={"a": "1", "b": "2"})
    finally:
        os.umask(0o022)
    assert _files(tmp_path / "one") == _files(elsewhere / "two")
    assert not [path for path, data in _files(tmp_path / "one").items() if str(tmp_path).encode() in data]


@pytest.mark.parametrize("name", EVERY)
def test_the_five_lines_of_the_readme_build_as_written(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    readme = (tmp_path / "out" / "README.md").read_text()
    lines = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)[0]
    assert len(lines.splitlines()) == 5
    done = subprocess.run(
        ["sh", "-e", "-c", lines],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    app = tmp_path / "out" / "app"
    symbols = subprocess.run(
        [f"{target.toolchain.prefix}nm", str(app)], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert " T edgekit_model_run" in symbols
    assert " T sample_add" in symbols
    if name == "host":
        subprocess.run([str(app)], check=True, timeout=30)
    load_bundle(tmp_path / "out")  # what was built beside it does not make it another bundle


def test_the_library_computes_what_the_model_says(tmp_path: Path) -> None:
    target = load_target("host")
    build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    (tmp_path / "main.c").write_text(
        '#include "edgekit_model.h"\n#include <stdio.h>\n'
        "int main(void) { int8_t *in = edgekit_model_input(0); const int8_t *out;\n"
        "for (int i = 0; i < 16; i++) in[i] = (int8_t)(i - 8);\n"
        "if (edgekit_model_run()) return 1;\n"
        'out = edgekit_model_output(0); for (int i = 0; i < 16; i++) printf("%d ", out[i]); return 0; }\n'
    )
    command = ["gcc", "-Iout", "main.c", "-Lout", "-lsample", "-lm", "-o", "app"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    printed = subprocess.run(
        [str(tmp_path / "app")], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert [int(word) for word in printed.split()] == [2 * (i - 8) + i for i in range(16)]


def test_the_runner_ends_when_its_line_does(tmp_path: Path) -> None:
    target = load_target("host")
    image = build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    done = subprocess.run(
        [str(image.path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0


def test_without_a_static_c_library_the_runner_is_dynamic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target("host")
    found = replace(find_toolchain(target), static=False)
    monkeypatch.setattr(build, "find_toolchain", lambda target: found)
    image = build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    assert b"ld-linux" in image.path.read_bytes()
    done = subprocess.run([str(image.path)], stdin=subprocess.DEVNULL, timeout=30, check=False)
    assert done.returncode == 0
    assert load_bundle(tmp_path / "out").image == image


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = load_target("host")
    with pytest.raises(UsageError, match="cannot be written"):
        build_image(compiled_model(target), target, tmp_path / "file" / "out", provenance={})


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_compiled_with_a_warning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target(name)
    said: list[str] = []
    original = Toolchain.run_gcc

    def listening(self: Toolchain, arguments: Sequence[str], directory: Path) -> ToolResult:
        result = original(self, arguments, directory)
        said.append(result.stderr)
        return result

    monkeypatch.setattr(Toolchain, "run_gcc", listening)
    build_image(compiled_model(target), target, tmp_path / "out", provenance={})
    assert len(said) > 5
    assert "".join(said) == ""


HOSTILE = (
    "*/",
    '"; int x; /*',
    "<script>alert(1)</script>",
    "\x1b[2J\x07",
    "../../../tmp/x",
    "a\nb",
    "%n%s",
    "\ud800",
)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_names_do_no_harm(text: str, tmp_path: Path) -> None:
    target = load_target("host")
    plain = build_image(compiled_model(target), target, tmp_path / "plain", provenance={})
    build_image(
        compiled_model(target, name=text, tensor=text), target, tmp_path / "out", provenance={text: text}
    )
    made, reference = _files(tmp_path / "out"), _files(tmp_path / "plain")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "plain"]
    library = next(path for path in made if path.startswith("lib"))
    assert re.fullmatch(r"lib[a-z][a-z0-9_]*\.a", library)
    for path in ("runner", "generated/programs.c", "generated/edgekit_port.h"):
        assert made[path] == reference[path]
    readme = made["README.md"].decode()
    name = library[3:-2]
    readme = re.sub(rf"(?<=lib){name}(?=\.a)|(?<=-l){name} |(?<=# ){name}(?= for)", "sample", readme)
    readme = readme.replace(f"from {module_name(name)} import", "from sample import")
    assert readme == reference["README.md"].decode().replace("-lsample ", "-lsample")
    assert b"\x1b" not in made["manifest.json"]
    bundle = load_bundle(tmp_path / "out")
    assert bundle.compiled.name == text.replace("\ud800", "?")
    assert bundle.compiled.operators[1].name == text.replace("\ud800", "?")
    assert plain.memory == bundle.image.memory


def test_a_kernel_that_needs_a_runtime_is_refused(tmp_path: Path) -> None:
    target = load_target("host")
    kernels = (
        KERNELS + "int TVMBackendParallelLaunch(void); int f(void) { return TVMBackendParallelLaunch(); }"
    )
    with pytest.raises(UnsupportedError, match="TVMBackendParallelLaunch"):
        build_image(compiled_model(target, kernels=kernels), target, tmp_path / "out", provenance={})
    assert list(tmp_path.iterdir()) == []


def test_a_model_for_another_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="compiled for host, not for mps2-an386"):
        build_image(compiled_model("host"), load_target("mps2-an386"), tmp_path / "out", provenance={})


def test_an_older_bundle_is_replaced_and_other_files_are_kept(tmp_path: Path) -> None:
    target, out = load_target("host"), tmp_path / "out"
    build_image(compiled_model(target, name="first"), target, out, provenance={})
    (out / "report.html").write_text("mine")
    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("mine too")
    build_image(compiled_model(target, name="second"), target, out, provenance={})
    assert (out / "libsecond.a").is_file()
    assert not (out / "libfirst.a").exists()
    assert (out / "report.html").read_text() == "mine"
    assert (out / "notes" / "a.txt").read_text() == "mine too"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_a_bundle_is_left_alone(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    elif kind == "file":
        out.write_text("years of work")
    else:
        (tmp_path / "real").mkdir()
        out.symlink_to(tmp_path / "real")
    before = sorted(tmp_path.rglob("*"))
    target = load_target("host")
    with pytest.raises(UsageError):
        build_image(compiled_model(target), target, out, provenance={})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt, KeyboardInterrupt), (OSError(28, "No space left on device"), UsageError)],
    ids=["interrupt", "full disk"],
)
@pytest.mark.parametrize("moment", [0, 3, 9])
def test_a_build_that_ends_early_leaves_the_old_bundle_and_nothing_else(
    moment: int,
    error: BaseException,
    raised: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, out = load_target("host"), tmp_path / "out"
    build_image(compiled_model(target, name="first"), target, out, provenance={})
    before = _files(tmp_path)
    original, calls = build.write_file, iter(range(1000))

    def failing(path: Path, data: bytes, *, executable: bool = False) -> None:
        if next(calls) == moment:
            raise error
        original(path, data, executable=executable)

    monkeypatch.setattr(build, "write_file", failing)
    with pytest.raises(raised):
        build_image(compiled_model(target, name="second"), target, out, provenance={})
    assert _files(tmp_path) == before


def test_a_real_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from sample import compiled_model\n"
        "from edgekit.firmware import build_image; from edgekit.target import load_target\n"
        "target = load_target('host'); compiled = compiled_model(target); print('go', flush=True)\n"
        "while True: build_image(compiled, target, Path(sys.argv[2]) / 'out', provenance={})\n"
    )
    root = Path(__file__).resolve().parents[2]
    for delay in (0.02, 0.09, 0.17):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) != 0
        finally:
            process.kill()
            process.wait(timeout=30)
            if process.stdout is not None:
                process.stdout.close()
        assert {entry.name for entry in tmp_path.iterdir()} <= {"out"}
        if (tmp_path / "out").exists():
            load_bundle(tmp_path / "out")
