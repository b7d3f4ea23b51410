"""`edgekit compress`: a recipe applied to a torch model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.options import (
    DataOption,
    DebugFlag,
    JsonFlag,
    NameOption,
    QuietFlag,
    SeedOption,
    ShapeOption,
    TorchModelArgument,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import existing_model, model_settings, project_of_this_folder
from edgekit.errors import UsageError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from edgekit.compression import CompressedModel

__all__ = ["command"]


def command(
    context: typer.Context,
    model: TorchModelArgument = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", metavar="FILE", help="The methods to apply; docs/compress.md."),
    ] = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to write; build/MODEL-compressed by default."
        ),
    ] = None,
    shape: ShapeOption = None,
    name: NameOption = None,
    seed: SeedOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make a torch model smaller: prune, fine-tune, distil, quantise."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "compress", project, model=model, name=name, shapes=shape, weights=weights, data=data, seed=seed
    )
    own_recipe = (
        chosen.own.resolve(chosen.own.compress.recipe) if chosen.own and chosen.own.compress else None
    )
    steps = recipe or own_recipe
    if steps is None:
        raise UsageError(
            "no recipe is named", hint="give --recipe FILE; docs/compress.md shows what stands in one"
        )
    if chosen.data is None:
        raise UsageError(
            "no data to train on are named",
            hint="give --data FILE.npz with x and y, or x_train, y_train, x_val, y_val",
        )
    existing_model(chosen.model)

    from edgekit.cli.tables import plain_table
    from edgekit.compression import compress

    with session.progress() as progress:
        found = compress(
            chosen.model,
            recipe=steps,
            data=chosen.data,
            directory=output,
            options=chosen.options,
            seed=chosen.seed,
            folder=chosen.folder,
            progress=progress,
        )
    session.document(_document(found))
    session.show(
        plain_table(
            [
                ("#", "right"),
                ("step", "left"),
                ("on a board", "left"),
                ("effect", "left"),
                ("parameters", "right"),
                ("accuracy", "right"),
            ],
            [
                (
                    str(one.number),
                    one.kind,
                    one.form,
                    one.effect,
                    f"{one.parameters_after:,}",
                    "" if one.accuracy_after is None else f"{one.accuracy_after:.4f}",
                )
                for one in found.steps
            ],
            flexible=3,
        )
    )
    session.say(f"next: edgekit deploy {found.directory} --target host")


def _document(found: CompressedModel) -> JsonValue:
    return {
        "schema": "edgekit.compress/1",
        "model": found.name,
        "directory": str(found.directory),
        "split_sha256": found.split_sha256,
        "steps": [
            {
                "number": one.number,
                "kind": one.kind,
                "form": one.form,
                "effect": one.effect,
                "accuracy_before": one.accuracy_before,
                "accuracy_after": one.accuracy_after,
                "parameters_before": one.parameters_before,
                "parameters_after": one.parameters_after,
                "seconds": one.seconds,
            }
            for one in found.steps
        ],
    }
