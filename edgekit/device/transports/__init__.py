"""Byte streams to a board: a process's pipes, a serial port. `edgekit.device.fake` has one for tests."""

from __future__ import annotations

from edgekit.device.transports.base import Transport, TransportClosedError

__all__ = ["Transport", "TransportClosedError"]
