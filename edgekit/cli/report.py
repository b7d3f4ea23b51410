"""`edgekit report`: a deployment's report again, from what it left on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import DebugFlag, JsonFlag, QuietFlag
from edgekit.cli.session import Session
from edgekit.cli.settings import project_of_this_folder
from edgekit.errors import ModelError, UsageError
from edgekit.text import printable

__all__ = ["command"]


def command(
    context: typer.Context,
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A deployment's folder; the last one under build/ by default."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The HTML file; DIR/report.html by default."),
    ] = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show a deployment again, and write its HTML report."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()

    from edgekit.cli.tables import deploy_table
    from edgekit.firmware import load_bundle
    from edgekit.fsutil import atomic_write
    from edgekit.pipeline import DOCUMENT_FILE, REPORT_FILE, tool_versions
    from edgekit.report.document import memory_section, read_document, to_values
    from edgekit.report.html import ReportDetails, render_html

    build = project.resolve(project.build.directory) if project is not None else Path("build")
    folder = bundle if bundle is not None else _latest(build, DOCUMENT_FILE)
    document = read_document(folder / DOCUMENT_FILE)
    loaded = load_bundle(folder)
    if (
        document.memory != memory_section(loaded.image.memory)
        or document.target.name != loaded.target.name
        or document.model.sha256 != loaded.manifest.provenance.get("model_sha256")
    ):
        raise ModelError(
            f"{printable(str(folder))}: {DOCUMENT_FILE} is of another image than the one beside it",
            hint="deploy again to measure this one: edgekit deploy",
        )
    page = output or folder / REPORT_FILE
    details = ReportDetails(versions=tool_versions(loaded))
    try:
        atomic_write(page, render_html(document, loaded.compiled, loaded.target, details).encode("utf-8"))
    except OSError as error:
        raise UsageError(f"{printable(str(page))} can't be written: {error.strerror}") from error
    session.document(to_values(document))
    session.show(deploy_table(document, loaded.compiled, str(page)))


def _latest(build: Path, name: str) -> Path:
    found = sorted(build.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(
            f"there is no deployment under {printable(str(build))}",
            hint="edgekit deploy MODEL --target TARGET",
        )
    return found[-1].parent
