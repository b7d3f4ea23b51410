"""Where a torch model comes from: factories, weights, archives; and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchao", reason="torch and torchao are not installed (pip install 'edgekit[torch]')")
import torch
from safetensors.torch import save_file
from torch import nn

import edgekit
from edgekit import ImportOptions
from edgekit.artifacts import TorchProgram
from edgekit.errors import ModelError, UnsupportedError, UsageError
from edgekit.frontend import load_model, load_torch, open_source
from edgekit.frontend.calibration import needs_calibration
from edgekit.frontend.torch_convert import imported_operators
from edgekit.frontend.torch_graph import capture
from edgekit.frontend.torch_quantize import calibration_rows, quantize_graph

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(torch.relu(self.conv(image)).mean((2, 3)))


def bare():
    return Net()


def complete():
    return Net(), (torch.zeros(1, 3, 8, 8),)


def wrong():
    return 7


def failing():
    raise KeyError("the\\x1b[31m checkpoint")


def leaving():
    raise SystemExit(0)


constant = 3
"""

Factory = Callable[[str], str]


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Factory:
    """Name of a factory in a module of this test's own, in the current folder."""
    name = f"made_{tmp_path.name}_{os.getpid()}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return lambda function: f"{name}:{function}"


def _save(path: Path, **changes: torch.Tensor | None) -> Path:
    tensors = {
        "conv.weight": torch.ones(4, 3, 3, 3),
        "conv.bias": torch.zeros(4),
        "head.weight": torch.ones(2, 4),
        "head.bias": torch.tensor([1.0, 2.0]),
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    return path


def test_a_factory_with_weights_and_a_shape(factory: Factory, tmp_path: Path) -> None:
    weights = _save(tmp_path / "w.safetensors")
    options = ImportOptions(weights=weights, shapes={"image": (1, 3, 8, 8)}, precision="float32")
    model = load_model(factory("bare"), options)
    assert (model.format, model.input_names, model.output_names) == ("torch", ("image",), ("output",))
    assert model.name == factory("bare").partition(":")[0] + "_bare"
    program = open_source(factory("bare"), options)
    assert isinstance(program, TorchProgram)
    assert isinstance(program.program, nn.Module)
    assert torch.equal(program.program.head.bias, torch.tensor([1.0, 2.0]))


def test_a_shape_overrides_what_the_factory_says(factory: Factory) -> None:
    options = ImportOptions(shapes={"image": (1, 3, 12, 10)}, precision="float32")
    model = load_model(factory("complete"), options)
    assert [int(size) for size in model.module["main"].params[0].ty.shape] == [1, 3, 12, 10]


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        ("wrong", ModelError, "returned int"),
        ("failing", ModelError, r"KeyError: 'the\x1b[31m checkpoint'"),
        ("leaving", ModelError, "SystemExit"),
        ("missing", ModelError, "has no missing"),
        ("constant", ModelError, "is not a function"),
        ("bare", UsageError, "nothing says the shape of 'image'"),
    ],
)
def test_factories_that_are_refused(
    factory: Factory, function: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        load_model(factory(function))
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="ModuleNotFoundError: No module named 'no_such_package'"):
        load_model("no_such_package.models:build")


@pytest.mark.parametrize(
    "name", ["a b:c", "a:b:c", "../a:b", "a-b:c", "a:b()", "os.system:", ":build", "a.:b"]
)
def test_what_is_no_factory_name_is_a_file(name: str) -> None:
    with pytest.raises(ModelError, match="no known suffix"):
        load_model(name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head__bias": None}, "head.bias is missing"),
        ({"extra": torch.zeros(2)}, "extra is not the module's"),
        ({"head__weight": torch.ones(2, 5)}, "head.weight is 2,5, the module's 2,4"),
    ],
)
def test_weights_that_do_not_fit(
    factory: Factory, tmp_path: Path, changes: dict[str, torch.Tensor | None], words: str
) -> None:
    options = ImportOptions(weights=_save(tmp_path / "w.safetensors", **changes))
    with pytest.raises(ModelError, match=words):
        load_model(factory("complete"), options)


