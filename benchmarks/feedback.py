"""Is measuring worth it? The example's search against networks that nobody searched, at the same cost.

    python benchmarks/feedback.py                 hours: 3 seeds, the example's own settings
    python benchmarks/feedback.py --quick         one seed, few rows, one epoch: that it runs
    python benchmarks/feedback.py --only predictions      predicted against measured, 20 networks never seen
    python benchmarks/feedback.py --methods edgekit,macs --target rpi4-emulated     that board's guide

For each seed, on Fashion-MNIST, all in int8 and on the same board:

- edgekit: `optimize`, which may cost as much as those that follow do;
- macs: the same search, its proposals compared by multiply-accumulates instead of measurements;
- pruned: every group pruned by the same share in one step, by the same importance;
- scratch: the same widths with new weights.

The last two have the widest even share of all channels that costs no more than `--share` of the int8 build.
What it is measured to cost is the searches' budget. They train as edgekit's network does: the same rows,
losses, learning rates and epochs, its short training in the search included. With `--folder`, a comparison
that was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, median, stdev
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.artifacts import ImportOptions
from edgekit.budget import Budget
from edgekit.compress.apply import Rows
from edgekit.compress.channels import channel_groups, channel_importance, least_important, remove_channels
from edgekit.compress.training import Labelled, Training, TrainingRun, accumulate_gradients, train
from edgekit.compression import open_torch, quantizers, training_rows
from edgekit.data import DataSet, Part, read_data, split_parts
from edgekit.frontend import load_torch
from edgekit.fsutil import atomic_write
from edgekit.optimization import Settings, optimize
from edgekit.optimization.accuracy import predictions
from edgekit.optimization.augment import load_augment
from edgekit.optimization.board import MeasuringBoard
from edgekit.optimization.networks import Networks
from edgekit.optimization.problem import TorchProblem
from edgekit.search.exchange import Exchange
from edgekit.search.netadapt import NetAdapt
from edgekit.search.problem import Candidate
from edgekit.search.store import LatencyTable, SearchStore
from edgekit.target import load_target

EXAMPLE: Final = Path(__file__).resolve().parents[1] / "examples" / "fashion_mnist"
OPTIONS: Final = ImportOptions(
    name="fashion_mnist", weights=EXAMPLE / "model.safetensors", shapes={"input": (1, 1, 28, 28)}
)
QUICK: Final = Settings(
    strategy=Exchange(NetAdapt(reduction=0.25), rounds=1), short_rows=500, final_epochs=1, qat_epochs=0
)


METHODS: Final = ("edgekit", "pruned", "scratch", "macs")


@dataclass(frozen=True, slots=True)
class Result:
    """One network: what it cost on the board, its int8 accuracy on the test rows, and its training."""

    method: str
    seed: int
    cost: float
    accuracy: float
    epochs: int
    """Over all rows, with the short training of a search's winner."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all methods share."""

    target: str
    source: str
    data: DataSet
    rows: Rows
    settings: Settings
    folder: Path


@contextmanager
def _problem(work: Work, name: str) -> Iterator[TorchProblem]:
    """The search problem, for its measurements."""
    source = open_torch("model:build", OPTIONS, EXAMPLE)
    place = work.folder / name
    place.mkdir(parents=True, exist_ok=True)
    store = SearchStore(place / "search.sqlite", {"benchmark": name})
    table = LatencyTable(work.folder / "operators.sqlite", {"target": work.target})
    flashes: list[str] = []

    def flashed(what: str) -> int:
        flashes.append(what)
        return len(flashes)

    board = MeasuringBoard(
        load_target(work.target), None, place, flashed=flashed, flashes=0, max_flashes=None
    )
    networks = Networks(
        source.module,
        source.example,
        work.rows,
        store,
        place,
        few=work.rows.train,
        training=Training(),
        longer=Training(),
        importance=work.settings.importance,
        multiple_of=work.settings.multiple_of,
        augment=None,
    )
    try:
        yield TorchProblem(
            networks,
            work.rows.calibration,
            store,
            table,
            board,
            name=source.name,
            guide="measurements",
            seed=work.settings.seed,
        )
    finally:
        store.close()
        table.close()


