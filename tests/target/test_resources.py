"""Shipped files are found beside the package in a checkout and inside it in a wheel, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit import resources
from edgekit.errors import MissingToolError
from edgekit.resources import firmware_templates_directory, targets_directory


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package folder somewhere else, with nothing in it or beside it."""
    folder = tmp_path / "site-packages" / "edgekit"
    folder.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", folder)
    resources._find.cache_clear()
    yield folder
    resources._find.cache_clear()


def _ship(folder: Path) -> None:
    (folder / "targets").mkdir(parents=True)
    (folder / "targets" / "host.toml").touch()
    (folder / "firmware_templates" / "agent").mkdir(parents=True)
    (folder / "firmware_templates" / "agent" / "edgekit_program.h").touch()


def test_in_this_checkout() -> None:
    assert (targets_directory() / "mps2-an386.toml").is_file()
    assert (firmware_templates_directory() / "platform" / "cortex_m" / "linker.ld.j2").is_file()


def test_in_a_wheel(package: Path) -> None:
    _ship(package / "_resources")
    assert targets_directory() == package / "_resources" / "targets"
    assert firmware_templates_directory() == package / "_resources" / "firmware_templates"


def test_a_strangers_folder_in_site_packages_is_passed_over(package: Path) -> None:
    (package.parent / "targets").mkdir()
    with pytest.raises(MissingToolError, match="edgekit's own files are missing"):
        targets_directory()


def test_the_wheels_own_files_go_before_those_beside_it(package: Path) -> None:
    _ship(package / "_resources")
    _ship(package.parent)
    assert targets_directory() == package / "_resources" / "targets"
