"""`optimize`: a torch model and a budget in, a deployment within it out, chosen by what the board measured.

    baseline measured ──▶ operators measured ──▶ search (prune, fine-tune, measure) ──▶ long fine-tune
        ──▶ quantise ──▶ folder ──▶ deploy: verified on the board ──▶ the test rows, once

All that is known is in `search.sqlite`; a call that was interrupted is taken up by the next one.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgekit import __version__
from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions, Model, TorchProgram
from edgekit.budget import Budget
from edgekit.compression import TorchSource, open_torch, quantizers, training_rows
from edgekit.data import DataSet, read_data, split_parts
from edgekit.errors import BudgetError, UsageError
from edgekit.fsutil import cache_folder
from edgekit.optimization.accuracy import Drop, classes, paired_drop, predictions
from edgekit.optimization.board import MeasuringBoard
from edgekit.optimization.problem import Guide, TorchProblem
from edgekit.pipeline import Deployment, deploy
from edgekit.progress import Notice, Progress, RunningStep, Step, silent, step
from edgekit.search.netadapt import NetAdapt
from edgekit.search.problem import Limits, Measured, Outcome, Strategy, Trial
from edgekit.search.store import LatencyTable, SearchStore
from edgekit.stages import STAGES, Stages
from edgekit.target import Target, load_target
from edgekit.text import file_name, printable

if TYPE_CHECKING:
    from torch import nn

    from edgekit.compress.apply import Rows
    from edgekit.compress.channels import Importance
    from edgekit.compress.training import Augment, Epoch
    from edgekit.optimization.networks import Networks

__all__ = ["Baseline", "Optimization", "Settings", "TestReport", "optimize"]

VERIFIED_ROWS = 64
"""Rows that the deployed program answers on the board; all others are answered by the same integers here."""


DEFAULT_STRATEGY = NetAdapt()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a search works, besides its budget. Trainings distil from the start where there are no labels."""

    strategy: NetAdapt = DEFAULT_STRATEGY
    importance: Importance = "taylor"
    multiple_of: int = 4
    short_rows: int = 6000
    """Rows of the training set, chosen by the seed, that a proposal is fine-tuned on for one epoch."""
    final_epochs: int = 8
    qat_epochs: int = 2
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    guide: Guide = "measurements"
    """What proposals are compared by; `macs` is there for comparison."""


DEFAULT_SETTINGS = Settings()


@dataclass(frozen=True, slots=True)
class Baseline:
    """The uncompressed model in int8 on the board."""

    measured: Measured
    float_accuracy: float
    accuracy: float
    """Of the int8 program, on the validation rows."""


@dataclass(frozen=True, slots=True)
class TestReport:
    """Accuracy on the test rows: the deployed program against the float model, and against its int8 build."""

    against_float: Drop
    against_int8: Drop


@dataclass(frozen=True, slots=True)
class Optimization:
    """What `optimize` found and deployed."""

    directory: Path
    target: Target
    limits: Limits
    max_drop: float | None
    unit: str
    baseline: Baseline
    trials: tuple[Trial, ...]
    outcome: Outcome
    deployment: Deployment
    winner: Measured
    winner_accuracy: float
    """Of the deployed int8 program, on the validation rows."""
    test: TestReport | None
    """On the test rows, looked at once; None where there are none with labels."""
    measurements: int
    flashes: int
    problems: tuple[str, ...]

    def raise_for_problems(self) -> Optimization:
        """Itself, where the budget is met.

        Raises:
            BudgetError: it is not; the message has the best found and what binds.
        """
        if self.problems:
            raise BudgetError(
                "; ".join(self.problems),
                hint="allow more, or start from a smaller network; the best found is in "
                f"{printable(str(self.directory))}",
            )
        return self


