"""`edgekit analyze`: what a model consists of and what will become of each operator, before anything is
built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgekit.cli.analysis_document import analysis_document
from edgekit.cli.options import (
    CalibrationMethodOption,
    CalibrationOption,
    DebugFlag,
    JsonFlag,
    ModelArgument,
    NameOption,
    PrecisionOption,
    QuietFlag,
    ShapeOption,
    TargetOption,
    TrustFlag,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import existing_model, model_settings, project_of_this_folder
from edgekit.errors import DoesNotFitError, UnsupportedError

if TYPE_CHECKING:
    from edgekit.pipeline import Analysis

__all__ = ["command"]


def command(
    context: typer.Context,
    model: ModelArgument = None,
    target: TargetOption = None,
    calibration: CalibrationOption = None,
    calibration_method: CalibrationMethodOption = None,
    precision: PrecisionOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    shape: ShapeOption = None,
    name: NameOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List a model's operators: shapes, MACs, weights, and what runs how."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "analyze",
        project,
        model=model,
        name=name,
        shapes=shape,
        calibration=calibration,
        calibration_method=calibration_method,
        precision=precision,
        weights=weights,
        trust=trust,
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
            seed=chosen.seed,
            folder=chosen.folder,
            progress=progress,
        )
    from edgekit.cli.analysis_table import analysis_table

    session.document(analysis_document(found))
    width = session.columns()
    session.show(analysis_table(found, width), width)
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
