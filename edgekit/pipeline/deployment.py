"""The one place where stages are composed: a model in, a measured deployment out.

    import ──▶ compile (board, host reference) ──▶ build ──▶ fits? ──▶ flash ──▶ verify ──▶ profile ──▶
    documents

Each bundle that a stage leaves on disk can be taken up later: `flash_bundle`, `run_bundle` and
`profile_bundle` start from the folder that `compile_bundle` or `deploy` wrote. Nothing here prints; progress
is told to a callback.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifacts import DEFAULT_COMPILE, DEFAULT_IMPORT, CompileOptions, ImportOptions
from edgekit.budget import Budget
from edgekit.pipeline.answers import ask_board, check_counts, choose_rows, problems_of
from edgekit.pipeline.board import BoardPlace, address_of, connected, keep_version, serving_of
from edgekit.pipeline.building import build_for, build_reference, tuned_options
from edgekit.pipeline.documents import write_documents
from edgekit.pipeline.request import ModelSource, float_source, import_model, request_of, resolve_target
from edgekit.pipeline.results import Analysis, Compiled, Deployment, Emitted, bundle_directory
from edgekit.progress import Notice, Progress, Step, silent, step
from edgekit.report.document import deploy_document
from edgekit.sources import DEFAULT_PREFIX, renamed, write_sources
from edgekit.stages import STAGES, Stages
from edgekit.target import Target
from edgekit.text import printable
from edgekit.verify import is_classified

if TYPE_CHECKING:
    from edgekit.tuning import Tuning

__all__ = ["analyze", "compile_bundle", "deploy", "emit_sources", "tune"]


def deploy(
    model: ModelSource,
    *,
    target: str | Path | Target,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    board: str | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    compile_options: CompileOptions = DEFAULT_COMPILE,
    example_inputs: Sequence[Any] | None = None,
    samples: int | None = None,
    runs: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    core: int | None = None,
    budget: Budget | None = None,
    directory: str | Path | None = None,
    folder: Path | None = None,
    tuned: bool = False,
    progress: Progress = silent,
    check: bool = True,
    stages: Stages = STAGES,
) -> Deployment:
    """Import, compile, build, flash, verify and profile a model, and write what came out.

    Args:
        model: A `.tflite`, `.onnx` or `.pt2` file, `package.module:factory`, a torch module or program,
            or what `load_model` or `load_torch` returned.
        target: A target's name, its file, or the target itself.
        data: Rows to verify with: an `.npz`, or a loader `package.module:function`; 16 seeded random rows
            without it.
        calibration: Rows to calibrate a float model with.
        board: `serial:…` or `ssh:…`; what an emulated target or the host does not need.
        options: What else there is to say of the model: name, shapes, precision.
        compile_options: What the program shall save first: time, RAM or code.
        example_inputs: What a torch module's forward takes, as tensors of the shapes that are deployed.
        samples: How many rows run on the board; all by default, on a serial line at most `MAX_BOARD_ROWS`.
        runs: How often a run is measured; 5 where a counter repeats, 50 where it is a time.
        seed: Of random rows, of the split and of the choice of rows.
        threads: Of the program, on Linux; one by default.
        core: That of the first thread, on Linux; any by default.
        directory: Where to write; `build/<model>-<target>` by default.
        folder: Where the module of a loader or a factory is looked for.
        tuned: Choose the operators' variants by measurement first, as `tune` does.
        progress: Told of each step.
        check: Raise when the answers differ or a limit is exceeded. The documents are written in any case.

    Raises:
        EdgekitError: The subclass says which stage refused, see `edgekit.errors`.
    """
    resolved = resolve_target(target, progress)
    limits = budget or Budget()
    limits.check_measurable(resolved)
    check_counts(samples=samples, runs=runs)
    address = address_of(board, stages)
    serving = serving_of(resolved, threads, core)
    imported = import_model(
        request_of(model, example_inputs, options, data, calibration, seed, folder), progress, stages
    )
    if tuned:
        compile_options = tuned_options(imported.model, resolved, board, compile_options, progress, stages)
    compiled, image = build_for(imported, resolved, directory, compile_options, progress, stages)
    rows = choose_rows(imported, compiled.inputs, resolved, samples, seed)
    # a class that the model doesn't know is refused before the board runs
    is_classified(rows, compiled.outputs)
    reference_target, reference_image = build_reference(imported, resolved, image, compiled, progress, stages)
    place = BoardPlace(resolved, image, address, serving)
    with ExitStack() as opened:
        with step(progress, Step.FLASH, f"{image.path.name} to {resolved.name}"):
            flashed = opened.enter_context(stages.flash(resolved, image, address))
        with step(progress, Step.CONNECT, resolved.name):
            reference = opened.enter_context(connected(BoardPlace(reference_target, reference_image), stages))
            client = opened.enter_context(connected(place, stages))
        answers = ask_board(reference, client, compiled, rows, place, runs, progress, stages)
        if answers.verification.passed:
            keep_version(flashed, progress)
    document = deploy_document(
        source=imported.model,
        target=resolved,
        compiled=compiled,
        image=image,
        verification=answers.verification,
        accuracy=answers.accuracy,
        measurement=answers.measurement,
    )
    bundle = stages.load_bundle(image.directory)
    write_documents(document, bundle, answers.measurement, rows.source, progress)
    deployment = Deployment(
        document,
        compiled,
        image,
        answers.verification,
        answers.accuracy,
        answers.measurement,
        problems_of(answers.verification, limits.misses(image.memory, answers.measurement, resolved)),
    )
    return deployment.raise_for_problems() if check else deployment


def compile_bundle(
    model: ModelSource,
    *,
    target: str | Path | Target,
    directory: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    compile_options: CompileOptions = DEFAULT_COMPILE,
    example_inputs: Sequence[Any] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    tuned: bool = False,
    board: str | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Compiled:
    """Import, compile and build a model into a bundle folder, and check that it fits. The arguments are
    `deploy`'s; the board is there to tune on.
    """
    resolved = resolve_target(target, progress)
    imported = import_model(
        request_of(model, example_inputs, options, data, calibration, seed, folder), progress, stages
    )
    if tuned:
        compile_options = tuned_options(imported.model, resolved, board, compile_options, progress, stages)
    compiled, image = build_for(imported, resolved, directory, compile_options, progress, stages)
    document = deploy_document(source=imported.model, target=resolved, compiled=compiled, image=image)
    return Compiled(document, compiled, image)


def emit_sources(
    model: str | Path,
    *,
    target: str | Path | Target = "host",
    directory: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    compile_options: CompileOptions = DEFAULT_COMPILE,
    prefix: str = DEFAULT_PREFIX,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Emitted:
    """Import a model and write it as C99, in the portable schedule whatever the target's are.

    The arguments are `deploy`'s; `build/<model>-<target>-c` is written by default. `prefix` is what files,
    functions and macros are called: models with different ones fit into one program.

    Raises:
        UsageError: `directory` holds something else.
    """
    resolved = resolve_target(target, progress)
    renamed({}, prefix)  # a wrong name is refused before the model is read
    imported = import_model(
        request_of(model, None, options, data, calibration, seed, folder), progress, stages
    )
    if directory is None:
        directory = bundle_directory(Path("build"), imported.model.name, f"{resolved.name}-c")
    place = Path(directory)
    if resolved.schedules != ("portable",):
        progress(Notice(f"C99 has the portable schedule, not those of {resolved.name}"))
    with step(progress, Step.COMPILE, f"{printable(imported.model.name, 60)} to C99") as running:
        compiled = stages.emit_model(imported.model, resolved, compile_options)
        compiled = replace(compiled, files=renamed(compiled.files, prefix))
        write_sources(place, compiled.files)
        running.outcome = f"{len(compiled.operators)} operators, {len(compiled.files)} files"
    return Emitted(imported.model, compiled, place)


def analyze(
    model: ModelSource,
    *,
    target: str | Path | Target = "host",
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    compile_options: CompileOptions = DEFAULT_COMPILE,
    example_inputs: Sequence[Any] | None = None,
    compared_rows: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Analysis:
    """Import a model and tell of each operator what will run; nothing is built. The arguments are
    `deploy`'s.

    With `compared_rows`, so many rows of the data (random ones without data) are run here in float and in
    integers, and `comparison` tells how far each layer is off. It is None where operators are refused.
    """
    resolved = resolve_target(target, progress)
    request = request_of(model, example_inputs, options, data, calibration, seed, folder)
    imported = import_model(request, progress, stages)
    with step(progress, Step.ANALYZE, resolved.name) as running:
        program = stages.analyze_model(imported.model, resolved, compile_options)
        running.outcome = f"{len(program.operators)} operators"
    if not compared_rows or any(operator.form == "refused" for operator in program.operators):
        return Analysis(imported.model, resolved, program)
    rows = choose_rows(imported, program.inputs, resolved, compared_rows, seed)
    with step(progress, Step.COMPARE, f"{len(rows)} rows in float and in integers", len(rows)) as running:
        comparison = stages.compare_layers(
            imported.model,
            float_source(request, stages),
            [[values[row] for values in rows.inputs] for row in range(len(rows))],
            running.advance,
        )
        running.outcome = f"{len(comparison.layers)} layers"
    return Analysis(imported.model, resolved, program, comparison)


def tune(
    model: ModelSource,
    *,
    target: str | Path | Target,
    calibration: str | Path | None = None,
    data: str | Path | None = None,
    board: str | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    compile_options: CompileOptions = DEFAULT_COMPILE,
    example_inputs: Sequence[Any] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Tuning:
    """Choose each operator's variant by what it costs on the board. The arguments are `deploy`'s.

    What was measured is kept in the cache folder: `deploy` and `compile_bundle` with `tuned` find it there.
    """
    from edgekit.tuning import tune_model

    resolved = resolve_target(target, progress)
    request = request_of(model, example_inputs, options, data, calibration, seed, folder)
    imported = import_model(request, progress, stages)
    return tune_model(
        imported.model, resolved, board=board, prefer=compile_options.prefer, progress=progress, stages=stages
    )
