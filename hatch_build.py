"""Puts boards and firmware into the wheel, where an installed edgekit finds them as data of the package.

An editable install gets no copy: there they are found beside the package, so that an edit is seen at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("targets", "firmware_templates")


class ResourcesHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            for folder in FOLDERS:
                build_data["force_include"][str(Path(self.root) / folder)] = f"edgekit/_resources/{folder}"
