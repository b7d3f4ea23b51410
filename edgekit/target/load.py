"""A target from its TOML text, or the sentence that says why not."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgekit.errors import TargetError
from edgekit.fsutil import read_plain_file
from edgekit.target.flashing import FLASH_METHODS
from edgekit.target.ports import PORTS
from edgekit.target.rules import problems
from edgekit.target.schema import (
    Clock,
    Compile,
    MachineEmulator,
    MemoryRegion,
    Target,
    Toolchain,
    Transport,
    UserEmulator,
)
from edgekit.text import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["MAX_FILE_BYTES", "parse_target", "read_target"]

MAX_FILE_BYTES: Final = 16 * 1024
"""A real file has 2 KB; the TOML reader takes seconds for 64 KB of dotted keys."""
_MAX_DEPTH: Final = 8
_MAX_PROBLEMS: Final = 8

_SECTIONS: Final[Mapping[tuple[str, ...], type[BaseModel]]] = {
    (): Target,
    ("compile",): Compile,
    ("toolchain",): Toolchain,
    ("memory",): MemoryRegion,
    ("transport",): Transport,
    ("clock",): Clock,
    ("emulator", "machine"): MachineEmulator,
    ("emulator", "user"): UserEmulator,
    **{("port", name): options for name, options in PORTS.items()},
    **{("flash", kind): options for kind, options in FLASH_METHODS.items()},
}


def read_target(path: Path) -> Target:
    """Reads and checks one target file.

    Raises:
        TargetError: the file cannot be read, is no TOML, or is not a sound target.
    """
    where = printable(str(path))
    text = _read_text(path, where)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise TargetError(f"{where}: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and an integer of thousands of digits
        raise TargetError(f"{where}: not valid TOML: {printable(str(error))}") from None
    target = parse_target(document, where)
    target._source_path = path
    return target


def parse_target(document: object, where: str) -> Target:
    """Checks a target given as plain values, such as a parsed TOML file or a bundle's copy of one.

    Args:
        document: What a TOML or JSON parser gave.
        where: The place to name in an error, safe to print.

    Raises:
        TargetError: names every wrong key, with the nearest one that exists.
    """
    try:
        target = Target.model_validate(_frozen(document, 0))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        details.sort(
            key=lambda detail: detail["type"] != "extra_forbidden"
        )  # a misspelt key explains a missing one
        sentences = list(dict.fromkeys(_sentence(detail) for detail in details))
        raise TargetError(_joined(where, sentences), hint="docs/targets.md lists every key") from None
    except RecursionError:
        raise TargetError(f"{where}: nested too deeply") from None
    broken = problems(target)
    if broken:
        raise TargetError(_joined(where, broken), hint="docs/targets.md explains the rules")
    return target


def _read_text(path: Path, where: str) -> str:
    try:
        data = read_plain_file(str(path), MAX_FILE_BYTES, follow=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise TargetError(f"{where}: cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise TargetError(f"{where}: larger than {MAX_FILE_BYTES} bytes, so it is no target file")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(f"{where}: not UTF-8 text (byte {error.start})") from None


def _frozen(value: object, depth: int) -> object:
    """Lists as tuples, since strict frozen models take nothing else."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(value, Mapping):
        return {key: _frozen(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_frozen(item, depth + 1) for item in value)
    return value


def _joined(where: str, sentences: Sequence[str]) -> str:
    shown = list(sentences[:_MAX_PROBLEMS])
    if len(sentences) > _MAX_PROBLEMS:
        shown.append(f"and {len(sentences) - _MAX_PROBLEMS} more")
    return "\n".join(f"{where}: {sentence}" for sentence in shown)


def _sentence(detail: ErrorDetails) -> str:
    """One of pydantic's findings in edgekit's words: the key's path, what is wrong, what was likely meant."""
    location = detail["loc"]
    key = _key_path(location)
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key {key}" + _nearest(str(location[-1]), _keys_at(location[:-1]))
    if kind == "missing":
        return f"{key} is missing"
    if kind == "union_tag_not_found":
        return f"{key}.{'name' if location[0] == 'port' else 'kind'} is missing"
    if kind == "union_tag_invalid":
        known = tuple(PORTS if location[0] == "port" else FLASH_METHODS)
        tag = str(context.get("tag", ""))
        return f"{key}: unknown {printable(tag)!r}" + _nearest(tag, known) + f" (known: {', '.join(known)})"
    if kind == "literal_error":
        value = detail["input"]
        return f"{key}: {_shown(value)} is not one of {context.get('expected', '')}"
    if kind == "too_short":
        return f"{key} is empty"
    if kind == "string_pattern_mismatch":
        return f"{key}: {_shown(detail['input'])} has a form that is not allowed here"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {_shown(detail['input'])}: {message[:1].lower()}{message[1:]}"


def _shown(value: object) -> str:
    """A wrong value, short and safe to print."""
    if isinstance(value, (Mapping, list, tuple)):
        return "a table" if isinstance(value, Mapping) else "a list"
    return printable(repr(value)[:80])


def _key_path(location: tuple[int | str, ...]) -> str:
    """`("flash", 0, "pyocd", "target")` as `flash[0].target`: without the tag that pydantic puts in."""
    path = ""
    for index, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step}]"
        elif not _is_tag(location, index):
            path += ("." if path else "") + printable(str(step)[:60])
    return path or "the file"


def _is_tag(location: tuple[int | str, ...], index: int) -> bool:
    head, step = location[0], location[index]
    return (
        (head == "port" and index == 1 and step in PORTS)
        or (head == "flash" and index == 2 and step in FLASH_METHODS)
        or (head == "emulator" and index == 1)
    )


def _keys_at(location: tuple[int | str, ...]) -> tuple[str, ...]:
    section = _SECTIONS.get(tuple(str(step) for step in location if not isinstance(step, int)))
    if section is None:
        return ()
    return tuple(field.alias or name for name, field in section.model_fields.items())


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word[:60], known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
