"""Where the files that ship with edgekit are: shipped targets and firmware sources.

In a checkout they are beside the package; in an installed wheel they are inside it, under `_resources`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from edgekit.errors import MissingToolError

__all__ = ["firmware_templates_directory", "targets_directory"]

_PACKAGE: Final = Path(__file__).resolve().parent


def targets_directory() -> Path:
    """The folder of the shipped target files."""
    return _find("targets", "host.toml")


def firmware_templates_directory() -> Path:
    """The folder with `agent/`, `platform/` and `port/`."""
    return _find("firmware_templates", "agent/edgekit_program.h")


@cache
def _find(name: str, landmark: str) -> Path:
    """The folder `name` that holds `landmark`, so that a stranger's folder of that name is passed over."""
    for folder in (_PACKAGE / "_resources" / name, _PACKAGE.parent / name):
        if (folder / landmark).is_file():
            return folder
    raise MissingToolError(
        f"edgekit's own files are missing: no {name}/{landmark} beside {_PACKAGE}",
        hint="pip install --force-reinstall edgekit",
    )
