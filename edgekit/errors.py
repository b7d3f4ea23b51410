"""The errors edgekit raises, and the exit code that each becomes on the command line.

    EdgekitError
    ├── UsageError          2   wrong flags, settings or target file
    │   └── TargetError     2   a target file that is wrong, unknown or not fit for the request
    ├── ModelError          3   a bad model, data file or bundle
    ├── UnsupportedError    4   an operator that has no form on the target
    ├── DoesNotFitError     5   flash or RAM of the board is too small
    ├── DeviceError         6   the board is unreachable or busy
    ├── VerificationError   7   a transfer failed, or the board's answers differ
    ├── BudgetError         8   a budget or an accuracy goal was missed
    └── MissingToolError    9   a program or package is missing

An error says what happened, where and why, and names the next command to type. Code raises the most
specific class; only `edgekit.cli` turns one into an exit code.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BudgetError",
    "DeviceError",
    "DoesNotFitError",
    "EdgekitError",
    "MissingToolError",
    "ModelError",
    "TargetError",
    "UnsupportedError",
    "UsageError",
    "VerificationError",
]


class EdgekitError(Exception):
    """Root of all errors that edgekit raises on purpose.

    Args:
        message: What happened, where and why, in one sentence or two.
        hint: What to do next, best a command that can be typed as it stands.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgekitError):
    """Wrong flags, a wrong edgekit.toml, or too little said to start."""

    exit_code = 2


class TargetError(UsageError):
    """A target file that is wrong or unknown."""


class ModelError(EdgekitError):
    """A model, data file or bundle that is damaged or makes no sense."""

    exit_code = 3


class UnsupportedError(EdgekitError):
    """Operators that have no form on the target; the message lists all of them with their places."""

    exit_code = 4


class DoesNotFitError(EdgekitError):
    """The image needs more flash or RAM than the board has: `excess_bytes` in all regions, where it is
    known.
    """

    exit_code = 5

    def __init__(self, message: str, *, hint: str | None = None, excess_bytes: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.excess_bytes = excess_bytes


class DeviceError(EdgekitError):
    """The board is unreachable, busy, or stopped answering."""

    exit_code = 6


class VerificationError(EdgekitError):
    """A transfer failed its check, or the board's answers differ from the reference."""

    exit_code = 7


class BudgetError(EdgekitError):
    """A budget (latency, instructions, flash, RAM, accuracy) was missed."""

    exit_code = 8


class MissingToolError(EdgekitError):
    """A program or a Python package that the request needs is not installed."""

    exit_code = 9
