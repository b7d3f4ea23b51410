"""Where targets are found: a path, the user's own folders, then the shipped ones."""

from __future__ import annotations

import contextlib
import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import TargetError
from edgekit.resources import targets_directory
from edgekit.target.load import read_target
from edgekit.target.schema import Target
from edgekit.text import printable

__all__ = ["TargetFile", "list_targets", "load_target", "survey_targets"]


@dataclass(frozen=True, slots=True)
class TargetFile:
    """A target file that was found: either it is sound, or `problem` says why it is not."""

    path: Path
    target: Target | None
    problem: TargetError | None


def load_target(name_or_path: str) -> Target:
    """The target called `name_or_path`, or the one in that file when it has a slash or ends in `.toml`.

    A user's own file goes before a shipped one; `Target.shadows` then names the latter.

    Raises:
        TargetError: there is none (the message names the nearest), or its file is wrong.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return read_target(Path(name_or_path))
    files = _files()
    found = files.get(name_or_path)
    if found is None:
        if name_or_path in {path.stem for path in Path().glob("*.toml")}:
            raise TargetError(
                f"there is no target called {printable(name_or_path[:80])!r}, but a file in this folder",
                hint=f"give its path: --target {printable(name_or_path)}.toml",
            )
        close = difflib.get_close_matches(name_or_path[:80], sorted(files), n=3, cutoff=0.4)
        meant = f"; did you mean {' or '.join(printable(name) for name in close)}?" if close else ""
        raise TargetError(
            f"there is no target called {printable(name_or_path[:80])!r}{meant}",
            hint="edgekit targets list",
        )
    return _read_named(found)


def list_targets() -> tuple[Target, ...]:
    """All targets that a name finds, by name.

    Raises:
        TargetError: one of the files is wrong; `survey_targets` gives the others all the same.
    """
    targets: list[Target] = []
    for file in survey_targets():
        if file.problem is not None:
            raise file.problem
        if file.target is not None:
            targets.append(file.target)
    return tuple(targets)


def survey_targets() -> tuple[TargetFile, ...]:
    """Every target file that a name finds, sound or not, by name."""
    return tuple(_surveyed(path) for _, path in sorted(_files().items()))


def _surveyed(path: Path) -> TargetFile:
    try:
        return TargetFile(path, _read_named(path), None)
    except TargetError as problem:
        return TargetFile(path, None, problem)


def _folders() -> tuple[Path, ...]:
    """The folders in which a name is looked up, first one first."""
    own = os.environ.get("EDGEKIT_TARGETS")
    folders = [Path(own)] if own else []
    folders.append(Path("targets"))
    with contextlib.suppress(RuntimeError):  # a user without a home folder
        folders.append(Path("~/.config/edgekit/targets").expanduser())
    return (*folders, targets_directory())


def _files() -> dict[str, Path]:
    """Name to file; the first folder that has a name wins."""
    files: dict[str, Path] = {}
    for folder in _folders():
        try:
            found = sorted(folder.glob("*.toml"))
        except OSError:
            continue  # a folder that is not there is the usual case
        for path in found:
            files.setdefault(path.stem, path)
    return files


def _read_named(path: Path) -> Target:
    target = read_target(path)
    if path.name != f"{target.name}.toml":
        raise TargetError(
            f"{printable(str(path))}: name: {target.name} is not the file's own name",
            hint=f"rename the file to {target.name}.toml",
        )
    shipped = targets_directory() / path.name
    if shipped.exists() and not shipped.samefile(path):
        target._shadows = shipped
    return target
