"""The one place where stages are composed: a model in, a measured deployment out.

    import ──▶ compile (board, host reference) ──▶ build ──▶ fits? ──▶ flash ──▶ verify ──▶ profile ──▶
    documents

Each bundle that a stage leaves on disk can be taken up later: `flash_bundle`, `run_bundle` and
`profile_bundle` start from the folder that `compile_bundle` or `deploy` wrote. Nothing here prints; progress
is told to a callback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifacts import (
    DEFAULT_COMPILE,
    DEFAULT_IMPORT,
    CompiledModel,
    CompileOptions,
    Image,
    ImportOptions,
    Measurement,
    Model,
    ModelFormat,
    Serving,
    TensorSpec,
    TorchProgram,
    Verification,
)
from edgekit.budget import Budget
from edgekit.data import (
    DEFAULT_RANDOM_ROWS,
    DataSet,
    Rows,
    calibration_inputs,
    evaluation_rows,
    random_rows,
    read_data,
    row_digests,
    select_rows,
    to_stored,
)
from edgekit.errors import (
    BudgetError,
    EdgekitError,
    ModelError,
    UsageError,
    VerificationError,
)
from edgekit.fsutil import atomic_write
from edgekit.layer_errors import Comparison
from edgekit.profile import OPERATOR_SUM_TOLERANCE, default_runs, measure, tick_unit, under_conditions
from edgekit.progress import Notice, Progress, Step, silent, step
from edgekit.report.document import AccuracySection, DeployDocument, deploy_document, to_json
from edgekit.report.html import ReportDetails, render_html
from edgekit.sources import write_sources
from edgekit.stages import STAGES, ConnectedBoard, Flashed, Stages
from edgekit.target import Target, load_target
from edgekit.text import file_name, printable
from edgekit.verify import accuracy_top1, infer, is_classified, verify

if TYPE_CHECKING:
    from edgekit.compiler import ModelAnalysis, OperatorAnalysis
    from edgekit.device import BoardAddress
    from edgekit.firmware import Bundle
    from edgekit.tuning import Tuning

__all__ = [
    "DOCUMENT_FILE",
    "MAX_BOARD_ROWS",
    "REPORT_FILE",
    "Analysis",
    "Compiled",
    "Deployment",
    "Emitted",
    "analyze",
    "bundle_directory",
    "compile_bundle",
    "deploy",
    "emit_sources",
    "flash_bundle",
    "profile_bundle",
    "run_bundle",
    "tool_versions",
    "tune",
]

DOCUMENT_FILE = "deploy.json"
REPORT_FILE = "report.html"

MAX_BOARD_ROWS = 1000
"""Rows that go over a serial line when nobody said how many; on the host all rows are run."""

_FORMATS: Mapping[str, ModelFormat] = {"tflite": "tflite", "onnx": "onnx", "torch": "torch"}
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy")

Array = npt.NDArray[Any]

ModelSource = str | Path | Model | TorchProgram | object
"""A file, a factory's name, a model that was imported before, or a torch module or program."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on a board, and what the board said. `problems` are the goals it missed, worst first."""

    document: DeployDocument
    compiled: CompiledModel
    image: Image
    verification: Verification | None
    accuracy: AccuracySection | None
    measurement: Measurement | None
    problems: tuple[EdgekitError, ...] = ()

    def raise_for_problems(self) -> Deployment:
        """Raise the first problem, if there is one.

        Raises:
            VerificationError: The board's answers differ from the host's.
            BudgetError: A limit was exceeded.
        """
        if self.problems:
            raise self.problems[0]
        return self


@dataclass(frozen=True, slots=True)
class Compiled:
    """What `compile_bundle` made: an image in its bundle folder, and its document (nothing in it is
    measured).
    """

    document: DeployDocument
    compiled: CompiledModel
    image: Image


