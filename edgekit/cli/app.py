"""The application: a table of commands, and the handler around all of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import edgekit
from edgekit.cli import (
    analyze,
    compile as compile_command,
    compress,
    deploy,
    doctor,
    flash,
    init,
    optimize,
    profile,
    report,
    rollback,
    run,
    status,
    targets,
    tune,
)
from edgekit.cli.failures import EXIT_UNREAD, report_failure, report_wrong_flags
from edgekit.cli.options import DebugFlag, QuietFlag
from edgekit.cli.session import Session

__all__ = ["app"]


_ORDER: Final = (
    "init",
    "analyze",
    "deploy",
    "compile",
    "compress",
    "optimize",
    "tune",
    "flash",
    "run",
    "profile",
    "status",
    "rollback",
    "targets",
    "report",
    "doctor",
)


class _Commands(TyperGroup):
    """Commands in the order in which they are needed, every error of theirs handled in one place."""

    # Any: the context's class is of typer's own copy of click, or of click itself
    def list_commands(self, ctx: Any) -> list[str]:
        # typer keeps groups apart from commands; `targets` has its place among them
        return sorted(self.commands, key=_ORDER.index)

    def main(self, *positional: Any, **named: Any) -> Any:
        """As typer's own, but that wrong flags are a document too where one is asked for."""
        given: Sequence[str] | None = positional[0] if positional else named.get("args")
        words = sys.argv[1:] if given is None else given
        try:
            code = super().main(*positional, **{**named, "standalone_mode": False})
        except _TYPER_ERROR as error:
            code = report_wrong_flags(error, json="--json" in words)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return self._invoke_and_report(ctx)
        except BrokenPipeError:
            # whoever read the output has seen enough
            Session.of(ctx).discard_output()
            raise typer.Exit(EXIT_UNREAD) from None

    def _invoke_and_report(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, SystemExit, BrokenPipeError):
            raise
        except BaseException as error:
            # typer words its own usage errors (exit 2)
            if isinstance(error, _TYPER_ERROR):
                raise
            raise typer.Exit(report_failure(error, Session.of(ctx))) from None


# typer has its own copy of click, or click itself, depending on its release: ask it which class it raises
_TYPER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    cls=_Commands,
    name="edgekit",
    help="Deploy neural networks to small boards, verified bit for bit and measured there.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"edgekit {edgekit.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    context.obj = Session()
    Session.of(context, quiet=quiet, debug=debug)


app.command("init")(init.command)
app.command("analyze")(analyze.command)
app.command("deploy")(deploy.command)
app.command("compile")(compile_command.command)
app.command("compress")(compress.command)
app.command("optimize")(optimize.command)
app.command("tune")(tune.command)
app.command("flash")(flash.command)
app.command("run")(run.command)
app.command("profile")(profile.command)
app.command("status")(status.command)
app.command("rollback")(rollback.command)
app.add_typer(targets.app, name="targets")
app.command("report")(report.command)
app.command("doctor")(doctor.command)
