"""Boards: how they are named, flashed, started and talked to. The protocol is docs/protocol.md."""

from __future__ import annotations

from edgekit.device.board import BoardAddress, parse_board
from edgekit.device.client import BoardInfo, Client, HighWater, ProgramInfo, TensorInfo, Timeouts
from edgekit.device.connect import board_health, flash, flashed, open_board, unmeasurable
from edgekit.device.faults import DeviceFaultError

__all__ = [
    "BoardAddress",
    "BoardInfo",
    "Client",
    "DeviceFaultError",
    "HighWater",
    "ProgramInfo",
    "TensorInfo",
    "Timeouts",
    "board_health",
    "flash",
    "flashed",
    "open_board",
    "parse_board",
    "unmeasurable",
]