@dataclass(frozen=True, slots=True)
class Emitted:
    """A model as C99 sources, and the folder where they are."""

    model: Model
    compiled: CompiledModel
    directory: Path


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a model consists of, and what becomes of each operator on a target."""

    model: Model
    target: Target
    program: ModelAnalysis
    comparison: Comparison | None = None
    """With the float model, layer by layer, where rows were asked for."""

    @property
    def operators(self) -> tuple[OperatorAnalysis, ...]:
        return self.program.operators


@dataclass(frozen=True, slots=True)
class _Request:
    """The model that was asked for, and the data that belong to it."""

    model: Path | TorchProgram | Model
    options: ImportOptions
    data: str | Path | None
    calibration: str | Path | None
    seed: int
    folder: Path | None


@dataclass(frozen=True, slots=True)
class _Imported:
    """A model with the data set to verify it on. `used` has the digests of rows that may not count."""

    model: Model
    data: DataSet | None
    calibrated_on_data: bool
    used: frozenset[bytes]
    provenance: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Place:
    """An image, the board that it is for, and how it is to run there."""

    target: Target
    image: Image
    address: BoardAddress | None = None
    serving: Serving = field(default_factory=Serving)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a board said: that it is right, how often its first output was, and what a run costs."""

    verification: Verification
    accuracy: AccuracySection | None
    measurement: Measurement | None


@dataclass(frozen=True, slots=True)
class _BundleSource:
    """A source model that is known by its bundle only."""

    name: str
    format: ModelFormat
    sha256: str