def optimize(
    model: str | Path | TorchProgram,
    *,
    target: str | Path | Target,
    data: str | Path,
    budget: Budget,
    max_drop: float | None = None,
    max_flashes: int | None = None,
    board: str | None = None,
    options: ImportOptions = DEFAULT_IMPORT,
    settings: Settings = DEFAULT_SETTINGS,
    strategy: Strategy | None = None,
    augment: Augment | None = None,
    directory: str | Path | None = None,
    resume: bool = True,
    folder: Path | None = None,
    progress: Progress = silent,
    tried: Callable[[Trial], None] = lambda trial: None,
    stages: Stages = STAGES,
) -> Optimization:
    """Search for the most accurate network within a budget that the board decides, and deploy it.

    Args:
        model: `package.module:factory`, or a module in memory.
        data: Rows to train on, to select by and to report; see `edgekit.data.split_parts`.
        budget: At least a limit on instructions or latency, flash or RAM.
        max_drop: Points of accuracy that the deployed program may lose against the float model.
        max_flashes: How many images may be flashed in all.
        strategy: What proposes candidates; `settings.strategy` by default.
        resume: Take up what an interrupted call left in the folder; else it is removed first.
        tried: Told of each trial.

    Returns:
        What was found and deployed; `raise_for_problems` raises where it misses the budget.

    Raises:
        BudgetError: not even the start could be measured within `max_flashes`.
        ModelError: the model has nothing to train, or channels that can't be removed.
        UsageError: no limit is given, the data don't fit, or the folder is another search's.
    """
    resolved = target if isinstance(target, Target) else load_target(str(target))
    budget.check_measurable(resolved)
    limits = _limits(budget)
    with step(progress, Step.DATA, printable(str(data))) as running:
        data_set = read_data(data, folder=folder)
        rows, split = training_rows(data_set, settings.seed)
        running.outcome = f"{len(rows.train)} rows to train on, {len(rows.validation)} to select by"
    with step(progress, Step.IMPORT, _shown(model)) as running:
        source = open_torch(model, options, folder)
        running.outcome = f"{sum(one.numel() for one in source.module.parameters()):,} parameters"
    place = Path(directory) if directory is not None else _default_place(source.name, resolved)
    work = place / "search"
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    with (
        closing(SearchStore(work / "search.sqlite", _identity(source, resolved, split, settings))) as store,
        closing(LatencyTable(_table_file(), _conditions(resolved, board))) as table,
    ):
        address = None if board is None else stages.parse_board(board)
        measuring = MeasuringBoard(
            resolved,
            address,
            work,
            flashed=lambda what: _count_flash(store, what),
            flashes=store.flashes(),
            max_flashes=max_flashes,
            stages=stages,
            waiting=lambda reason: progress(Notice(reason)),
        )
        networks = _networks(source, rows, store, work, settings, augment)
        problem = TorchProblem(
            networks,
            rows.calibration,
            store,
            table,
            measuring,
            name=source.name,
            guide=settings.guide,
            seed=settings.seed,
        )
        with step(progress, Step.PROFILE, "the operators of pruned networks") as running:
            found = problem.learn()
            running.outcome = f"{found} operators measured, {measuring.flashes} flashes so far"
        trials, outcome = _search(problem, strategy or settings.strategy, limits, progress, tried)
        final = _finish(problem, outcome, place, source, rows, settings, augment, progress)
        deployment = deploy(
            final.directory,
            target=resolved,
            data=data,
            board=board,
            options=ImportOptions(name=source.name),
            seed=settings.seed,
            samples=VERIFIED_ROWS,
            directory=place / "deployment",
            folder=folder,
            progress=progress,
            check=False,
            stages=stages,
        )
        measuring.flashes = _count_flash(store, "deployment")
        baseline, test = _report_rows(problem, data_set, source, rows, final, trials[0], settings, progress)
        return _conclude(
            place,
            resolved,
            limits,
            max_drop,
            baseline,
            trials,
            outcome,
            deployment,
            final,
            test,
            measuring,
            store,
        )


@dataclass(frozen=True, slots=True)
class _Final:
    """The winner after its long training: its folder, its program's accuracy on the validation rows."""

    directory: Path
    model: Model
    accuracy: float


def _limits(budget: Budget) -> Limits:
    cost = budget.max_latency_us if budget.max_latency_us is not None else budget.max_instructions
    limits = Limits(None if cost is None else float(cost), budget.max_flash_bytes, budget.max_ram_bytes)
    if limits == Limits():
        raise UsageError(
            "no budget is given",
            hint="--max-instructions 2M on an emulated board, --max-latency 20ms on a real one, "
            "--max-flash or --max-ram",
        )
    return limits


def _default_place(name: str, target: Target) -> Path:
    return Path("build") / f"{file_name(name)}-{target.name}-optimized"


def _table_file() -> Path:
    """Operators that were measured once serve every later search under the same conditions."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "operators.sqlite"


def _conditions(target: Target, board: str | None) -> Mapping[str, str]:
    """All that an operator's cost depends on besides itself."""
    document = json.dumps(target.document(), sort_keys=True)
    return {
        "edgekit": __version__,
        "target": target.name,
        "target_sha256": hashlib.sha256(document.encode()).hexdigest(),
        "board": board or "",
        "code": _code_identity(),
    }


