"""One run of the command line: where words, tables and documents go, and how much of them is wanted."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import typer
from pydantic import JsonValue

from edgekit.errors import UsageError
from edgekit.progress import Progress
from edgekit.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Session"]

_TABLE_WIDTH = 110
"""What a table of operators needs; a narrower terminal breaks its lines."""


class Session:
    """Output of one command. stdout carries the answer (a table, or one JSON document), stderr all the
    rest.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.debug = False
        self.documented = False
        """True when the one document of `--json` is out."""

    @staticmethod
    def of(
        context: typer.Context, *, json: bool = False, quiet: bool = False, debug: bool = False
    ) -> Session:
        """The session of a command, with the flags that the command was given added to those before it."""
        session = context.find_object(Session)
        if session is None:
            session = context.obj = Session()
        session.json |= json
        session.quiet |= quiet
        session.debug |= debug
        return session

    def document(self, values: JsonValue) -> None:
        """Print the one JSON document, when it is wanted. ASCII, so that no name in it can steer a
        terminal.
        """
        if self.json and not self.documented:
            self.documented = True
            self._write(json_module.dumps(values, indent=2, allow_nan=False) + "\n")

    def columns(self) -> int:
        """Characters in a line: the terminal's, or what a table of operators needs where there is none."""
        from rich.console import Console

        console = Console()
        return console.width if console.is_terminal else _TABLE_WIDTH

    def show(self, table: RenderableType, width: int | None = None) -> None:
        """Print a table or a line of text for people; not with --json.

        `width` is that of a table which was made for it; others get what a table of operators needs.
        """
        if self.json:
            return
        from rich.console import Console

        # names in tables come from files: neither markup nor emoji codes in them mean anything
        shown = printable(table, 2000) if isinstance(table, str) else table
        console = Console(markup=False, emoji=False, highlight=False, soft_wrap=False)
        console.width = width or max(console.width, _TABLE_WIDTH)
        with console.capture() as capture:
            console.print(shown)
        text = capture.get()
        if not console.is_terminal:
            text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        self._write(text)

    def line(self, text: str) -> None:
        """Print text for people that is safe as it stands, without loading rich; not with --json."""
        if not self.json and text:
            self._write(text + "\n")

    def say(self, text: str) -> None:
        """A line of progress or advice, on stderr; not with --quiet."""
        if not self.quiet:
            self.complain(text)

    def complain(self, text: str) -> None:
        """A line on stderr that --quiet doesn't silence."""
        sys.stderr.write("\n".join(printable(line, 2000) for line in text.splitlines()) + "\n")
        sys.stderr.flush()

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """The callback to give to the pipeline: bars on a terminal, lines elsewhere, nothing with --quiet."""
        from edgekit.cli.progress_view import LinesView, TerminalView
        from edgekit.progress import silent

        if self.quiet:
            yield silent
        elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            with TerminalView() as view:
                yield view
        else:
            yield LinesView(self.say)

    def discard_output(self) -> None:
        """From now on what is written goes nowhere, Python's own emptying of its buffers at the end included:
        it must not complain a second time.
        """
        for stream in (sys.stdout, sys.stderr):
            if not _flushed(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # handled where the commands are, as that of stderr is
        except OSError as error:
            self.discard_output()
            raise UsageError(f"the output can't be written: {error.strerror}") from None


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True
