"""`edgekit analyze`: what a model consists of and what will become of each operator, before anything is
built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.analysis_document import analysis_document
from edgekit.cli.options import (
    CalibrationMethodOption,
    CalibrationOption,
    DataOption,
    DebugFlag,
    JsonFlag,
    ModelArgument,
    NameOption,
    PrecisionOption,
    PreferOption,
    QuietFlag,
    ShapeOption,
    TargetOption,
    TrustFlag,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import existing_model, model_settings, project_of_this_folder
from edgekit.errors import DoesNotFitError, UnsupportedError, UsageError
from edgekit.text import printable

if TYPE_CHECKING:
    from edgekit.pipeline import Analysis

__all__ = ["command"]

DEFAULT_ROWS = 32

RowsOption = Annotated[
    int | None,
    typer.Option(
        "--rows",
        min=1,
        max=4096,
        metavar="N",
        help=f"Rows that are compared in float and in integers; {DEFAULT_ROWS} with --data.",
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write the comparison as an HTML page."),
]


def command(
    context: typer.Context,
    model: ModelArgument = None,
    target: TargetOption = None,
    data: DataOption = None,
    rows: RowsOption = None,
    report: ReportOption = None,
    calibration: CalibrationOption = None,
    calibration_method: CalibrationMethodOption = None,
    precision: PrecisionOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    prefer: PreferOption = None,
    shape: ShapeOption = None,
    name: NameOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List a model's operators: shapes, MACs, weights, what runs how; with --data, what int8 costs each."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "analyze",
        project,
        model=model,
        name=name,
        shapes=shape,
        data=data,
        calibration=calibration,
        calibration_method=calibration_method,
        precision=precision,
        weights=weights,
        trust=trust,
        prefer=prefer,
    )
    existing_model(chosen.model)

    from edgekit.pipeline import analyze

    with session.progress() as progress:
        found = analyze(
            chosen.model,
            target=target or (project.target if project is not None and project.target else "host"),
            calibration=chosen.calibration,
            data=chosen.data,
            options=chosen.options,
            compile_options=chosen.compile_options,
            compared_rows=rows or (DEFAULT_ROWS if data is not None or report is not None else 0),
            seed=chosen.seed,
            folder=chosen.folder,
            progress=progress,
        )
    from edgekit.cli.analysis_table import analysis_table
    from edgekit.cli.comparison_table import comparison_table

    session.document(analysis_document(found))
    width = session.columns()
    session.show(analysis_table(found, width), width)
    if found.comparison is not None:
        session.show(comparison_table(found.comparison, width), width)
    if report is not None:
        _write_report(session, found, report)
    _raise_for_obstacles(found)


def _raise_for_obstacles(found: Analysis) -> None:
    """What stands in the way of a deployment ends the command, after all of it was shown."""
    refused = [operator for operator in found.operators if operator.form == "refused"]
    if refused:
        raise UnsupportedError(
            f"{len(refused)} operator(s) can't be compiled: "
            + "; ".join(f"{operator.op} {operator.name}" for operator in refused),
            hint="the table above says why; docs/operators.md lists what is supported",
        )
    misfits = found.program.misfits()
    if misfits:
        raise DoesNotFitError(
            f"{found.model.name} does not fit {found.target.name}: {'; '.join(misfits)}",
            hint="a smaller model, or a board with more memory (`edgekit targets list`)",
        )


def _write_report(session: Session, found: Analysis, path: Path) -> None:
    if found.comparison is None:
        session.say("no report is written: there was nothing to compare")
        return
    from edgekit.fsutil import atomic_write
    from edgekit.report.layers import render_layers

    page = render_layers(found.model.name, found.target.name, found.comparison)
    try:
        atomic_write(path, page.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"{printable(str(path))} cannot be written: {error.strerror}") from error
    session.say(f"report    {path}")
