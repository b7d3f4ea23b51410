"""Byte streams to a board: a process's pipes, a serial port. The fake one for tests is `edgekit.device.fake`."""

from __future__ import annotations

from edgekit.device.transports.base import Transport, TransportClosedError

__all__ = ["Transport", "TransportClosedError"]
