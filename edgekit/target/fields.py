"""The text and number types of a target file, each with its exact form.

A target file may come from a stranger and its words end in C, in a linker script, in argument lists and on
terminals; so each field takes only the characters it needs. The patterns are matched by pydantic's own
engine, in which `$` is the end of the text and nothing else.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

__all__ = [
    "Address",
    "BoardName",
    "CpuFeature",
    "CpuName",
    "Description",
    "Hertz",
    "RegionName",
    "Size",
    "ToolPrefix",
    "Triple",
    "UsbId",
    "parse_size",
]

BoardName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$")]
"""Lower-case letters, digits and inner dashes; it is also the file's name and a folder's."""

Description = Annotated[str, Field(pattern=r"^[\p{L}\p{N}]([\p{L}\p{N} ,.:()+_-]{0,118}[\p{L}\p{N}).])?$")]
"""One line for people; letters of any language, no mark-up, quotes or controls."""

Triple = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{1,23}(-[a-z0-9_.]{1,23}){2,3}$")]
CpuName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+_-]{0,47}$")]
CpuFeature = Annotated[str, Field(pattern=r"^[+-][a-z0-9][a-z0-9._-]{0,47}$")]

ToolPrefix = Annotated[str, Field(pattern=r"^([a-z0-9_]{1,24}-){0,5}$")]
"""What stands before `gcc`: `arm-none-eabi-`, or nothing for the machine's own. Never a folder."""

RegionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,23}$")]
"""A memory region; it becomes a name in the linker script."""

UsbId = Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]
Address = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
Hertz = Annotated[int, Field(ge=1, le=10_000_000_000)]

_SIZE: Final = re.compile(r"([0-9]{1,10}) ?(B|KiB|MiB)")
_FACTOR: Final = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}


def parse_size(value: object) -> object:
    """`"512KiB"` to 524288. A plain integer is bytes already; anything else is left for the type check.

    Raises:
        ValueError: the text is no size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError('a size is a number of B, KiB or MiB, such as "512KiB"')
    return int(found[1]) * _FACTOR[found[2]]


Size = Annotated[int, Field(ge=1, le=0x1_0000_0000), BeforeValidator(parse_size)]
"""Bytes, written as `"512KiB"`, `"4MiB"` or an integer."""
