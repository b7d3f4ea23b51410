"""The Python module of a Linux bundle: it answers as the library does, and no name does it harm."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import TensorSpec
from edgekit.firmware import build_image
from edgekit.firmware.python_module import module_name, python_module
from edgekit.target import load_target
from tests.firmware.sample import compiled_model

HOSTILE = "x'); import os; os.system('touch /tmp/edgekit-canary') #\n\"\"\"\x1b[2J{{ 7*7 }}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("python") / "bundle"
    target = load_target("host")
    build_image(compiled_model(target), target, directory, provenance={})
    return directory / "python"


def run_python(bundle: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in the bundle's folder, with an interpreter that sees the environment's numpy."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=bundle, capture_output=True, text=True, timeout=120, check=False
    )


def module_of(bundle: Path) -> str:
    return next(path.stem for path in bundle.glob("*.py"))


def check(bundle: Path, body: str) -> None:
    """The sample doubles its input and adds constants; both tensors are int8 with the scale 0.5."""
    code = f"import numpy as np\nfrom {module_of(bundle)} import Model, INPUTS, OUTPUTS\n{body}"
    done = run_python(bundle, code)
    assert done.returncode == 0, done.stderr


def test_reals_in_reals_out(bundle: Path) -> None:
    check(
        bundle,
        """
stored = np.arange(-8, 8, dtype=np.int8).reshape(1, 16)
base = Model().run([np.zeros((1, 16), np.int8)])[0]
answer = Model().run([stored])[0]
assert answer.dtype == np.int8 and answer.shape == (1, 16)
assert (answer == 2 * stored + base).all()
reals = Model()(stored * np.float32(0.5))
assert reals.dtype == np.float32 and (reals == 0.5 * answer).all()
""",
    )


def test_batches_and_threads(bundle: Path) -> None:
    check(
        bundle,
        """
rows = np.random.default_rng(0).integers(-20, 20, (7, 16)).astype(np.int8)
batch = Model().run([rows])[0]
assert batch.shape == (7, 16)
for row, answer in zip(rows, batch):
    assert (Model(threads=3).run([row[np.newaxis]])[0][0] == answer).all()
""",
    )


@pytest.mark.parametrize(
    "call",
    [
        "Model()(np.zeros((1, 15), np.int8))",
        "Model()()",
        "Model().run([np.zeros((1, 16), np.int16)])",
        "Model(threads=0)",
    ],
)
def test_what_does_not_fit_is_a_value_error(bundle: Path, call: str) -> None:
    check(bundle, f"try:\n    {call}\nexcept ValueError:\n    pass\nelse:\n    raise SystemExit(1)")


def test_a_library_of_another_build_is_refused(bundle: Path, tmp_path: Path) -> None:
    module = module_of(bundle)
    for name in (f"{module}.py", next(bundle.glob("*.so")).name):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    text = (tmp_path / f"{module}.py").read_text()
    line = next(line for line in text.splitlines() if line.startswith("MODEL_HASH"))
    (tmp_path / f"{module}.py").write_text(text.replace(line, f'MODEL_HASH = "{"0" * 64}"'))
    done = run_python(tmp_path, f"from {module} import Model; Model()")
    assert "ImportError" in done.stderr
    assert "another build" in done.stderr


def test_hostile_names_are_text() -> None:
    target = load_target("host")
    compiled = compiled_model(target)
    spec = TensorSpec(HOSTILE, (1, 16), "int8", compiled.inputs[0].quantization)
    text = python_module(replace(compiled, name=HOSTILE, inputs=(spec,)), target, "model")
    tree = ast.parse(text)
    inputs = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INPUTS"
    )
    assert ast.literal_eval(inputs)[0][0] == HOSTILE
    assert text.isascii()


@pytest.mark.parametrize("library", ["class", "json", "numpy", "model", "match"])
def test_names_that_python_has_already_are_not_taken(library: str) -> None:
    assert module_name(library) == f"{library}_model"


@pytest.mark.parametrize("name", ["linux-aarch64", "linux-armv7"])
def test_the_library_links_for_boards(name: str, tmp_path: Path) -> None:
    from edgekit.compiler import compile_model
    from edgekit.errors import MissingToolError
    from tests.compiler.test_compile import small_model

    target = load_target(name)
    compiled = compile_model(small_model(), target)
    try:
        build_image(compiled, target, tmp_path / "bundle", provenance={})
    except MissingToolError as missing:
        pytest.skip(f"not installed: {missing.message}")
    header = next((tmp_path / "bundle" / "python").glob("*.so")).read_bytes()[:20]
    machine = int(np.frombuffer(header[18:20], np.uint16)[0])
    assert machine == {"linux-aarch64": 183, "linux-armv7": 40}[name]
