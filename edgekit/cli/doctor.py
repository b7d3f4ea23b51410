"""`edgekit doctor`: is all that a deployment needs on this machine, and which command mends what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import BoardOption, DebugFlag, JsonFlag, QuietFlag
from edgekit.cli.session import Session
from edgekit.cli.settings import board_name, project_of_this_folder
from edgekit.errors import DeviceError, MissingToolError

__all__ = ["command"]

_MARKS = {"ok": "ok", "missing": "MISSING", "note": "note"}


def command(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="TARGET", help="Check what this board needs; all by default."),
    ] = None,
    board: BoardOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check packages, compilers, emulators and ports; with a Linux board as TARGET the board too."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.cli.checks import all_checks
    from edgekit.cli.ssh_checks import linux_board_checks, ssh_check
    from edgekit.cli.tables import plain_table
    from edgekit.device import parse_board
    from edgekit.target import list_targets, load_target

    if target is None:
        checks = (*all_checks(list_targets(), chosen=False), ssh_check())
    else:
        resolved = load_target(target)
        checks = all_checks((resolved,), chosen=True)
        if resolved.transport.kind == "ssh":
            address = board_name(board, resolved, project_of_this_folder())
            place = None if address is None else parse_board(address)
            checks = (*checks, *linux_board_checks(resolved, place))
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
        kind = MissingToolError if any(check.about == "machine" for check in missing) else DeviceError
        raise kind(
            f"{len(missing)} thing(s) are missing: {', '.join(check.name for check in missing)}",
            hint=missing[0].mend,
        )