def bundle_directory(build: Path, model_name: str, target_name: str) -> Path:
    """Where a deployment is written when nobody says so: `<build>/<model>-<target>`, in harmless
    characters.
    """
    return build / f"{file_name(model_name)}-{target_name}"


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
    resolved = _resolve_target(target, progress)
    limits = budget or Budget()
    limits.check_measurable(resolved)
    if samples is not None and samples < 1:
        raise UsageError("samples must be at least 1")
    if runs is not None and runs < 1:
        raise UsageError("runs must be at least 1")
    address = _address(board, stages)
    serving = _serving(resolved, threads, core)
    imported = _import(
        _request(model, example_inputs, options, data, calibration, seed, folder), progress, stages
    )
    if tuned:
        compile_options = _tuned(imported.model, resolved, board, compile_options, progress, stages)
    compiled, image = _build(imported, resolved, directory, compile_options, progress, stages)
    rows = _choose_rows(imported, compiled.inputs, resolved, samples, seed)
    # a class that the model doesn't know is refused before the board runs
    is_classified(rows, compiled.outputs)
    reference_target, reference_image = _reference(imported, resolved, image, compiled, progress, stages)
    place = _Place(resolved, image, address, serving)
    with ExitStack() as opened:
        with step(progress, Step.FLASH, f"{image.path.name} to {resolved.name}"):
            flashed = opened.enter_context(stages.flash(resolved, image, address))
        with step(progress, Step.CONNECT, resolved.name):
            reference = opened.enter_context(_connected(_Place(reference_target, reference_image), stages))
            client = opened.enter_context(_connected(place, stages))
        answers = _ask(reference, client, compiled, rows, place, runs, progress, stages)
        if answers.verification.passed:
            _keep(flashed, progress)
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
    _write_documents(document, bundle, answers.measurement, rows.source, progress)
    deployment = Deployment(
        document,
        compiled,
        image,
        answers.verification,
        answers.accuracy,
        answers.measurement,
        _problems(answers.verification, limits.misses(image.memory, answers.measurement, resolved)),
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
    resolved = _resolve_target(target, progress)
    imported = _import(
        _request(model, example_inputs, options, data, calibration, seed, folder), progress, stages
    )
    if tuned:
        compile_options = _tuned(imported.model, resolved, board, compile_options, progress, stages)
    compiled, image = _build(imported, resolved, directory, compile_options, progress, stages)
    document = deploy_document(source=imported.model, target=resolved, compiled=compiled, image=image)
    return Compiled(document, compiled, image)


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

    resolved = _resolve_target(target, progress)
    request = _request(model, example_inputs, options, data, calibration, seed, folder)
    imported = _import(request, progress, stages)
    return tune_model(
        imported.model, resolved, board=board, prefer=compile_options.prefer, progress=progress, stages=stages
    )


def _tuned(
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


def emit_sources(
    model: str | Path,
    *,
    target: str | Path | Target = "host",
    directory: str | Path | None = None,
    data: str | Path | None = None,
    calibration: str | Path | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Emitted:
    """Import a model and write it as C99, in the portable schedule whatever the target's are.

    The arguments are `deploy`'s; `build/<model>-<target>-c` is written by default.

    Raises:
        UsageError: `directory` holds something else.
    """
    resolved = _resolve_target(target, progress)
    imported = _import(_request(model, None, options, data, calibration, seed, folder), progress, stages)
    if directory is None:
        directory = bundle_directory(Path("build"), imported.model.name, f"{resolved.name}-c")
    place = Path(directory)
    if resolved.schedules != ("portable",):
        progress(Notice(f"C99 has the portable schedule, not those of {resolved.name}"))
    with step(progress, Step.COMPILE, f"{printable(imported.model.name, 60)} to C99") as running:
        compiled = stages.emit_model(imported.model, resolved)
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
    resolved = _resolve_target(target, progress)
    request = _request(model, example_inputs, options, data, calibration, seed, folder)
    imported = _import(request, progress, stages)
    with step(progress, Step.ANALYZE, resolved.name) as running:
        program = stages.analyze_model(imported.model, resolved)
        running.outcome = f"{len(program.operators)} operators"
    if not compared_rows or any(operator.form == "refused" for operator in program.operators):
        return Analysis(imported.model, resolved, program)
    rows = _choose_rows(imported, program.inputs, resolved, compared_rows, seed)
    with step(progress, Step.COMPARE, f"{len(rows)} rows in float and in integers", len(rows)) as running:
        comparison = stages.compare_layers(
            imported.model,
            _float_source(request, stages),
            [[values[row] for values in rows.inputs] for row in range(len(rows))],
            running.advance,
        )
        running.outcome = f"{len(comparison.layers)} layers"
    return Analysis(imported.model, resolved, program, comparison)


def _float_source(request: _Request, stages: Stages) -> Model | None:
    """The model before it was quantised; None where it came quantised."""
    if isinstance(request.model, Model):
        return None
    opened = stages.open_source(request.model, request.options, request.folder)
    if not stages.needs_calibration(opened, request.options):
        return None
    return stages.load_model(opened, replace(request.options, precision="float32"), None)


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
    address = _address(board, stages)
    with ExitStack() as opened:
        with step(progress, Step.FLASH, f"{bundle.image.path.name} to {bundle.target.name}"):
            flashed = opened.enter_context(stages.flash(bundle.target, bundle.image, address))
        with (
            step(progress, Step.CONNECT, bundle.target.name),
            _connected(_Place(bundle.target, bundle.image, address), stages),
        ):
            pass
        if keep:
            _keep(flashed, progress)
    return deploy_document(
        source=_source_of(bundle), target=bundle.target, compiled=bundle.compiled, image=bundle.image
    )


def run_bundle(
    directory: str | Path,
    inputs: Sequence[Array],
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
    place = _Place(
        bundle.target, bundle.image, _address(board, stages), _serving(bundle.target, threads, core)
    )
    rows = _given_rows(inputs, bundle.compiled.inputs)
    answers: list[tuple[Array, ...]] = []
    with (
        step(progress, Step.RUN, f"{len(rows)} rows on {bundle.target.name}", len(rows)) as running,
        _connected(place, stages) as client,
    ):
        for row in range(len(rows)):
            answers.append(infer(client, rows.input_bytes(row), bundle.compiled.outputs))
            running.advance(row + 1)
    return tuple(
        np.stack([answer[index] for answer in answers]) for index in range(len(bundle.compiled.outputs))
    )


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
        UsageError: It can't be read with so many threads.
    """
    bundle = stages.load_bundle(Path(directory))
    place = _Place(
        bundle.target, bundle.image, _address(board, stages), _serving(bundle.target, threads, core)
    )
    problem = stages.unmeasurable(place.target, place.serving)
    if problem is not None:
        raise problem
    rows = random_rows(bundle.compiled.inputs, 1, seed)
    with _connected(place, stages) as client:
        measurement = _measure(client, bundle.compiled, rows, place, runs, progress, stages)
    document = deploy_document(
        source=_source_of(bundle),
        target=bundle.target,
        compiled=bundle.compiled,
        image=bundle.image,
        measurement=measurement,
    )
    return Deployment(document, bundle.compiled, bundle.image, None, None, measurement)


def _resolve_target(target: str | Path | Target, progress: Progress) -> Target:
    resolved = target if isinstance(target, Target) else load_target(str(target))
    if resolved.shadows is not None:
        own = printable(str(resolved.source_path))
        progress(Notice(f"{resolved.name} is your own {own}; it takes the place of the shipped target"))
    return resolved


def _request(
    model: ModelSource,
    example_inputs: Sequence[Any] | None,
    options: ImportOptions,
    data: str | Path | None,
    calibration: str | Path | None,
    seed: int,
    folder: Path | None,
) -> _Request:
    source = Path(model) if isinstance(model, str) else model
    if isinstance(source, Path) and source.is_dir() and options.name is None:
        options = replace(options, name=source.resolve().name)
    if not isinstance(source, (Path, Model, TorchProgram)):
        inputs = None if example_inputs is None else tuple(example_inputs)
        source = TorchProgram(source, inputs, type(source).__name__.lower())
    elif example_inputs is not None:
        raise UsageError("example_inputs are for a torch module; a file and an imported model have theirs")
    return _Request(source, options, data, calibration, seed, folder)


def _import(request: _Request, progress: Progress, stages: Stages) -> _Imported:
    """Data first: a wrong data file is refused in milliseconds, before the model is."""
    data, calibration = _read_data_sets(request, progress)
    shown = str(request.model) if isinstance(request.model, Path) else request.model.name
    with step(progress, Step.IMPORT, printable(shown)) as running:
        chosen: tuple[npt.NDArray[np.float32], ...] | None = None
        source = calibration or data
        if isinstance(request.model, Model):
            model = request.model
        else:
            opened = stages.open_source(request.model, request.options, request.folder)
            if source is not None and stages.needs_calibration(opened, request.options):
                chosen = calibration_inputs(source, whole_file=calibration is not None, seed=request.seed)
            model = stages.load_model(opened, request.options, chosen)
        running.outcome = (
            f"{model.format}, {len(model.input_names)} input(s), {len(model.output_names)} output(s)"
        )
    calibrated_on = None if chosen is None or source is None else source.sha256
    return _Imported(
        model=model,
        data=data,
        calibrated_on_data=chosen is not None and calibration is None,
        used=frozenset() if chosen is None else row_digests(chosen),
        provenance=_provenance(model, request.options, calibrated_on, request.seed),
    )


def _read_data_sets(request: _Request, progress: Progress) -> tuple[DataSet | None, DataSet | None]:
    """The rows to verify with, and those to calibrate with."""
    if request.data is None and request.calibration is None:
        return None, None
    with step(progress, Step.DATA, printable(str(request.data or request.calibration))) as running:
        data = None if request.data is None else read_data(request.data, folder=request.folder)
        calibration = (
            None if request.calibration is None else read_data(request.calibration, folder=request.folder)
        )
        sets = [one for one in (data, calibration) if one is not None]
        counts = [part.count for one in sets for part in one.parts.values()]
        running.outcome = " and ".join(f"{count} rows" for count in counts)
    return data, calibration


def _provenance(
    model: Model, options: ImportOptions, calibrated_on: str | None, seed: int
) -> Mapping[str, str]:
    """What went into the bundle besides what the build itself knows; the same inputs give the same texts."""
    facts = {"model_format": model.format, "model_sha256": model.sha256}
    facts |= {f"package_{name}": version(name) for name in _PACKAGES}
    if options.shapes:
        facts["shapes"] = json.dumps({name: list(shape) for name, shape in sorted(options.shapes.items())})
    if options.precision != "int8":
        facts["precision"] = options.precision
    if calibrated_on is not None:
        facts |= {"calibration_sha256": calibrated_on, "calibration_seed": str(seed)}
        facts["calibration_method"] = options.calibration_method
        facts["package_onnxruntime"] = version("onnxruntime")
    return facts


def _source_of(bundle: Bundle) -> _BundleSource:
    """The source model that a bundle was made of, as its manifest says.

    Raises:
        ModelError: The manifest doesn't say it.
    """
    facts = bundle.manifest.provenance
    kind = _FORMATS.get(facts.get("model_format", ""))
    sha256 = facts.get("model_sha256")
    if kind is None or sha256 is None:
        raise ModelError(
            f"{printable(str(bundle.directory))}: the manifest doesn't say which model it was made of",
            hint="compile it again: edgekit compile MODEL --target TARGET -o DIR",
        )
    return _BundleSource(bundle.compiled.name, kind, sha256)


@contextmanager
def _connected(place: _Place, stages: Stages) -> Iterator[ConnectedBoard]:
    """A board that runs this very image.

    Raises:
        VerificationError: It runs another one.
    """
    target, image = place.target, place.image
    with stages.open_board(target, image, place.address, place.serving) as client:
        found = client.info().model_hash
        if found != image.model_hash:
            raise VerificationError(
                f"{target.name} runs another image (model {printable(found, 12)}) "
                f"than {printable(str(image.path))} (model {image.model_hash[:12]})",
                hint=f"edgekit flash {printable(str(image.directory))}",
            )
        yield client


def _keep(flashed: Flashed | None, progress: Progress) -> None:
    """Let a board that goes on with what it had go on with the new image."""
    if flashed is not None:
        with step(progress, Step.ACTIVATE, f"version {flashed.version}"):
            flashed.keep()


def tool_versions(bundle: Bundle) -> Mapping[str, str]:
    """Tool or package to version, of all that went into a bundle."""
    packages = {
        key.removeprefix("package_"): text
        for key, text in bundle.manifest.provenance.items()
        if key.startswith("package_")
    }
    return {**bundle.manifest.tools, **packages, "edgekit": bundle.manifest.edgekit}


def _serving(target: Target, threads: int | None, core: int | None) -> Serving:
    serving = Serving(threads, core)
    if serving != Serving() and target.platform != "linux":
        raise UsageError(f"{target.name} has one core and no threads", hint="leave --threads and --core out")
    return serving


def _address(board: str | None, stages: Stages) -> BoardAddress | None:
    return None if board is None else stages.parse_board(board)


def _build(
    imported: _Imported,
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


def _reference(
    imported: _Imported,
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
        _check_same_interface(compiled, reference)
        built = stages.build_image(reference, host, directory, imported.provenance)
        running.outcome = f"{len(reference.operators)} operators"
    return host, built


def _check_same_interface(compiled: CompiledModel, reference: CompiledModel) -> None:
    if compiled.inputs != reference.inputs or compiled.outputs != reference.outputs:
        raise ModelError(
            f"{printable(compiled.name)} has other inputs or outputs on {compiled.target} than on the host",
            hint="that is a fault of edgekit; please report it with the model",
        )


def _choose_rows(
    imported: _Imported, inputs: Sequence[TensorSpec], target: Target, samples: int | None, seed: int
) -> Rows:
    if imported.data is None:
        return random_rows(inputs, samples or DEFAULT_RANDOM_ROWS, seed)
    rows = evaluation_rows(
        imported.data,
        inputs,
        calibrated_on_it=imported.calibrated_on_data,
        seed=seed,
        excluded=imported.used,
    )
    default = None if target.transport.kind == "pipe" else MAX_BOARD_ROWS
    return select_rows(rows, samples if samples is not None else default, seed)


def _given_rows(inputs: Sequence[Array], specs: Sequence[TensorSpec]) -> Rows:
    if len(inputs) != len(specs):
        raise ModelError(f"{len(inputs)} input(s) were given, and the model takes {len(specs)}")
    stored: list[Array] = []
    for index, (values, spec) in enumerate(zip(inputs, specs, strict=True)):
        if values.shape == spec.shape:
            rows = values[np.newaxis]
        elif values.ndim > 0 and len(values) and values.size == len(values) * spec.elements:
            rows = values.reshape(len(values), *spec.shape)
        else:
            raise ModelError(
                f"input {index} ({printable(spec.name, 60)}) is {spec.shape}, "
                f"and the array given is {values.shape}"
            )
        stored.append(to_stored(rows, spec, f"input {index}"))
    if len({len(values) for values in stored}) > 1:
        raise ModelError(
            f"the inputs have different numbers of rows: {', '.join(str(len(v)) for v in stored)}"
        )
    return Rows(tuple(stored), None, np.arange(len(stored[0])), "the given rows")


def _ask(
    reference: ConnectedBoard,
    board: ConnectedBoard,
    compiled: CompiledModel,
    rows: Rows,
    place: _Place,
    runs: int | None,
    progress: Progress,
    stages: Stages,
) -> _Answers:
    """Verify, then measure: what a program costs that answers wrongly is of no use to anybody."""
    with step(progress, Step.VERIFY, rows.source, len(rows)) as running:
        verified = verify(
            reference,
            board,
            rows,
            compiled.outputs,
            compiled.operators,
            exact=compiled.exact,
            requantised=compiled.requantised,
            advanced=running.advance,
        )
        accuracy = _accuracy(rows, verified.outputs[0], compiled.outputs, place.target)
        running.outcome = _verified_outcome(verified.verification)
    if not verified.verification.passed:
        return _Answers(verified.verification, accuracy, None)
    measurement = None
    problem = stages.unmeasurable(place.target, place.serving)
    if problem is None:
        measurement = _measure(board, compiled, rows, place, runs, progress, stages)
    else:
        progress(Notice(f"nothing was measured: {problem.message}; {problem.hint or ''}".rstrip("; ")))
    return _Answers(verified.verification, accuracy, measurement)


def _measure(
    board: ConnectedBoard,
    compiled: CompiledModel,
    rows: Rows,
    place: _Place,
    runs: int | None,
    progress: Progress,
    stages: Stages,
) -> Measurement:
    target = place.target
    unit = tick_unit(target)
    runs = runs or default_runs(unit)
    with step(progress, Step.PROFILE, f"{runs} runs on {target.name}", 2 * runs) as running:
        before = stages.health(target, place.image, place.address)
        found = measure(
            board, compiled.operators, rows.input_bytes(0), unit, runs=runs, advanced=running.advance
        )
        after = stages.health(target, place.image, place.address)
        found = under_conditions(found, before, after, place.serving)
        running.outcome = f"{found.p50:,.0f} {found.unit}"
    if compiled.operators and not found.operators:
        progress(
            Notice(
                f"there is no table of operators: measured one by one their sum is more than "
                f"{OPERATOR_SUM_TOLERANCE:.0%} away from the run; try again on a quiet machine"
            )
        )
    return found


def _accuracy(
    rows: Rows, answers: Array, outputs: Sequence[TensorSpec], target: Target
) -> AccuracySection | None:
    found = accuracy_top1(rows, answers, outputs)
    if found is None:
        return None
    where: Literal["device", "host"] = "host" if target.transport.kind == "pipe" else "device"
    return AccuracySection(metric="top1", value=found.value, samples=found.samples, measured_on=where)


def _verified_outcome(verification: Verification) -> str:
    if not verification.passed:
        return "the answers differ"
    how = "bit for bit" if verification.bit_exact else f"within {verification.tolerance:g}"
    return f"{verification.samples} of {verification.samples} rows equal the host {how}"


def _problems(verification: Verification, misses: Sequence[str]) -> tuple[EdgekitError, ...]:
    problems: list[EdgekitError] = []
    if not verification.passed:
        problems.append(
            VerificationError(
                f"the board's answers differ from the host's: {verification.first_difference}",
                hint="the report in the bundle has the details; `edgekit doctor` checks the tools",
            )
        )
    if misses:
        problems.append(
            BudgetError(
                "over the budget: " + "; ".join(misses),
                hint="raise the limit, or deploy a smaller model",
            )
        )
    return tuple(problems)


def _write_documents(
    document: DeployDocument,
    bundle: Bundle,
    measurement: Measurement | None,
    data_source: str,
    progress: Progress,
) -> None:
    with step(progress, Step.REPORT, printable(str(bundle.directory))) as running:
        details = ReportDetails(
            versions=tool_versions(bundle),
            data_source=data_source,
            stack_high_water_bytes=None if measurement is None else measurement.stack_high_water_bytes,
            arena_high_water_bytes=None if measurement is None else measurement.arena_high_water_bytes,
        )
        page = bundle.directory / REPORT_FILE
        html = render_html(document, bundle.compiled, bundle.target, details)
        atomic_write(bundle.directory / DOCUMENT_FILE, to_json(document).encode("ascii"))
        atomic_write(page, html.encode("utf-8"))
        running.outcome = printable(str(page))
