"""`edgekit flash`: a bundle onto its board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import BoardOption, DebugFlag, JsonFlag, QuietFlag
from edgekit.cli.session import Session
from edgekit.cli.settings import board_name, project_of_this_folder

__all__ = ["BundleArgument", "command"]

BundleArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A bundle: the folder that deploy or compile wrote.")
]


def command(
    context: typer.Context,
    bundle: BundleArgument,
    board: BoardOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Put a compiled bundle on its board."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()

    from edgekit.cli.documents import part
    from edgekit.firmware import load_bundle
    from edgekit.pipeline import flash_bundle

    target = load_bundle(bundle).target
    with session.progress() as progress:
        document = flash_bundle(bundle, board=board_name(board, target, project), progress=progress)
    session.document(part("edgekit.flash/1", document))
    session.show(f"{document.artifacts.image} runs on {document.target.name}")
    session.say(f"next: edgekit profile {document.artifacts.directory}")
