"""`optimize`: a torch model and a budget in, a deployment within it out, chosen by what the board measured.

    operators measured ──▶ baseline measured ──▶ search (prune, fine-tune, measure) ──▶ long fine-tune
        ──▶ quantise ──▶ folder ──▶ deploy: verified on the board ──▶ the test rows, once

All that is known is in `search.sqlite`; a call that was interrupted is taken up by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import DEFAULT_IMPORT, ImportOptions, TorchProgram
from edgekit.budget import Budget
from edgekit.compression import TorchSource, open_torch, training_rows
from edgekit.conditions import measuring_conditions
from edgekit.data import DataSet, read_data, split_parts
from edgekit.errors import BudgetError, UsageError
from edgekit.optimization.board import MeasuringBoard
from edgekit.optimization.feasibility import refuse_impossible
from edgekit.optimization.final import Final, finish, integer_accuracy
from edgekit.optimization.identity import operator_table, search_identity
from edgekit.optimization.page import write_report
from edgekit.optimization.problem import TorchProblem
from edgekit.optimization.result import Baseline, HeldOut, Optimization
from edgekit.optimization.settings import DEFAULT_SETTINGS, Settings
from edgekit.pipeline import Deployment, deploy
from edgekit.profile import tick_unit
from edgekit.progress import Notice, Progress, Step, silent, step
from edgekit.search.problem import Limits, Measured, Outcome, Strategy, Trial
from edgekit.search.store import LatencyTable, SearchStore
from edgekit.stages import STAGES, Stages
from edgekit.target import Target, load_target
from edgekit.text import file_name, printable
from edgekit.training_data import check_classes, rows_as_input

if TYPE_CHECKING:
    from edgekit.compress.apply import Rows
    from edgekit.compress.training import Augment

__all__ = ["optimize"]

VERIFIED_ROWS = 64
"""Validation rows that run on the board and must be answered there as here. All accuracies are then those of
the same integers on this machine.
"""


def optimize(
    model: str | Path | TorchProgram,
    *,
    target: str | Path | Target,
    data: str | Path | None,
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
        max_flashes: How many images may be flashed in all, the deployed one included.
        strategy: What proposes candidates; `settings.strategy` by default.
        augment: Changes training rows as they are used; see `edgekit.compress.training.Augment`.
        directory: Where all is written; `build/<model>-<target>-optimized` by default.
        resume: Take up what an interrupted call left in the folder; else it is removed first.
        folder: Where the factory's and the loader's modules are looked for.
        tried: Told of each trial.

    Returns:
        What was found and deployed; `raise_for_problems` raises where it misses the budget.

    Raises:
        BudgetError: not even the smallest network meets the budget, or the start could not be measured
            within `max_flashes`.
        DeviceError: the board is gone and did not come back.
        ModelError: the model has nothing to train, answers no classes, or its channels can't be removed.
        UsageError: no limit is given, the data don't fit, or the folder is another search's.
    """
    resolved = target if isinstance(target, Target) else load_target(str(target))
    budget.check_measurable(resolved)
    limits = _limits(budget, resolved)
    if max_flashes is not None and max_flashes < 3:
        raise UsageError("max_flashes is at least 3: the operators, the start and the deployment")
    with step(progress, Step.IMPORT, _shown(model)) as running:
        source = open_torch(model, options, folder)
        running.outcome = f"{sum(one.numel() for one in source.module.parameters()):,} parameters"
    with step(progress, Step.DATA, printable(str(data))) as running:
        if data is None:
            raise UsageError(
                "no data to train on are named",
                hint="give --data FILE.npz with x and y, or x_train, y_train, x_val, y_val, x_test, y_test",
            )
        data_set = rows_as_input(read_data(data, folder=folder), source.example[0])
        check_classes(source.module, source.example, data_set)
        rows, split = training_rows(data_set, settings.seed)
        running.outcome = f"{len(rows.train)} rows to train on, {len(rows.validation)} to select by"
    # Not before: it brings torch.
    from edgekit.optimization.networks import search_networks

    place = Path(directory) if directory is not None else _default_place(source.name, resolved)
    work = place / "search"
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    with (
        _repeatable(),
        closing(
            SearchStore(work / "search.sqlite", search_identity(source, resolved, split, settings))
        ) as store,
        closing(LatencyTable(operator_table(), measuring_conditions(resolved, board))) as table,
    ):
        measuring = MeasuringBoard(
            resolved,
            None if board is None else stages.parse_board(board),
            work,
            flashed=lambda what: _count_flash(store, what),
            flashes=store.flashes(),
            # The last one is the deployment's.
            max_flashes=None if max_flashes is None else max_flashes - 1,
            stages=stages,
            waiting=lambda reason: progress(Notice(reason)),
        )
        problem = TorchProblem(
            search_networks(source, rows, store, work, settings, augment),
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
        unit = tick_unit(resolved).unit
        with step(progress, Step.PROFILE, "the model as it is") as running:
            refuse_impossible(problem, limits, unit)
            running.outcome = f"{problem.measure(problem.start()).cost:,.0f} {unit} as it is"
        trials, outcome = _search(problem, strategy or settings.strategy, limits, progress, tried)
        winner = outcome.best.candidate
        final = finish(problem, winner, place, source, rows, settings, augment, progress)
        deployment = _deployed(final, resolved, rows, board, place, source, settings, progress, stages)
        measuring.flashes = _count_flash(store, "deployment")
        start = trials[0]
        assert start.measured is not None
        baseline_model = problem.quantized(problem.networks.start, len(rows.calibration))
        baseline = Baseline(start.measured, start.accuracy, integer_accuracy(problem, baseline_model, rows))
        test = _test(problem, data_set, final, store, settings, progress, len(rows.calibration))
        measurement = deployment.measurement
        assert measurement is not None
        memory = deployment.image.memory
        measured = Measured(measurement.p50, memory.flash_bytes, memory.ram_bytes)
        result = Optimization(
            name=source.name,
            directory=place,
            target=resolved,
            limits=limits,
            max_drop=max_drop,
            max_flashes=max_flashes,
            unit=measurement.unit,
            baseline=baseline,
            trials=trials,
            outcome=outcome,
            deployment=deployment,
            winner=measured,
            winner_accuracy=final.accuracy,
            quantised=final.quantised,
            test=test,
            looks=store.looks(),
            measurements=store.measurements() + 1,
            flashes=measuring.flashes,
            problems=_problems(limits, max_drop, measured, outcome, deployment, baseline, final, test),
        )
        with step(progress, Step.REPORT, printable(str(place))) as running:
            running.outcome = printable(str(write_report(result)))
        return result


def _limits(budget: Budget, target: Target) -> Limits:
    """The budget in the board's own unit."""
    cost: float | None = budget.max_instructions
    if budget.max_latency_us is not None:
        cycles = tick_unit(target).unit == "cycles"
        cost = budget.max_latency_us * (target.clock.hz / 1e6 if cycles else 1.0)
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


@contextmanager
def _repeatable() -> Iterator[None]:
    """torch's algorithms that repeat themselves to the bit, for a while."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _count_flash(store: SearchStore, what: str) -> int:
    store.add_flash(what)
    return store.flashes()


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


def _deployed(
    final: Final,
    target: Target,
    rows: Rows,
    board: str | None,
    place: Path,
    source: TorchSource,
    settings: Settings,
    progress: Progress,
    stages: Stages,
) -> Deployment:
    """The winner on the board, verified by validation rows: the test rows are not looked at for that."""
    verified = place / "search" / "verified.npz"
    np.savez_compressed(verified, x=rows.validation.x[:VERIFIED_ROWS])
    return deploy(
        final.directory,
        target=target,
        data=verified,
        board=board,
        options=ImportOptions(name=source.name),
        seed=settings.seed,
        directory=place / "deployment",
        progress=progress,
        check=False,
        stages=stages,
    )


def _test(
    problem: TorchProblem,
    data: DataSet,
    final: Final,
    store: SearchStore,
    settings: Settings,
    progress: Progress,
    calibration_rows: int,
) -> HeldOut | None:
    from edgekit.optimization.heldout import held_out

    test = split_parts(data, settings.seed).test
    if test is None or test.y is None:
        return None
    start = problem.networks.start
    with step(progress, Step.REPORT, f"{test.count} test rows") as running:
        report = held_out(test, start, lambda: problem.quantized(start, calibration_rows), final, store)
        found = report.against_float
        running.outcome = (
            f"{test.count} test rows: float {found.before:.4f}, optimized {found.after:.4f}, "
            f"{found.points:.2f} points lost ({found.low:.2f} to {found.high:.2f})"
        )
    return report


def _problems(
    limits: Limits,
    max_drop: float | None,
    winner: Measured,
    outcome: Outcome,
    deployment: Deployment,
    baseline: Baseline,
    final: Final,
    test: HeldOut | None,
) -> tuple[str, ...]:
    """What the deployed program misses, a sentence each."""
    problems = [problem.message for problem in deployment.problems]
    if not limits.met_by(winner):
        assert deployment.measurement is not None
        binding = f"; the group that binds is {printable(outcome.binding)}" if outcome.binding else ""
        problems.append(
            f"the best found costs {winner.cost:,.0f} {deployment.measurement.unit}, "
            f"{winner.flash_bytes:,} B of flash and {winner.ram_bytes:,} B of RAM, which is over the budget: "
            f"{outcome.reason}{binding}"
        )
    lost = test.against_float.points if test is not None else 100 * (baseline.float_accuracy - final.accuracy)
    if max_drop is not None and lost > max_drop:
        rows = "test" if test is not None else "validation"
        problems.append(
            f"{lost:.2f} points of accuracy are lost on the {rows} rows, {max_drop:g} are allowed"
        )
    return tuple(problems)


def _shown(model: str | Path | TorchProgram) -> str:
    return model.name if isinstance(model, TorchProgram) else printable(str(model))
