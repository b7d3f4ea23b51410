"""`edgekit profile`: what a run costs on the board, operator by operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import (
    BoardOption,
    CalibrationMethodOption,
    CalibrationOption,
    CoreOption,
    DataOption,
    DebugFlag,
    JsonFlag,
    OutputOption,
    PrecisionOption,
    PreferOption,
    QuietFlag,
    RunsOption,
    SeedOption,
    ShapeOption,
    TargetOption,
    ThreadsOption,
    TrustFlag,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import (
    board_name,
    existing_model,
    model_settings,
    project_of_this_folder,
    target_name,
)
from edgekit.errors import UsageError

__all__ = ["command"]


def command(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL|DIR]", help="A model, or a bundle; edgekit.toml's model by default."),
    ] = None,
    target: TargetOption = None,
    board: BoardOption = None,
    runs: RunsOption = None,
    threads: ThreadsOption = None,
    core: CoreOption = None,
    prefer: PreferOption = None,
    data: DataOption = None,
    calibration: CalibrationOption = None,
    calibration_method: CalibrationMethodOption = None,
    precision: PrecisionOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    shape: ShapeOption = None,
    seed: SeedOption = None,
    output: OutputOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure a model or a bundle on its board."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    own_runs = None
    bundle = model if model is not None and model.is_dir() else None

    if bundle is None:
        chosen = model_settings(
            "profile",
            project,
            model=model,
            shapes=shape,
            data=data,
            calibration=calibration,
            calibration_method=calibration_method,
            precision=precision,
            weights=weights,
            trust=trust,
            prefer=prefer,
            seed=seed,
        )
        where = target_name(target, project)
        existing_model(chosen.model)

    from edgekit.cli.documents import part
    from edgekit.cli.tables import deploy_table
    from edgekit.firmware import load_bundle
    from edgekit.pipeline import bundle_directory, compile_bundle, flash_bundle, profile_bundle
    from edgekit.target import load_target

    with session.progress() as progress:
        if bundle is None:
            resolved = load_target(where)
            bundle = output or bundle_directory(chosen.build, chosen.name, resolved.name)
            compile_bundle(
                chosen.model,
                target=resolved,
                directory=bundle,
                data=chosen.data,
                calibration=chosen.calibration,
                options=chosen.options,
                compile_options=chosen.compile_options,
                seed=chosen.seed,
                folder=chosen.folder,
                progress=progress,
            )
            own_runs = chosen.own.profile.runs if chosen.own else None
            address = board_name(board, resolved, project)
            # what nobody has verified is measured, and not what the board goes on with
            flash_bundle(bundle, board=address, keep=False, progress=progress)
        else:
            resolved = load_bundle(bundle).target
            if target is not None and target != resolved.name:
                raise UsageError(
                    f"the bundle is for {resolved.name}", hint="leave --target out, or give the model"
                )
            address = board_name(board, resolved, project)
        found = profile_bundle(
            bundle,
            board=address,
            runs=runs or own_runs,
            seed=seed or 0,
            threads=threads,
            core=core,
            progress=progress,
        )
    session.document(part("edgekit.profile/1", found.document))
    session.show(deploy_table(found.document))
