"""`edgekit status`: which versions of which models are on a Linux board."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import typer

from edgekit.cli.options import BoardOption, DebugFlag, JsonFlag, QuietFlag, TargetOption
from edgekit.cli.session import Session
from edgekit.cli.settings import board_name, project_of_this_folder, target_name
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from edgekit.device import BoardAddress
    from edgekit.target import Target

__all__ = ["chosen_linux_board", "command"]


def command(
    context: typer.Context,
    target: TargetOption = None,
    board: BoardOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List what is deployed to a Linux board, and which version is current."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.cli.tables import plain_table
    from edgekit.device.ssh import installed_versions, reached

    resolved, address = chosen_linux_board(target, board)
    with reached(resolved, address) as connection:
        where = connection.host.destination
        versions = installed_versions(connection)
    session.document(
        {
            "schema": "edgekit.status/1",
            "target": resolved.name,
            "board": where,
            "versions": [
                {
                    "app": one.app,
                    "version": one.version,
                    "current": one.current,
                    "size_bytes": one.size_bytes,
                    "installed_at": one.installed_at,
                }
                for one in versions
            ],
        }
    )
    if not versions:
        session.show(f"nothing is deployed to {where}")
        return
    session.show(
        plain_table(
            [("model", "left"), ("version", "left"), ("", "left"), ("bytes", "right"), ("installed", "left")],
            [
                (
                    one.app,
                    one.version,
                    "current" if one.current else "",
                    f"{one.size_bytes:,}",
                    _date(one.installed_at),
                )
                for one in versions
            ],
            flexible=0,
        )
    )


def chosen_linux_board(flag: str | None, board: str | None) -> tuple[Target, BoardAddress | None]:
    """The target that is named, which must be a board behind ssh, and its address.

    Raises:
        UsageError: No target is named, or its board keeps no versions.
    """
    project = project_of_this_folder()
    name = target_name(flag, project)

    from edgekit.device import parse_board
    from edgekit.target import load_target

    resolved = load_target(name)
    if resolved.transport.kind != "ssh":
        raise UsageError(
            f"{resolved.name} runs one image and keeps no versions",
            hint="name a Linux board: edgekit targets list",
        )
    address = board_name(board, resolved, project)
    return resolved, None if address is None else parse_board(address)


def _date(seconds: int) -> str:
    """By the board's clock; a board without one may tell any year."""
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return ""
