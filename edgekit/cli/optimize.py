"""`edgekit optimize`: a torch model made to fit a budget that the board decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.options import (
    BoardOption,
    DataOption,
    DebugFlag,
    JsonFlag,
    NameOption,
    QuietFlag,
    SeedOption,
    ShapeOption,
    TargetOption,
    TorchModelArgument,
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
from edgekit.errors import UsageError
from edgekit.project import OptimizeSection, Project
from edgekit.quantities import parse_bytes, parse_count, parse_duration_us
from edgekit.text import names_function

if TYPE_CHECKING:
    from edgekit.optimization import Settings

__all__ = ["command"]

_SETTINGS = (
    "importance",
    "multiple_of",
    "short_rows",
    "short_epochs",
    "long_epochs",
    "learning_rate",
    "final_epochs",
    "final_learning_rate",
    "qat_epochs",
    "batch_size",
    "label_weight",
)


def command(
    context: typer.Context,
    model: TorchModelArgument = None,
    target: TargetOption = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    max_instructions: Annotated[
        str | None, typer.Option(metavar="N", help="Budget of an emulated board, for example 2M.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Budget of hardware, for example 20ms.")
    ] = None,
    max_flash: Annotated[str | None, typer.Option(metavar="SIZE", help="For example 110KiB.")] = None,
    max_ram: Annotated[str | None, typer.Option(metavar="SIZE", help="For example 40KiB.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, metavar="POINTS", help="Accuracy that may be lost against the float model."),
    ] = None,
    max_flashes: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Images that may be flashed in all.")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.9, metavar="SHARE", help="Of the cost, to be saved by a step; 0.15."),
    ] = None,
    exchanges: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Rounds of exchanges at the budget's cost after it; 3."),
    ] = None,
    short_rows: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Rows that a proposal is fine-tuned on; 24000."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of the winner's last training; 16.")
    ] = None,
    qat_epochs: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of it with the integers' rounding; 2.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Changes training rows: package.module:function."),
    ] = None,
    guide: Annotated[
        str,
        typer.Option(metavar="KIND", help="What proposals are compared by: measurements, or macs."),
    ] = "measurements",
    board: BoardOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to write; build/MODEL-TARGET-optimized by default."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--fresh", help="Take up what was interrupted, or begin anew."),
    ] = True,
    shape: ShapeOption = None,
    name: NameOption = None,
    seed: SeedOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Prune and train a torch model until the board measures that it fits a budget."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "optimize", project, model=model, name=name, shapes=shape, weights=weights, data=data, seed=seed
    )
    where = target_name(target, project)
    instructions = parse_limit(parse_count, max_instructions, "--max-instructions")
    latency = parse_limit(parse_duration_us, max_latency, "--max-latency")
    flash = parse_limit(parse_bytes, max_flash, "--max-flash")
    ram = parse_limit(parse_bytes, max_ram, "--max-ram")
    if guide not in ("measurements", "macs"):
        raise UsageError(f"--guide is measurements or macs, not {guide}")
    existing_model(chosen.model)
    own = chosen.own.optimize if chosen.own else OptimizeSection()

    from edgekit.budget import Budget
    from edgekit.cli.optimize_view import TrialLines, summary
    from edgekit.optimization import optimize
    from edgekit.optimization.augment import load_augment
    from edgekit.optimization.document import optimize_values
    from edgekit.target import load_target
    from edgekit.text import file_name

    resolved = load_target(where)
    budget = Budget(
        max_instructions=instructions, max_latency_us=latency, max_flash_bytes=flash, max_ram_bytes=ram
    )
    if chosen.own is not None:
        budget = budget.completed_by(chosen.own.budget.limits(), resolved)
    augmentation = augment or own.augment
    with session.progress() as progress:
        found = optimize(
            chosen.model,
            target=resolved,
            data=data or _rows_of(chosen.own) or chosen.data,
            budget=budget,
            max_drop=max_drop if max_drop is not None else own.max_drop,
            max_flashes=max_flashes or own.max_flashes,
            board=board_name(board, resolved, project),
            options=chosen.options,
            settings=_settings(
                own.model_copy(
                    update={
                        key: value
                        for key, value in (
                            ("step", step),
                            ("exchanges", exchanges),
                            ("short_rows", short_rows),
                            ("final_epochs", epochs),
                            ("qat_epochs", qat_epochs),
                        )
                        if value is not None
                    }
                ),
                chosen.seed,
                guide,
            ),
            augment=None if augmentation is None else load_augment(augmentation, chosen.folder),
            directory=output or chosen.build / f"{file_name(chosen.name)}-{resolved.name}-optimized",
            resume=resume,
            folder=chosen.folder,
            progress=progress,
            tried=TrialLines(progress),
        )
    session.document(optimize_values(found))
    session.show(summary(found))
    found.raise_for_problems()


def _rows_of(project: Project | None) -> str | None:
    """`optimize.data` of an edgekit.toml: a file is relative to it, a loader's name is taken as it is."""
    text = None if project is None else project.optimize.data
    if project is None or text is None:
        return None
    path = project.resolve(text)
    return text if names_function(text) and not path.exists() else str(path)


def _settings(own: OptimizeSection, seed: int, guide: str) -> Settings:
    """What flags and edgekit.toml say, over the search's defaults."""
    from dataclasses import replace

    from edgekit.optimization.settings import DEFAULT_SETTINGS, DEFAULT_STRATEGY

    given = {key: value for key in _SETTINGS if (value := getattr(own, key)) is not None}
    strategy = DEFAULT_STRATEGY
    if own.step is not None:
        strategy = replace(strategy, first=replace(strategy.first, reduction=own.step))
    if own.exchanges is not None:
        strategy = replace(strategy, rounds=own.exchanges)
    found: Settings = replace(
        DEFAULT_SETTINGS,
        strategy=strategy,
        seed=seed,
        guide="macs" if guide == "macs" else "measurements",
        **given,
    )
    return found
