"""Ways to put an image on a board: each declares the program it needs and builds its argv."""

from __future__ import annotations

from edgekit.device.flashers.base import Flasher, run_flasher
from edgekit.device.flashers.emulated import EmulatedFlasher
from edgekit.device.flashers.none import NoFlasher
from edgekit.device.flashers.pyocd import PyocdFlasher

__all__ = ["EmulatedFlasher", "Flasher", "NoFlasher", "PyocdFlasher", "run_flasher"]
