"""`edgekit compile`: what an application links, and the firmware."""

from __future__ import annotations

import typer

from edgekit.cli.options import (
    CalibrationMethodOption,
    CalibrationOption,
    DataOption,
    DebugFlag,
    JsonFlag,
    ModelArgument,
    NameOption,
    OutputOption,
    PrecisionOption,
    QuietFlag,
    SeedOption,
    ShapeOption,
    TargetOption,
    TrustFlag,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import existing_model, model_settings, project_of_this_folder, target_name

__all__ = ["command"]


def command(
    context: typer.Context,
    model: ModelArgument = None,
    target: TargetOption = None,
    output: OutputOption = None,
    data: DataOption = None,
    calibration: CalibrationOption = None,
    calibration_method: CalibrationMethodOption = None,
    precision: PrecisionOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    shape: ShapeOption = None,
    name: NameOption = None,
    seed: SeedOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compile a model into a bundle: library, header, firmware, manifest."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "compile",
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
        seed=seed,
    )
    where = target_name(target, project)
    existing_model(chosen.model)

    from edgekit.cli.documents import part
    from edgekit.cli.tables import deploy_table
    from edgekit.pipeline import bundle_directory, compile_bundle
    from edgekit.target import load_target

    resolved = load_target(where)
    with session.progress() as progress:
        compiled = compile_bundle(
            chosen.model,
            target=resolved,
            directory=output
            or bundle_directory(chosen.build, chosen.options.name or chosen.model.stem, resolved.name),
            data=chosen.data,
            calibration=chosen.calibration,
            options=chosen.options,
            seed=chosen.seed,
            folder=chosen.folder,
            progress=progress,
        )
    session.document(part("edgekit.compile/1", compiled.document))
    session.show(deploy_table(compiled.document))
    session.say(f"next: edgekit flash {compiled.image.directory}")
