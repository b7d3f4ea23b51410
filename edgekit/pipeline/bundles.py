"""A bundle taken up again: flashed, run, measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy.typing as npt

from edgekit.data import random_rows
from edgekit.pipeline.answers import Array, check_counts, given_rows, measure_board
from edgekit.pipeline.board import BoardPlace, address_of, connected, keep_version, serving_of
from edgekit.pipeline.documents import source_of
from edgekit.pipeline.results import Deployment
from edgekit.pipeline.session import BoardSession
from edgekit.progress import Progress, Step, silent, step
from edgekit.report.document import DeployDocument, deploy_document
from edgekit.stages import STAGES, Stages

__all__ = ["flash_bundle", "profile_bundle", "run_bundle"]


def flash_bundle(
    directory: str | Path,
    *,
    board: str | None = None,
    keep: bool = True,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> DeployDocument:
    """Put a bundle's image on its board, and ask the board whether it runs that image.

    Without `keep` a Linux board goes on with the version that it had; the new one is there to be measured.
    """
    bundle = stages.load_bundle(Path(directory))
    address = address_of(board, stages)
    with ExitStack() as opened:
        with step(progress, Step.FLASH, f"{bundle.image.path.name} to {bundle.target.name}"):
            flashed = opened.enter_context(stages.flash(bundle.target, bundle.image, address))
        with (
            step(progress, Step.CONNECT, bundle.target.name),
            connected(BoardPlace(bundle.target, bundle.image, address), stages),
        ):
            pass
        if keep:
            keep_version(flashed, progress)
    return deploy_document(
        source=source_of(bundle), target=bundle.target, compiled=bundle.compiled, image=bundle.image
    )


def run_bundle(
    directory: str | Path,
    inputs: Sequence[npt.ArrayLike],
    *,
    board: str | None = None,
    threads: int | None = None,
    core: int | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> tuple[Array, ...]:
    """Run rows on the board that a bundle was flashed to.

    Args:
        inputs: One array an input: one row of the input's shape, or (N, …) rows; stored integers, or reals
            as float.

    Returns:
        One array (N, *shape) an output, in the stored type.

    Raises:
        ModelError: The arrays don't fit the inputs.
    """
    bundle = stages.load_bundle(Path(directory))
    place = BoardPlace(
        bundle.target, bundle.image, address_of(board, stages), serving_of(bundle.target, threads, core)
    )
    rows = given_rows(inputs, bundle.compiled.inputs)
    with (
        step(progress, Step.RUN, f"{len(rows)} rows on {bundle.target.name}", len(rows)) as running,
        connected(place, stages) as client,
    ):
        return BoardSession(client, bundle.compiled).answer(rows, running.advance)


def profile_bundle(
    directory: str | Path,
    *,
    board: str | None = None,
    runs: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    core: int | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Deployment:
    """Measure a bundle on the board that it was flashed to, on one seeded random row.

    Raises:
        MissingToolError: The target's counter can't be read here; the message says why.
        UsageError: It can't be read with so many threads; no runs.
    """
    check_counts(runs=runs)
    bundle = stages.load_bundle(Path(directory))
    place = BoardPlace(
        bundle.target, bundle.image, address_of(board, stages), serving_of(bundle.target, threads, core)
    )
    problem = stages.unmeasurable(place.target, place.serving)
    if problem is not None:
        raise problem
    rows = random_rows(bundle.compiled.inputs, 1, seed)
    with connected(place, stages) as client:
        measurement = measure_board(client, bundle.compiled, rows, place, runs, progress, stages)
    document = deploy_document(
        source=source_of(bundle),
        target=bundle.target,
        compiled=bundle.compiled,
        image=bundle.image,
        measurement=measurement,
    )
    return Deployment(document, bundle.compiled, bundle.image, None, None, measurement)
