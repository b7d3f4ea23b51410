"""Errors on the command line: the only place where an exception becomes words and an exit code."""

from __future__ import annotations

import traceback

from pydantic import JsonValue

import edgekit
from edgekit.cli.session import Session
from edgekit.errors import EdgekitError
from edgekit.text import printable

__all__ = ["EXIT_BUG", "EXIT_INTERRUPTED", "report_failure"]

EXIT_BUG = 1
EXIT_INTERRUPTED = 130


def report_failure(error: BaseException, session: Session) -> int:
    """Tell what went wrong and return the exit code; a traceback only with --debug.

    With --json the error is the document, where the command has not printed one.
    """
    if session.debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        session.complain("interrupted")
        session.document(_document("Interrupted", EXIT_INTERRUPTED, "interrupted", None))
        return EXIT_INTERRUPTED
    if isinstance(error, EdgekitError):
        message, hint, code = error.message, error.hint, error.exit_code
        kind = type(error).__name__
        session.complain(f"error: {message}")
    else:
        kind, code = "Bug", EXIT_BUG
        message = f"{type(error).__name__}: {printable(str(error), 500)}"
        hint = "run the same command with --debug for the traceback, and report it"
        session.complain(f"error: this is a bug in edgekit: {message}")
    if hint is not None:
        session.complain(f"hint: {hint}")
    session.document(_document(kind, code, message, hint))
    return code


def _document(kind: str, code: int, message: str, hint: str | None) -> JsonValue:
    return {
        "schema": "edgekit.error/1",
        "edgekit": edgekit.__version__,
        "error": {"kind": kind, "exit_code": code, "message": message, "hint": hint},
    }