def _code_identity() -> str:
    """SHA-256 over the compiler's own files: another schedule is another cost."""
    import edgekit.compiler

    digest = hashlib.sha256()
    for path in sorted(Path(edgekit.compiler.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _identity(source: TorchSource, target: Target, split: str, settings: Settings) -> Mapping[str, str]:
    """What a search's file belongs to; another budget may go on with the same trials."""
    digest = hashlib.sha256()
    for name, value in sorted(source.module.state_dict().items()):
        digest.update(f"\n{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return {
        "model": digest.hexdigest(),
        "target": target.name,
        "split of the data": split,
        "settings": repr(replace(settings, final_epochs=0, qat_epochs=0)),
    }


def _count_flash(store: SearchStore, what: str) -> int:
    store.add_flash(what)
    return store.flashes()


def _networks(
    source: TorchSource,
    rows: Rows,
    store: SearchStore,
    work: Path,
    settings: Settings,
    augment: Augment | None,
) -> Networks:
    from edgekit.compress.apply import Rows
    from edgekit.compress.training import Labelled, Training
    from edgekit.optimization.networks import Networks

    chosen = np.random.default_rng(settings.seed).permutation(len(rows.train))[: settings.short_rows]
    fewer = Labelled(rows.train.x[chosen], None if rows.train.y is None else rows.train.y[chosen])
    short = Training(
        epochs=1,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        loss=_loss(rows),
        seed=settings.seed,
    )
    networks = Networks(
        source.module,
        source.example,
        Rows(fewer, rows.validation, rows.calibration),
        store,
        work,
        training=short,
        importance=settings.importance,
        multiple_of=settings.multiple_of,
        augment=augment,
    )
    if not networks.groups:
        raise UsageError("the model has no channels that could be removed")
    return networks


def _loss(rows: Rows) -> Literal["distillation", "both"]:
    return "distillation" if rows.train.y is None else "both"


def _search(
    problem: TorchProblem,
    strategy: Strategy,
    limits: Limits,
    progress: Progress,
    tried: Callable[[Trial], None],
) -> tuple[tuple[Trial, ...], Outcome]:
    """Run the strategy to its end, or to the last flash."""
    trials: list[Trial] = []
    outcomes: list[Outcome] = []

    def running() -> Generator[Trial, None, None]:
        outcomes.append((yield from strategy(problem, problem.measure, limits)))

    with step(progress, Step.SEARCH, f"{len(problem.groups)} groups of channels") as shown:
        try:
            for trial in running():
                trials.append(trial)
                shown.advance(len(trials))
                tried(trial)
        except BudgetError as spent:
            measured = [trial for trial in trials if trial.measured is not None]
            if not measured:
                raise
            best = measured[-1]
            assert best.measured is not None
            outcomes.append(Outcome(best, limits.met_by(best.measured), spent.message))
        shown.outcome = f"{len(trials)} trials: {outcomes[0].reason}"
    return tuple(trials), outcomes[0]


def _finish(
    problem: TorchProblem,
    outcome: Outcome,
    place: Path,
    source: TorchSource,
    rows: Rows,
    settings: Settings,
    augment: Augment | None,
    progress: Progress,
) -> _Final:
    """The long fine-tune of the winner, with and without the integers' rounding; the better one by the
    validation rows, as a folder.
    """
    from edgekit.compress.apply import Compressed
    from edgekit.compress.folder import write_folder
    from edgekit.compress.recipe import Recipe
    from edgekit.compress.training import Training, TrainingRun, train
    from edgekit.frontend import load_model

    best = outcome.best.candidate
    work = place / "search"
    module = copy.deepcopy(problem.networks.module(best.key if best.parent is not None else None))
    made = quantizers()
    training = Training(
        epochs=settings.final_epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        loss=_loss(rows),
        seed=settings.seed,
    )

    def shown(running: RunningStep) -> Callable[[Epoch], None]:
        return lambda epoch: running.advance(epoch.number)

    teacher = problem.networks.teacher
    if best.parent is not None:
        with step(progress, Step.TRAIN, "the winner", training.epochs) as running:
            run = TrainingRun(
                checkpoint=work / f"final-{best.key}-{training.epochs}.pt",
                advanced=shown(running),
                augment=augment,
            )
            epochs = train(module, training, rows.train, rows.validation, teacher=teacher, run=run)
            running.outcome = _accuracy_text(epochs[-1].accuracy)
    candidates: list[tuple[str, nn.Module]] = [
        ("after training", made.after_training(module, source.example, rows.calibration))
    ]
    if settings.qat_epochs > 0:
        with step(progress, Step.TRAIN, "the winner with its rounding", settings.qat_epochs) as running:
            prepared = made.prepare(module, source.example)
            gentle = replace(training, epochs=settings.qat_epochs, learning_rate=training.learning_rate / 4)
            run = TrainingRun(
                checkpoint=work / f"qat-{best.key}-{training.epochs}-{gentle.epochs}.pt",
                advanced=shown(running),
                augment=augment,
            )
            epochs = train(prepared, gentle, rows.train, rows.validation, teacher=teacher, run=run)
            candidates.append(("in training", made.convert(prepared)))
            running.outcome = _accuracy_text(epochs[-1].accuracy)
    with step(progress, Step.COMPRESS, "int8 on this machine") as running:
        finals = []
        for kind, quantized in candidates:
            folder = work / f"int8-{kind.replace(' ', '-')}"
            write_folder(
                folder, Compressed(quantized, True, ()), Recipe(()), source.example, name=source.name
            )
            model = load_model(folder / "model.onnx", ImportOptions(name=source.name))
            finals.append((_score(problem, model, rows), kind, folder, model))
        accuracy, kind, folder, model = max(finals, key=lambda one: one[0])
        target = place / "model"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        running.outcome = f"quantised {kind}: validation accuracy {accuracy:.4f}"
    return _Final(target, model, accuracy)


def _accuracy_text(accuracy: float | None) -> str:
    return "" if accuracy is None else f"validation accuracy {accuracy:.4f}"


def _score(problem: TorchProblem, model: Model, rows: Rows) -> float:
    """Accuracy of the integer program on the validation rows; without labels, agreement with the start."""
    answers = predictions(model, rows.validation.x)
    return float(np.mean(answers == _validation_labels(problem, rows)))


def _validation_labels(problem: TorchProblem, rows: Rows) -> npt.NDArray[np.int64]:
    if rows.validation.y is not None:
        return rows.validation.y
    return classes(problem.networks.start, rows.validation.x)


def _report_rows(
    problem: TorchProblem,
    data: DataSet,
    source: TorchSource,
    rows: Rows,
    final: _Final,
    start: Trial,
    settings: Settings,
    progress: Progress,
) -> tuple[Baseline, TestReport | None]:
    """The baseline's accuracy, and the one look at the test rows."""
    baseline_model = problem.quantized(problem.networks.start, len(rows.calibration))
    assert start.measured is not None
    baseline = Baseline(start.measured, start.accuracy, _score(problem, baseline_model, rows))
    test = split_parts(data, settings.seed).test
    if test is None or test.y is None:
        return baseline, None
    with step(progress, Step.REPORT, f"{test.count} test rows") as running:
        x = np.ascontiguousarray(test.inputs[0], dtype=np.float32)
        real = classes(problem.networks.start, x)
        before, after = predictions(baseline_model, x), predictions(final.model, x)
        report = TestReport(paired_drop(real, after, test.y), paired_drop(before, after, test.y))
        found = report.against_float
        running.outcome = (
            f"float {found.before:.4f}, optimized {found.after:.4f}: "
            f"{found.points:.2f} points lost ({found.low:.2f} to {found.high:.2f})"
        )
    return baseline, report


def _conclude(
    place: Path,
    target: Target,
    limits: Limits,
    max_drop: float | None,
    baseline: Baseline,
    trials: tuple[Trial, ...],
    outcome: Outcome,
    deployment: Deployment,
    final: _Final,
    test: TestReport | None,
    measuring: MeasuringBoard,
    store: SearchStore,
) -> Optimization:
    measurement = deployment.measurement
    assert measurement is not None
    memory = deployment.image.memory
    winner = Measured(measurement.p50, memory.flash_bytes, memory.ram_bytes)
    problems = [problem.message for problem in deployment.problems]
    if not limits.met_by(winner):
        binding = f"; the group that binds is {printable(outcome.binding)}" if outcome.binding else ""
        problems.append(
            f"the best found costs {winner.cost:,.0f} {measurement.unit}, {winner.flash_bytes:,} B of flash "
            f"and {winner.ram_bytes:,} B of RAM, which is over the budget: {outcome.reason}{binding}"
        )
    lost = test.against_float.points if test is not None else 100 * (baseline.float_accuracy - final.accuracy)
    if max_drop is not None and lost > max_drop:
        rows = "test" if test is not None else "validation"
        problems.append(
            f"{lost:.2f} points of accuracy are lost on the {rows} rows, {max_drop:g} are allowed"
        )
    return Optimization(
        directory=place,
        target=target,
        limits=limits,
        max_drop=max_drop,
        unit=measurement.unit,
        baseline=baseline,
        trials=trials,
        outcome=outcome,
        deployment=deployment,
        winner=winner,
        winner_accuracy=final.accuracy,
        test=test,
        measurements=store.measurements() + 1,
        flashes=measuring.flashes,
        problems=tuple(problems),
    )


def _shown(model: str | Path | TorchProgram) -> str:
    return model.name if isinstance(model, TorchProgram) else printable(str(model))
