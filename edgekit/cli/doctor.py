"""`edgekit doctor`: is all that a deployment needs on this machine, and which command mends what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import DebugFlag, JsonFlag, QuietFlag
from edgekit.cli.session import Session
from edgekit.errors import MissingToolError

__all__ = ["command"]

_MARKS = {"ok": "ok", "missing": "MISSING", "note": "note"}


def command(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="TARGET", help="Check what this board needs; all by default."),
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check packages, compilers, emulators and serial ports."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.cli.checks import all_checks
    from edgekit.cli.tables import plain_table
    from edgekit.target import list_targets, load_target

    checks = all_checks(
        list_targets() if target is None else (load_target(target),), chosen=target is not None
    )
    session.document(
        {
            "schema": "edgekit.doctor/1",
            "checks": [
                {"name": check.name, "status": check.status, "detail": check.detail, "mend": check.mend}
                for check in checks
            ],
        }
    )
    session.show(
        plain_table(
            [("", "left"), ("what", "left"), ("found", "left")],
            [(_MARKS[check.status], check.name, check.detail) for check in checks],
            flexible=2,
        )
    )
    for check in checks:
        if check.mend is not None and check.status != "ok":
            session.show(f"{check.name}: {check.mend}")
    missing = [check for check in checks if check.status == "missing"]
    if missing:
        raise MissingToolError(
            f"{len(missing)} thing(s) are missing: {', '.join(check.name for check in missing)}",
            hint=missing[0].mend,
        )
