"""Firmware images: built from a compiled model and a target into a bundle, and read back from one."""

from __future__ import annotations

from edgekit.firmware.budget import check_budget
from edgekit.firmware.build import build_image
from edgekit.firmware.bundle import Bundle, load_bundle
from edgekit.firmware.linker import linker_script
from edgekit.firmware.manifest import Manifest
from edgekit.firmware.names import library_name
from edgekit.firmware.toolchain import Toolchain, find_toolchain

__all__ = [
    "Bundle",
    "Manifest",
    "Toolchain",
    "build_image",
    "check_budget",
    "find_toolchain",
    "library_name",
    "linker_script",
    "load_bundle",
]
