"""The linker script of a bare-metal target, rendered from its `[[memory]]`."""

from __future__ import annotations

from typing import Final, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgekit.resources import firmware_templates_directory
from edgekit.target import Target
from edgekit.target.schema import Content

__all__ = ["REGION_PREFIX", "linker_script"]

REGION_PREFIX: Final = "mem_"
"""Before each region's name, so that none is a word of the linker's own language (`o`, `len`, `org`)."""


def linker_script(target: Target) -> str:
    """The script for `target`; its names were made harmless by the target schema.

    Raises:
        jinja2.UndefinedError: the template asks for something that is not given here.
    """
    environment = Environment(
        loader=FileSystemLoader(firmware_templates_directory() / "platform" / target.platform),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    home: dict[str, str] = {}
    for content in get_args(Content):
        region = target.region(content)
        if region is not None:
            home[content] = region.name
    return environment.get_template("linker.ld.j2").render(
        name=target.name, regions=target.memory, home=home, stack_bytes=target.stack_bytes
    )
