"""A wheel built from the tree works by itself: a new environment, any folder, no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "fashion_mnist"


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment with edgekit from the wheel, and all else from the one that runs the tests."""

    folder: Path
    wheel: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(
        self, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "EDGEKIT"))
        }
        return subprocess.run(
            [str(self.folder / "bin" / "edgekit"), *arguments],
            cwd=cwd,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def _call(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        arguments, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def _tree(destination: Path) -> Path:
    """The files of the checkout without what was built in it, so that no leftover gets into the wheel."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "data", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info"
    )
    shutil.copytree(ROOT, destination, ignore=ignored, symlinks=True)
    return destination


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tree = _tree(folder / "tree")
    _call(
        sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(folder),
        str(tree),
        cwd=folder,
    )  # fmt: skip
    (built,) = folder.glob("edgekit-*.whl")
    shutil.rmtree(tree)
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    _call(
        sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-deps",
        "--no-index", "--quiet", str(wheel),
        cwd=folder,
    )  # fmt: skip
    # What edgekit depends on is borrowed. A .pth line adds the folder behind the environment's own, and what
    # .pth files the borrowed folder has itself (the checkout's editable install) is not read.
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(folder, wheel)


def test_wheel_has_all_it_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "edgekit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for folder in ("targets", "firmware_templates"):
        sources = [
            path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        assert sources
        for path in sources:
            assert f"edgekit/_resources/{path.relative_to(ROOT).as_posix()}" in names
    for path in (ROOT / "edgekit").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if not name.startswith(("edgekit/", "edgekit-"))]


def test_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (sdist,) = wheel.parent.glob("edgekit-*.tar.gz")
    _call(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--quiet",
        "--wheel-dir", str(tmp_path), str(sdist),
        cwd=tmp_path,
    )  # fmt: skip
    (again,) = tmp_path.glob("edgekit-*.whl")
    first, second = zipfile.ZipFile(wheel), zipfile.ZipFile(again)
    assert sorted(first.namelist()) == sorted(second.namelist())
    assert all(first.read(name) == second.read(name) for name in first.namelist())


def test_edgekit_comes_from_the_wheel(installed: Installed, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(installed.python), "-c", "import edgekit; print(edgekit.__file__)"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installed.folder)


def test_targets_are_found(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("targets", "list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("host", "mps2-an386", "nucleo-f446re"):
        assert name in done.stdout


def _deploy(installed: Installed, target: str, samples: int, folder: Path) -> None:
    for name in ("model.onnx", "calibration.npz", "sample.npz"):
        shutil.copy(EXAMPLE / name, folder / name)
    done = installed.run(
        "deploy", "model.onnx", "--target", target, "--data", "sample.npz",
        "--calibration", "calibration.npz", "--samples", str(samples), "--json",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["target"]["name"] == target
    assert document["verify"]["bit_exact"] is True
    assert document["verify"]["samples"] == samples
    assert document["profile"]["p50"] > 0
    assert (folder / document["artifacts"]["manifest"]).is_file()
    assert (folder / document["artifacts"]["directory"] / "report.html").is_file()


def test_it_deploys_to_the_host(installed: Installed, tmp_path: Path) -> None:
    _deploy(installed, "host", 8, tmp_path)


@pytest.mark.emulator
def test_it_deploys_to_an_emulated_board(installed: Installed, emulator: str, tmp_path: Path) -> None:
    _deploy(installed, emulator, 2, tmp_path)
