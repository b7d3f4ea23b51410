"""`edgekit rollback`: a Linux board goes on with the version that was current before."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import BoardOption, DebugFlag, JsonFlag, QuietFlag, TargetOption
from edgekit.cli.session import Session
from edgekit.cli.status import chosen_linux_board

__all__ = ["command"]


def command(
    context: typer.Context,
    app: Annotated[
        str, typer.Argument(metavar="APP", help="A deployed model, as `edgekit status` names it.")
    ],
    target: TargetOption = None,
    board: BoardOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make the version current that was so before the last deployment."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.device.ssh import check_app, reached, roll_back

    check_app(app)
    resolved, address = chosen_linux_board(target, board)
    with reached(resolved, address) as connection:
        where = connection.host.destination
        version = roll_back(connection, app)
    session.document(
        {
            "schema": "edgekit.rollback/1",
            "target": resolved.name,
            "board": where,
            "app": app,
            "version": version,
        }
    )
    session.show(f"{app} on {where} is version {version} again")
