"""`edgekit analyze`: what a model consists of and what will become of each operator, before anything is
built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from pydantic import JsonValue

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
from edgekit.errors import UnsupportedError

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
    session.document(_document(found))
    _show(session, found)
    refused = [operator for operator in found.operators if operator.form == "refused"]
    if refused:
        raise UnsupportedError(
            f"{len(refused)} operator(s) have no integer form: "
            + "; ".join(f"{operator.op} {operator.name}" for operator in refused),
            hint="the table above says why; docs/operators.md lists what is supported",
        )


def _document(found: Analysis) -> JsonValue:
    return {
        "schema": "edgekit.analyze/1",
        "model": {"name": found.model.name, "format": found.model.format, "sha256": found.model.sha256},
        "target": found.target.name,
        "inputs": list(found.model.input_names),
        "outputs": list(found.model.output_names),
        "macs": sum(operator.macs for operator in found.operators),
        "parameters": sum(operator.parameters for operator in found.operators),
        "operators": [
            {
                "name": operator.name,
                "op": operator.op,
                "form": operator.form,
                "schedule": operator.schedule,
                "input_shapes": [list(shape) for shape in operator.input_shapes],
                "output_shape": list(operator.output_shape),
                "macs": operator.macs,
                "parameters": operator.parameters,
                "weights_bytes": operator.weights_bytes,
                "activation_bytes": operator.activation_bytes,
                "reason": operator.reason,
            }
            for operator in found.operators
        ],
    }


def _show(session: Session, found: Analysis) -> None:
    from edgekit.cli.tables import plain_table

    rows = [
        (
            str(index),
            operator.name,
            operator.op,
            "×".join(str(size) for size in operator.output_shape),
            f"{operator.macs:,}" if operator.macs else "",
            f"{operator.weights_bytes:,}" if operator.weights_bytes else "",
            f"{operator.activation_bytes:,}" if operator.activation_bytes else "",
            operator.schedule or operator.reason or operator.form,
        )
        for index, operator in enumerate(found.operators)
    ]
    session.show(
        plain_table(
            [
                ("#", "right"),
                ("operator", "left"),
                ("kind", "left"),
                ("output", "left"),
                ("MACs", "right"),
                ("weights B", "right"),
                ("output B", "right"),
                ("runs as", "left"),
            ],
            rows,
            flexible=1,
        )
    )
    macs = sum(operator.macs for operator in found.operators)
    weights = sum(operator.weights_bytes for operator in found.operators)
    parameters = sum(operator.parameters for operator in found.operators)
    session.show(f"{macs:,} MACs, {parameters:,} parameters, {weights:,} B of weights")
