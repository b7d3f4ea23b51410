"""`edgekit deploy`: import, compile, flash, verify, profile."""

from __future__ import annotations

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
    ModelArgument,
    NameOption,
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
    TuneFlag,
    WeightsOption,
    parse_limit,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import (
    board_name,
    existing_model,
    model_settings,
    project_of_this_folder,
    target_name,
)
from edgekit.quantities import parse_bytes, parse_count, parse_duration_us

__all__ = ["command"]


def command(
    context: typer.Context,
    model: ModelArgument = None,
    target: TargetOption = None,
    data: DataOption = None,
    calibration: CalibrationOption = None,
    calibration_method: CalibrationMethodOption = None,
    precision: PrecisionOption = None,
    weights: WeightsOption = None,
    trust: TrustFlag = False,
    board: BoardOption = None,
    shape: ShapeOption = None,
    name: NameOption = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=1,
            metavar="N",
            help="Rows to run on the board; all by default, at most 1000 over serial.",
        ),
    ] = None,
    runs: RunsOption = None,
    threads: ThreadsOption = None,
    core: CoreOption = None,
    prefer: PreferOption = None,
    tune: TuneFlag = False,
    seed: SeedOption = None,
    max_instructions: Annotated[
        str | None, typer.Option(metavar="N", help="Budget of an emulated board, for example 16M.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Budget of hardware, for example 20ms.")
    ] = None,
    max_flash: Annotated[str | None, typer.Option(metavar="SIZE", help="For example 110KiB.")] = None,
    max_ram: Annotated[str | None, typer.Option(metavar="SIZE", help="For example 40KiB.")] = None,
    output: OutputOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Put a model on a board, check its answers there and measure it."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "deploy",
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
        samples=samples,
        seed=seed,
    )
    where = target_name(target, project)
    instructions = parse_limit(parse_count, max_instructions, "--max-instructions")
    latency = parse_limit(parse_duration_us, max_latency, "--max-latency")
    flash = parse_limit(parse_bytes, max_flash, "--max-flash")
    ram = parse_limit(parse_bytes, max_ram, "--max-ram")
    existing_model(chosen.model)

    from edgekit.budget import Budget
    from edgekit.cli.tables import deploy_table
    from edgekit.pipeline import REPORT_FILE, bundle_directory, deploy
    from edgekit.report.document import to_values
    from edgekit.target import load_target

    resolved = load_target(where)
    own_runs = chosen.own.profile.runs if chosen.own else None
    budget = Budget(
        max_instructions=instructions, max_latency_us=latency, max_flash_bytes=flash, max_ram_bytes=ram
    )
    if chosen.own is not None:
        budget = budget.completed_by(chosen.own.budget.limits(), resolved)
    with session.progress() as progress:
        deployment = deploy(
            chosen.model,
            target=resolved,
            data=chosen.data,
            calibration=chosen.calibration,
            board=board_name(board, resolved, project),
            options=chosen.options,
            compile_options=chosen.compile_options,
            samples=chosen.samples,
            runs=runs or own_runs,
            threads=threads,
            core=core,
            seed=chosen.seed,
            budget=budget,
            directory=output or bundle_directory(chosen.build, chosen.name, resolved.name),
            folder=chosen.folder,
            tuned=tune,
            progress=progress,
            check=False,
        )
    session.document(to_values(deployment.document))
    report = str(deployment.image.directory / REPORT_FILE)
    session.show(deploy_table(deployment.document, deployment.compiled, report))
    deployment.raise_for_problems()