def predicted_against_measured(work: Work, count: int) -> list[float]:
    """Relative errors of `count` networks with random channels that no search has seen, end to end."""
    errors = []
    rng = np.random.default_rng(20)
    with _problem(work, "predictions") as problem:
        problem.learn()
        problem.measure(problem.start())
        for number in range(count):
            channels = {
                group.name: int(rng.choice(np.arange(group.unit, group.channels + 1, group.unit)))
                for group in problem.groups
            }
            predicted = problem.predict(Candidate(tuple(channels.items()), "unseen")).cost
            program = problem.lower(problem.networks.untrained(channels), 64)
            measured = problem.board.measure_program(program, "unseen")[0].cost
            errors.append(abs(predicted - measured) / measured)
            print(
                f"  {number + 1:2d}  predicted {predicted:12,.0f}  measured {measured:12,.0f}  "
                f"{errors[-1]:7.2%}",
                flush=True,
            )
    return errors


def searched(work: Work, seed: int, cost: float, method: str) -> Result:
    """The search itself, guided by measurements (edgekit) or by MACs."""
    found = optimize(
        "model:build",
        target=work.target,
        data=work.source,
        budget=Budget(max_instructions=int(cost)),
        options=OPTIONS,
        settings=replace(work.settings, seed=seed, guide="macs" if method == "macs" else "measurements"),
        augment=load_augment("train:augment", EXAMPLE),
        directory=work.folder / f"{method}-{seed}",
        folder=EXAMPLE,
    )
    assert found.test is not None
    epochs = network_epochs(work.settings, len(work.rows.train))
    return Result(method, seed, found.winner.cost, found.test.against_float.after, epochs)


def uniform(problem: TorchProblem, limit: float) -> tuple[Mapping[str, int], float]:
    """Channels of the widest even share whose measured cost is at most `limit`, and that cost."""
    groups = problem.groups

    def channels(share: float) -> dict[str, int]:
        return {
            group.name: max(group.unit, int(share * group.channels / group.unit) * group.unit)
            for group in groups
        }

    def cost(share: float) -> float:
        program = problem.lower(problem.networks.untrained(channels(share)), 64)
        return problem.board.measure_program(program, "uniform")[0].cost

    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        if cost(middle) <= limit:
            low = middle
        else:
            high = middle
    return channels(low), cost(low)


def pruned(problem: TorchProblem, work: Work, channels: Mapping[str, int]) -> nn.Module:
    """The example's network pruned to these channels in one step, by gradients."""
    module = copy.deepcopy(problem.networks.start)
    example = problem.networks.example
    accumulate_gradients(module, _first(work.rows.train, 2048))
    removals = {
        group.name: least_important(
            channel_importance(module, group, work.settings.importance, example), group, channels[group.name]
        )
        for group in channel_groups(module, example)
        if channels[group.name] < group.channels
    }
    for name, gone in removals.items():
        remove_channels(module, name, gone, example)
    return module


def renewed(module: nn.Module, seed: int) -> nn.Module:
    """The same network with new weights."""
    torch.manual_seed(seed)
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return module


def finished(
    problem: TorchProblem, work: Work, module: nn.Module, epochs: int, seed: int, method: str
) -> Result:
    """Trained, quantised as the search's winner is, measured and tested."""
    settings, rows, teacher = work.settings, work.rows, problem.networks.teacher
    run = TrainingRun(augment=load_augment("train:augment", EXAMPLE))
    training = Training(
        epochs=epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.final_learning_rate,
        loss="both",
        seed=seed,
    )
    train(module, training, rows.train, None, teacher=teacher, run=run)
    made, example = quantizers(), problem.networks.example
    forms = [made.after_training(module, example, rows.calibration)]
    if settings.qat_epochs > 0:
        prepared = made.prepare(module, example)
        gentle = replace(
            training, epochs=settings.qat_epochs, learning_rate=settings.final_learning_rate / 10
        )
        train(prepared, gentle, rows.train, None, teacher=teacher, run=run)
        forms.append(made.convert(prepared))
    best = max(forms, key=lambda form: made.accuracy(form, example, rows.validation))
    model = load_torch(best, example, options=ImportOptions(name=method))
    from edgekit.compiler import lower_model

    cost = problem.board.measure_program(lower_model(model), method)[0].cost
    test = split_parts(work.data, 0).test
    assert test is not None
    assert test.y is not None
    answers = predictions(model, np.ascontiguousarray(test.inputs[0], np.float32))
    return Result(method, seed, cost, float(np.mean(answers == test.y)), epochs)


def network_epochs(settings: Settings, rows: int) -> int:
    """Epochs over all rows that the winner itself was trained for, its short training included."""
    short = settings.short_epochs * min(settings.short_rows, rows)
    return settings.final_epochs + math.ceil(short / rows)


