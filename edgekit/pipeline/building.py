"""From an imported model to an image, and the host program that it is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.artifacts import DEFAULT_COMPILE, CompiledModel, CompileOptions, Image, Model
from edgekit.errors import ModelError
from edgekit.pipeline.request import Imported
from edgekit.pipeline.results import DOCUMENT_FILE, REPORT_FILE, bundle_directory
from edgekit.progress import Progress, Step, step
from edgekit.stages import Stages
from edgekit.target import Target, load_target
from edgekit.text import printable

__all__ = ["build_for", "build_reference", "check_same_interface", "tuned_options"]


def build_for(
    imported: Imported,
    target: Target,
    directory: str | Path | None,
    compile_options: CompileOptions,
    progress: Progress,
    stages: Stages,
) -> tuple[CompiledModel, Image]:
    place = (
        bundle_directory(Path("build"), imported.model.name, target.name)
        if directory is None
        else Path(directory)
    )
    with step(progress, Step.COMPILE, f"{printable(imported.model.name, 60)} for {target.name}") as running:
        compiled = stages.compile_model(imported.model, target, compile_options)
        running.outcome = f"{len(compiled.operators)} operators, {compiled.macs:,} MACs"
    with step(progress, Step.BUILD, printable(str(place))) as running:
        image = stages.build_image(compiled, target, place, imported.provenance)
        for name in (DOCUMENT_FILE, REPORT_FILE):
            # those of the bundle that was here before would be taken for this one's
            (place / name).unlink(missing_ok=True)
        running.outcome = f"{image.memory.flash_bytes:,} B flash, {image.memory.ram_bytes:,} B RAM"
    return compiled, image


def build_reference(
    imported: Imported,
    target: Target,
    image: Image,
    compiled: CompiledModel,
    progress: Progress,
    stages: Stages,
) -> tuple[Target, Image]:
    """The same model for the host in the portable schedule, which every other program must equal."""
    host = load_target("host").model_copy(update={"schedules": ("portable",)})
    if target.name == "host" and target.schedules == host.schedules:
        return target, image
    directory = image.directory / "reference"
    with step(progress, Step.REFERENCE, "the same model for the host") as running:
        reference = stages.compile_model(imported.model, host, DEFAULT_COMPILE)
        check_same_interface(compiled, reference)
        built = stages.build_image(reference, host, directory, imported.provenance)
        running.outcome = f"{len(reference.operators)} operators"
    return host, built


def check_same_interface(compiled: CompiledModel, reference: CompiledModel) -> None:
    if compiled.inputs != reference.inputs or compiled.outputs != reference.outputs:
        raise ModelError(
            f"{printable(compiled.name)} has other inputs or outputs on {compiled.target} than on the host",
            hint="that is a fault of edgekit; please report it with the model",
        )


def tuned_options(
    model: Model,
    target: Target,
    board: str | None,
    compile_options: CompileOptions,
    progress: Progress,
    stages: Stages,
) -> CompileOptions:
    """The options with the variants that tuning chooses."""
    from edgekit.tuning import tune_model

    found = tune_model(
        model, target, board=board, prefer=compile_options.prefer, progress=progress, stages=stages
    )
    return replace(compile_options, choices=found.choices)
