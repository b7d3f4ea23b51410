"""Errors on the command line: the only place where an exception becomes words and an exit code."""

from __future__ import annotations

import errno
import os
import traceback
from typing import Any, Final

from pydantic import JsonValue

import edgekit
from edgekit.cli.session import Session
from edgekit.errors import EdgekitError, UsageError
from edgekit.text import printable

__all__ = ["EXIT_BUG", "EXIT_INTERRUPTED", "EXIT_UNREAD", "report_failure", "report_wrong_flags"]

EXIT_BUG = 1
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""What a shell says of a program that wrote into a pipe which nobody reads any more: 128 + SIGPIPE."""

_SURROUNDINGS: Final = {
    errno.ENOSPC: "make room there, or name another folder",
    errno.EDQUOT: "make room there, or name another folder",
    errno.EROFS: "name a folder that you can write to",
    errno.EACCES: "name one that you have the rights to",
    errno.EPERM: "name one that you have the rights to",
    errno.EMFILE: "close other programs, or raise the limit: ulimit -n",
    errno.ENFILE: "close other programs",
}
"""What the machine refuses is no bug of edgekit's, wherever it comes up."""

_FOLDERS: Final = "-o for results, EDGEKIT_HOME for the cache, TMPDIR for temporary files"


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
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        error = _of_surroundings(error, _SURROUNDINGS[error.errno])
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


def report_wrong_flags(error: Any, *, json: bool) -> int:
    """The same for a command line that typer refused before a command began. `error` is typer's: of click, or
    of its own copy of click.
    """
    error.show()
    session = Session()
    session.json = json
    command = "edgekit" if error.ctx is None else error.ctx.command_path
    session.document(
        _document("UsageError", error.exit_code, printable(error.format_message(), 500), f"{command} --help")
    )
    return int(error.exit_code)


def _of_surroundings(error: OSError, help_text: str) -> UsageError:
    """What the file system refused, and where."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else "a file"
    hint = f"{help_text} ({_FOLDERS})" if "name" in help_text else help_text
    return UsageError(f"{printable(where)}: {error.strerror}", hint=hint)


def _document(kind: str, code: int, message: str, hint: str | None) -> JsonValue:
    return {
        "schema": "edgekit.error/1",
        "edgekit": edgekit.__version__,
        "error": {"kind": kind, "exit_code": code, "message": message, "hint": hint},
    }
