"""`edgekit run`: rows from a file through the model on its board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.flash import BundleArgument
from edgekit.cli.options import BoardOption, CoreOption, DebugFlag, JsonFlag, QuietFlag, ThreadsOption
from edgekit.cli.session import Session
from edgekit.cli.settings import board_name, project_of_this_folder
from edgekit.errors import UsageError

__all__ = ["command"]


def command(
    context: typer.Context,
    bundle: BundleArgument,
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input", metavar="X.npy", help="One row or (N, …) rows; repeated in the model's order."
        ),
    ],
    outputs: Annotated[
        list[Path],
        typer.Option(
            "--output", metavar="Y.npy", help="Where the (N, …) answers go; repeated for several outputs."
        ),
    ],
    dequantize: Annotated[
        bool, typer.Option("--dequantize", help="Write real values as float32 instead of stored integers.")
    ] = False,
    board: BoardOption = None,
    threads: ThreadsOption = None,
    core: CoreOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Run inputs from .npy files on the board."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()

    from edgekit.arrays import dequantized, read_array, write_array
    from edgekit.firmware import load_bundle
    from edgekit.pipeline import run_bundle

    loaded = load_bundle(bundle)
    specs = loaded.compiled.outputs
    if len(outputs) != len(specs):
        raise UsageError(
            f"the model has {len(specs)} output(s), and --output is given {len(outputs)} time(s)"
        )
    arrays = [read_array(path) for path in inputs]
    with session.progress() as progress:
        answers = run_bundle(
            bundle,
            arrays,
            board=board_name(board, loaded.target, project),
            threads=threads,
            core=core,
            progress=progress,
        )
    if dequantize:
        answers = tuple(dequantized(values, spec) for values, spec in zip(answers, specs, strict=True))
    for path, values in zip(outputs, answers, strict=True):
        write_array(path, values)
    session.document(
        {
            "schema": "edgekit.run/1",
            "target": loaded.target.name,
            "rows": len(answers[0]),
            "outputs": [
                {
                    "name": spec.name,
                    "path": str(path),
                    "shape": list(values.shape),
                    "dtype": str(values.dtype),
                }
                for spec, path, values in zip(specs, outputs, answers, strict=True)
            ],
        }
    )
    written = ", ".join(str(path) for path in outputs)
    session.show(f"{len(answers[0])} row(s) run on {loaded.target.name}; wrote {written}")