def compared(work: Work, seeds: int, methods: Sequence[str], share: float) -> list[Result]:
    """Every method with every seed; what the folder already has is not done again."""
    kept = work.folder / "results.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    results = [Result(**json.loads(line)) for line in lines]
    with _problem(work, "uniform") as problem:
        limit = problem.measure(problem.start()).cost * share
        channels, budget = uniform(problem, limit)
        print(f"  even shares within {limit:,.0f}: {budget:,.0f}, {' '.join(map(str, channels.values()))}")
        # What the comparison hinges on before what is told beside it.
        for seed, method in sorted(product(range(seeds), methods), key=lambda pair: pair[1] == "macs"):
            found = [r for r in results if (r.method, r.seed) == (method, seed)]
            if not found:
                found = [_one(work, problem, method, seed, channels, budget)]
                results += found
                atomic_write(kept, "".join(json.dumps(asdict(r)) + "\n" for r in results).encode())
            print(
                f"  seed {seed}  {method:<8} {found[0].cost:12,.0f}  {found[0].accuracy:.4f}  "
                f"{found[0].epochs} epochs",
                flush=True,
            )
    return results


def _one(
    work: Work, problem: TorchProblem, method: str, seed: int, channels: Mapping[str, int], budget: float
) -> Result:
    if method in ("edgekit", "macs"):
        return searched(work, seed, budget, method)
    module = pruned(problem, work, channels)
    if method == "scratch":
        module = renewed(module, seed)
    epochs = network_epochs(work.settings, len(work.rows.train))
    return finished(problem, work, module, epochs, seed, method)


def _summary(results: list[Result]) -> None:
    print("method    accuracy (mean)  spread   cost (mean)")
    for method in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == method]
        accuracies = [result.accuracy for result in own]
        spread = stdev(accuracies) if len(own) > 1 else 0.0
        cost = mean(result.cost for result in own)
        print(f"{method:<9} {mean(accuracies):14.4f}  {spread:.4f}  {cost:12,.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="The search against networks that nobody searched.")
    parser.add_argument("--target", default="mps2-an386")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, few rows, one epoch")
    parser.add_argument("--only", choices=("predictions", "comparison"))
    parser.add_argument("--share", type=float, default=1 / 3, help="of the int8 build's cost that may remain")
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them")
    parser.add_argument("--final-epochs", type=int, help="of the last training (default: the settings')")
    parser.add_argument("--networks", type=int, default=20, help="that are predicted and measured")
    parser.add_argument("--folder", type=Path, help="where searches are kept and taken up again")
    parser.add_argument("--json", type=Path, help="write the results there too")
    arguments = parser.parse_args()
    sys.path.insert(0, str(EXAMPLE))
    methods = arguments.methods.split(",")
    if set(methods) - set(METHODS):
        parser.error(f"--methods takes {', '.join(METHODS)}")
    settings = QUICK if arguments.quick else Settings()
    if arguments.final_epochs is not None:
        settings = replace(settings, final_epochs=arguments.final_epochs)
    with tempfile.TemporaryDirectory(prefix="edgekit-feedback-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        source = _few_rows(folder) if arguments.quick else "dataset:rows"
        data = read_data(source, folder=EXAMPLE)
        rows, _ = training_rows(data, 0)
        work = Work(arguments.target, source, data, rows, settings, folder)
        document: dict[str, object] = {"target": arguments.target, "settings": repr(settings)}
        if arguments.only != "comparison":
            print(f"predicted against measured on {arguments.target}", flush=True)
            errors = predicted_against_measured(work, arguments.networks)
            print(f"median error {median(errors):.2%}, worst {max(errors):.2%} of {len(errors)} networks")
            document["prediction_errors"] = errors
        if arguments.only != "predictions":
            print("accuracy of int8 on the test rows at the same measured cost", flush=True)
            results = compared(work, 1 if arguments.quick else arguments.seeds, methods, arguments.share)
            _summary(results)
            document["results"] = [asdict(result) for result in results]
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _few_rows(folder: Path) -> str:
    """The example's rows, a few of each part, as a file."""
    splits = split_parts(read_data("dataset:rows", folder=EXAMPLE), 0)
    assert splits.test is not None
    path = folder / "few.npz"
    np.savez(
        path,
        x_train=splits.train.inputs[0][:2000],
        y_train=_labels(splits.train)[:2000],
        x_val=splits.validation.inputs[0][:500],
        y_val=_labels(splits.validation)[:500],
        x_test=splits.test.inputs[0][:500],
        y_test=_labels(splits.test)[:500],
    )
    return str(path)


def _labels(part: Part) -> npt.NDArray[np.int64]:
    assert part.y is not None
    return part.y


def _first(rows: Labelled, count: int) -> Labelled:
    return Labelled(rows.x[:count], None if rows.y is None else rows.y[:count])


if __name__ == "__main__":
    sys.exit(main())
