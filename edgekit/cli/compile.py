"""`edgekit compile`: what an application links, and the firmware; or the model as C99 sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import JsonValue

from edgekit.cli.options import (
    BoardOption,
    CalibrationMethodOption,
    CalibrationOption,
    DataOption,
    DebugFlag,
    JsonFlag,
    ModelArgument,
    NameOption,
    OutputOption,
    PrecisionOption,
    PreferOption,
    QuietFlag,
    SeedOption,
    ShapeOption,
    TargetOption,
    TrustFlag,
    TuneFlag,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import (
    ModelSettings,
    board_name,
    existing_model,
    model_settings,
    project_of_this_folder,
    target_name,
)
from edgekit.errors import UsageError
from edgekit.sources import DEFAULT_PREFIX

if TYPE_CHECKING:
    from edgekit.pipeline import Emitted
    from edgekit.project import Project

__all__ = ["command"]

EmitOption = Annotated[
    Literal["bundle", "c"],
    typer.Option("--emit", help="bundle: object code and firmware; c: C99 that builds without TVM."),
]

PrefixOption = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        metavar="NAME",
        help="With --emit c: what files, functions and macros are called; edgekit_model by default.",
    ),
]


def command(
    context: typer.Context,
    model: ModelArgument = None,
    target: TargetOption = None,
    output: OutputOption = None,
    emit: EmitOption = "bundle",
    prefix: PrefixOption = None,
    prefer: PreferOption = None,
    tune: TuneFlag = False,
    board: BoardOption = None,
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
        prefer=prefer,
        seed=seed,
    )
    if emit == "c":
        if tune:
            raise UsageError(
                "C99 has the portable schedule, which has nothing to choose",
                hint="leave --tune or --emit out",
            )
        existing_model(chosen.model)
        _emit(session, chosen, target, project, output, prefix or DEFAULT_PREFIX)
        return
    if prefix is not None:
        raise UsageError(
            "--prefix is for --emit c: object code has its names already",
            hint="leave --prefix out, or add --emit c",
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
            directory=output or bundle_directory(chosen.build, chosen.name, resolved.name),
            data=chosen.data,
            calibration=chosen.calibration,
            options=chosen.options,
            compile_options=chosen.compile_options,
            seed=chosen.seed,
            folder=chosen.folder,
            tuned=tune,
            board=board_name(board, resolved, project) if tune else None,
            progress=progress,
        )
    session.document(part("edgekit.compile/1", compiled.document))
    session.show(deploy_table(compiled.document, compiled.compiled))
    session.say(f"next: edgekit flash {compiled.image.directory}")


def _emit(
    session: Session,
    chosen: ModelSettings,
    target: str | None,
    project: Project | None,
    output: Path | None,
    prefix: str,
) -> None:
    """Write C99. The target only says which compiler the Makefile calls, so that none need be named."""
    from edgekit.pipeline import bundle_directory, emit_sources
    from edgekit.target import load_target

    named = target or os.environ.get("EDGEKIT_TARGET") or (project.target if project is not None else None)
    resolved = load_target(named or "host")
    with session.progress() as progress:
        emitted = emit_sources(
            chosen.model,
            target=resolved,
            directory=output or bundle_directory(chosen.build, chosen.name, f"{resolved.name}-c"),
            data=chosen.data,
            calibration=chosen.calibration,
            options=chosen.options,
            compile_options=chosen.compile_options,
            prefix=prefix,
            seed=chosen.seed,
            folder=chosen.folder,
            progress=progress,
        )
    session.document(_emit_document(emitted))
    compiled = emitted.compiled
    answers = "all integers: the bytes of the object code" if compiled.exact else "with float operators"
    session.show(
        f"{len(compiled.files)} files of C99 in {emitted.directory}: {len(compiled.operators)} operators, "
        f"{compiled.macs:,} MACs, {compiled.weights_bytes:,} B of constants, "
        f"{compiled.arena_bytes:,} B of arena; {answers}"
    )
    session.say(f"next: make -C {emitted.directory}")


def _emit_document(emitted: Emitted) -> JsonValue:
    compiled = emitted.compiled
    files: list[JsonValue] = [*sorted(compiled.files)]
    return {
        "schema": "edgekit.emit/1",
        "edgekit": compiled.version,
        "model": {
            "name": emitted.model.name,
            "format": emitted.model.format,
            "sha256": emitted.model.sha256,
            "macs": compiled.macs,
            "parameters": compiled.parameters,
        },
        "target": compiled.target,
        "language": "c99",
        "exact": compiled.exact,
        "hash": compiled.model_hash,
        "memory": {"arena_bytes": compiled.arena_bytes, "weights_bytes": compiled.weights_bytes},
        "artifacts": {"directory": str(emitted.directory), "files": files},
    }
