"""`edgekit targets`: which boards there are, what one looks like, whether a file of one's own is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.options import DebugFlag, JsonFlag, QuietFlag
from edgekit.cli.session import Session

if TYPE_CHECKING:
    from edgekit.target import Target

__all__ = ["app"]

app = typer.Typer(
    help="List, show and check the boards that edgekit knows.", no_args_is_help=True, rich_markup_mode=None
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME|FILE", help="A target's name, or its file.")]


@app.command("list")
def list_command(
    context: typer.Context, json: JsonFlag = False, quiet: QuietFlag = False, debug: DebugFlag = False
) -> None:
    """List all targets."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.target import survey_targets
    from edgekit.text import printable

    files = survey_targets()
    session.document(
        {
            "schema": "edgekit.targets/1",
            "targets": [
                {
                    "name": target.name,
                    "description": target.description,
                    "platform": target.platform,
                    "emulated": target.emulated,
                    "unit": target.unit,
                    "path": str(file.path),
                }
                for file in files
                if (target := file.target) is not None
            ],
            "wrong": [
                {"path": str(file.path), "problem": file.problem.message}
                for file in files
                if file.problem is not None
            ],
        }
    )
    rows = [
        (target.name, _kind(target), target.description)
        for file in files
        if (target := file.target) is not None
    ]
    names, kinds = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    # plain columns: a table of rich would cost a third of the time that this command may take
    session.line(
        "\n".join(f"{name:<{names}}  {kind:<{kinds}}  {printable(text)}" for name, kind, text in rows)
    )
    for file in files:
        if file.target is not None and file.target.shadows is not None:
            session.say(f"note: {file.target.name} is {file.path}; it takes the place of the shipped one")
        if file.problem is not None:
            session.say(f"note: {file.path} is left out: {file.problem.message}")


@app.command("show")
def show_command(
    context: typer.Context,
    name: NameArgument,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show one target: core, memory, transport, clock."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.target import load_target
    from edgekit.text import printable

    target = load_target(name)
    session.document({"schema": "edgekit.target/1", "path": _path(target), "target": target.document()})
    facts = [
        ("name", target.name),
        ("description", target.description),
        ("file", _path(target) or ""),
        ("platform", target.platform),
        ("core", f"{target.compile.mtriple or 'this machine'} {target.compile.mcpu or ''}".strip()),
        ("schedules", ", ".join(target.schedules)),
        *(
            (
                f"memory {region.name}",
                f"{region.size_bytes:,} B at {region.start:#010x}: {', '.join(region.holds)}",
            )
            for region in target.memory
        ),
        ("stack", f"{target.stack_bytes:,} B" if target.stack_bytes else "the system's"),
        ("transport", target.transport.kind),
        ("flashed by", ", ".join(method.kind for method in target.flash) or _kind(target)),
        ("measures", f"{target.unit}, from {target.clock.source} at {target.clock.hz:,} Hz"),
    ]
    session.line("\n".join(f"{fact:<14}{printable(text)}" for fact, text in facts))


@app.command("check")
def check_command(
    context: typer.Context,
    name: NameArgument,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check a target file; what is wrong is exit 2."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)

    from edgekit.target import load_target

    target = load_target(name)
    session.document(
        {"schema": "edgekit.target-check/1", "name": target.name, "path": _path(target), "sound": True}
    )
    session.line(f"{target.name}: sound")


def _path(target: Target) -> str | None:
    return None if target.source_path is None else str(target.source_path)


def _kind(target: Target) -> str:
    if target.emulated:
        return "emulated"
    return "this machine" if target.transport.kind == "pipe" else target.transport.kind