def test_weights_in_other_formats_are_refused(factory: Factory, tmp_path: Path) -> None:
    pickle = tmp_path / "w.pt"
    torch.save({"head.bias": torch.zeros(2)}, pickle)
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        load_model(factory("complete"), ImportOptions(weights=pickle))
    renamed = tmp_path / "w.safetensors"
    for content in (
        pickle.read_bytes(),
        b"",
        b"\xff" * 8,
        _save(tmp_path / "v.safetensors").read_bytes()[:-9],
    ):
        renamed.write_bytes(content)
        with pytest.raises(ModelError, match="no safetensors file"):
            load_model(factory("complete"), ImportOptions(weights=renamed))
    with pytest.raises(UsageError, match="--weights is for a torch factory"):
        load_model(tmp_path / "model.onnx", ImportOptions(weights=renamed))
    with pytest.raises(ModelError, match=r"\.pt has no known suffix") as caught:
        load_model(pickle)
    assert "pickle can run code" in str(caught.value.hint)


def _program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    return torch.export.export(module, (torch.zeros(1, 3, 8, 8),))


def test_an_archive_is_opened_only_when_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(_program(), path)
    with monkeypatch.context() as patched:
        patched.setattr(torch.export, "load", lambda *_: pytest.fail("the archive was opened"))
        with pytest.raises(ModelError, match="can run code"):
            load_model(path)
    model = load_model(path, ImportOptions(trusted=True, precision="float32"))
    assert model.name == "model"
    assert model.sha256 == load_torch(_program(), options=ImportOptions(precision="float32")).sha256
    for content in (
        b"",
        b"\x80\x02pickle",
        path.read_bytes()[:4],
        path.read_bytes()[: path.stat().st_size // 2],
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            load_model(path, ImportOptions(trusted=True))


def test_what_needs_calibration() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    example = (torch.randn(2, 3, 8, 8),)
    source = TorchProgram(module, example, "net")
    assert needs_calibration(source)
    assert not needs_calibration(source, ImportOptions(precision="float32"))
    with pytest.raises(UsageError, match="a few rows"):
        load_model(source)
    with pytest.raises(UsageError, match="does not say what its inputs are"):
        load_torch(module)
    with pytest.raises(ModelError, match=r"rows of 3,9,9; the model takes 2,3,8,8"):
        load_torch(module, example, [np.zeros((4, 3, 9, 9), np.float32)])
    with pytest.raises(ModelError, match="no numbers"):
        load_torch(module, example, [np.full((4, 2, 3, 8, 8), np.nan, np.float32)])
    with pytest.raises(UsageError, match=r"a torch\.nn\.Module"):
        edgekit.deploy(object(), target="host")


def test_what_is_quantised_needs_no_calibration() -> None:
    example = (torch.zeros(1, 3, 8, 8),)
    graph = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), example, imported_operators())
    rows = [np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)]
    converted = quantize_graph(graph, calibration_rows(["x"], example, rows), ImportOptions())
    assert not needs_calibration(TorchProgram(converted, example, "net"))
    lines = load_torch(converted, example).module.script()
    assert lines.count("R.quantize(") == 2


class _Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(x) + torch.special.bessel_j0(x).sum()


class _Stuck(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def test_modules_that_are_refused() -> None:
    example, float32 = (torch.randn(4, 4),), ImportOptions(precision="float32")
    with pytest.raises(UnsupportedError) as caught:
        load_torch(_Unknown(), example, options=float32)
    assert "svd" in str(caught.value)
    assert "bessel" in str(caught.value), "all of them in one message"
    with pytest.raises(ModelError, match="cannot be exported"):
        load_torch(_Stuck(), example, options=float32)
    broken = nn.Linear(4, 4)
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="weight has values that are no numbers"):
        load_torch(broken, example, options=float32)
    with pytest.raises(ModelError, match="float16"):
        load_torch(nn.Linear(4, 4).half(), (example[0].half(),), options=float32)
    with pytest.raises(UnsupportedError, match="indices of its maxima"):
        load_torch(nn.MaxPool2d(2, return_indices=True), (torch.randn(1, 1, 4, 4),), options=float32)
    training = torch.export.export(nn.BatchNorm1d(4).train(), example)
    with pytest.raises(ModelError, match="training mode"):
        load_torch(training, options=float32)


def test_the_command_line_takes_a_factory(factory: Factory, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32))
    _save(tmp_path / "w.safetensors")
    command = [
        sys.executable, "-m", "edgekit", "compile", factory("bare"), "--weights", "w.safetensors",
        "--shape", "image=1,3,8,8", "--calibration", "rows.npz", "--target", "host", "-o", "out", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["model"]["format"] == "torch"
    assert document["model"]["parameters"] == 4 * 27 + 4 + 8 + 2
    (tmp_path / "model.pt2").write_bytes(b"PK\x03\x04 and nothing that torch could read")
    command[4:9] = ["model.pt2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "--trust" in done.stderr
