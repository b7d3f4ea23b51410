"""Choose schedules by measurement: variants side by side in images, the fastest that fit together."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifacts import MemoryUse, Model, Preference
from edgekit.errors import DoesNotFitError
from edgekit.fsutil import cache_folder
from edgekit.profile import tick_unit
from edgekit.progress import Notice, Progress, Step, silent, step
from edgekit.stages import STAGES, Stages
from edgekit.target import Target
from edgekit.tuning.board import VariantBoard, key_of
from edgekit.tuning.choice import choose
from edgekit.tuning.conditions import tuning_conditions
from edgekit.tuning.costs import CostFile, OperatorKey, Unit, VariantCost, ranked
from edgekit.tuning.model_cycles import modelled_core

if TYPE_CHECKING:
    from edgekit.compiler.candidates import Candidate
    from edgekit.compiler.program import Program

__all__ = ["TunedOperator", "Tuning", "tune_model", "tune_program"]


@dataclass(frozen=True, slots=True)
class TunedOperator:
    """One operator: what its variants cost, and which one is used. No costs where there is one variant."""

    name: str
    """Name of its output in the source file (untrusted text)."""
    op: str
    default: str
    chosen: str
    costs: tuple[VariantCost, ...]

    def cost(self, variant: str) -> VariantCost | None:
        return next((cost for cost in self.costs if cost.variant == variant), None)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What tuning a program on a target found."""

    target: str
    unit: Unit
    core: str | None
    """The core by whose documented timing the choice was weighed; None where the cost itself decides."""
    own_core: str
    """The target's core, for which that one may stand in."""
    operators: tuple[TunedOperator, ...]
    choices: tuple[tuple[int, str], ...]
    """For `CompileOptions`."""
    measured: int
    """Variants measured now; the others were known."""
    images: int
    file: Path | None
    """Where the costs are kept; None where nothing was to be measured."""
    limited: bool
    """Whether the fastest variants together did not fit the board."""

    def total(self, *, chosen: bool, model: bool) -> float:
        """Sum over the operators with costs, of the chosen variants or of the defaults; in the unit, or in
        the model's cycles.
        """
        sum_ = 0.0
        for operator in self.operators:
            cost = operator.cost(operator.chosen if chosen else operator.default)
            if cost is not None:
                sum_ += (cost.model_cycles or 0) if model else cost.cost
        return sum_


def tune_model(
    model: Model,
    target: Target,
    *,
    board: str | None = None,
    prefer: Preference = "speed",
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Tuning:
    """Choose the variant of each operator of a model; see `tune_program`."""
    from edgekit.compiler import lower_model

    return tune_program(
        lower_model(model), target, board=board, prefer=prefer, progress=progress, stages=stages
    )


def tune_program(
    program: Program,
    target: Target,
    *,
    board: str | None = None,
    prefer: Preference = "speed",
    progress: Progress = silent,
    stages: Stages = STAGES,
) -> Tuning:
    """Measure the variants of a program's operators that are not known yet, and choose.

    The cheapest of each operator are taken, if the program with them fits the board's flash and RAM; else
    the next best. With `prefer` "ram" or "size" no choice takes more RAM or flash than the defaults do. Costs
    are kept in the cache folder.

    Raises:
        DeviceError: the board is gone; what was measured is kept.
        DoesNotFitError: no choice of variants fits the board.
        MissingToolError: the target's counter can't be read here, or its toolchain is missing.
    """
    from edgekit.artifacts import Serving
    from edgekit.compiler.candidates import list_candidates

    unit = tick_unit(target).unit
    candidates = list_candidates(program, target, prefer)
    several = {key_of(each): each for each in candidates if len(each.variants) > 1}
    if not several:
        progress(Notice(f"{target.name} has one way to compute each operator: there is nothing to choose"))
        return _result(candidates, {}, {}, target, unit, measured=0, images=0, file=None)
    file = CostFile(cache_folder() / "tuning", target.name, unit, tuning_conditions(target, board, prefer))
    missing = [
        (each, variant)
        for key, each in several.items()
        for variant in each.variants
        if variant not in file.costs(key)
    ]
    images = 0
    if missing:
        problem = stages.unmeasurable(target, Serving())
        if problem is not None:
            raise problem
        images = _measure(missing, file, target, board, prefer, progress, stages)
    costs = {
        key: tuple(file.costs(key)[name] for name in each.variants if name in file.costs(key))
        for key, each in several.items()
    }
    costs = {key: each for key, each in costs.items() if each}
    chosen = _choose(program, candidates, costs, file, target, prefer, progress, stages)
    return _result(
        candidates, costs, chosen, target, unit, measured=len(missing), images=images, file=file.path
    )


def _measure(
    missing: Sequence[tuple[Candidate, str]],
    file: CostFile,
    target: Target,
    board: str | None,
    prefer: Preference,
    progress: Progress,
    stages: Stages,
) -> int:
    """Measure variants and keep each image's costs at once; returns the number of images."""
    address = None if board is None else stages.parse_board(board)
    measuring = VariantBoard(target, address, prefer, stages, lambda text: progress(Notice(text)))
    with step(progress, Step.TUNE, f"{len(missing)} variants on {target.name}", len(missing)) as running:
        done = 0
        for found in measuring.measure(missing):
            file.add(found)
            done += len(found)
            running.advance(done)
        running.outcome = f"{done} variants measured in {measuring.images} image(s)"
    return measuring.images


def _choose(
    program: Program,
    candidates: Sequence[Candidate],
    costs: Mapping[OperatorKey, tuple[VariantCost, ...]],
    file: CostFile,
    target: Target,
    prefer: Preference,
    progress: Progress,
    stages: Stages,
) -> Mapping[OperatorKey, str]:
    """The variants by operator. The program is built with them, unless that was done before."""
    digest = _digest(program, candidates, costs)
    known = file.chosen(digest)
    if known is not None:
        return dict(zip(costs, known, strict=True))
    defaults = {key_of(each): each.variants[0] for each in candidates}
    refusals: list[DoesNotFitError] = []

    @functools.cache
    def memory(names: tuple[str, ...]) -> MemoryUse | int:
        """Of the image, or the bytes that the board has too few."""
        try:
            return _build(program, candidates, dict(zip(costs, names, strict=True)), target, prefer, stages)
        except DoesNotFitError as error:
            refusals.append(error)
            return error.excess_bytes or 1

    def excess(names: tuple[str, ...]) -> int:
        found, default = memory(names), tuple(defaults[key] for key in costs)
        if isinstance(found, int):
            return found
        limit = memory(default) if prefer != "speed" else found
        return 0 if isinstance(limit, int) else _more(found, limit, prefer)

    with step(progress, Step.TUNE, f"the program with the fastest variants on {target.name}") as running:
        chosen = choose(list(costs.values()), [defaults[key] for key in costs], excess)
        if chosen is None:
            raise refusals[0]
        limited = any(
            ranked(each)[0].variant != name for each, name in zip(costs.values(), chosen, strict=True)
        )
        running.outcome = "slower variants, which fit" if limited else "it fits the board"
    file.add_program(digest, chosen)
    return dict(zip(costs, chosen, strict=True))


def _build(
    program: Program,
    candidates: Sequence[Candidate],
    chosen: Mapping[OperatorKey, str],
    target: Target,
    prefer: Preference,
    stages: Stages,
) -> MemoryUse:
    from edgekit.compiler import compile_program

    choices = dict(_choices(candidates, chosen))
    compiled = compile_program(program, target, name="tuned", prefer=prefer, choices=choices)
    with tempfile.TemporaryDirectory(prefix="edgekit-tuned-") as folder:
        return stages.build_image(compiled, target, Path(folder) / "image", {}).memory


def _more(found: MemoryUse, default: MemoryUse, prefer: Preference) -> int:
    """What a choice takes more than the defaults of that which the user wants to save first."""
    if prefer == "size":
        return found.flash_bytes - default.flash_bytes
    return found.ram_bytes - default.ram_bytes if prefer == "ram" else 0


def _choices(
    candidates: Sequence[Candidate], chosen: Mapping[OperatorKey, str]
) -> tuple[tuple[int, str], ...]:
    """By output tensor; only what is not the default."""
    return tuple(
        (each.output, chosen[key_of(each)])
        for each in candidates
        if chosen.get(key_of(each), each.variants[0]) != each.variants[0]
        and chosen[key_of(each)] in each.variants
    )


def _digest(
    program: Program,
    candidates: Sequence[Candidate],
    costs: Mapping[OperatorKey, tuple[VariantCost, ...]],
) -> str:
    """What decides a choice: the operators in order with their tensors, and the costs."""
    operators = [
        (each.kind, each.channels, each.variants, each.step.inputs, each.output) for each in candidates
    ]
    tensors = [(tensor.shape, tensor.dtype, tensor.storage, tensor.offset) for tensor in program.tensors]
    known = [[(cost.variant, cost.cost, cost.model_cycles) for cost in each] for each in costs.values()]
    return hashlib.sha256(json.dumps([operators, tensors, known]).encode()).hexdigest()


def _result(
    candidates: Sequence[Candidate],
    costs: Mapping[OperatorKey, tuple[VariantCost, ...]],
    chosen: Mapping[OperatorKey, str],
    target: Target,
    unit: Unit,
    *,
    measured: int,
    images: int,
    file: Path | None,
) -> Tuning:
    modelled = all(cost.model_cycles is not None for each in costs.values() for cost in each)
    return Tuning(
        target=target.name,
        unit=unit,
        core=modelled_core(target) if costs and modelled else None,
        own_core=target.compile.mcpu or "",
        operators=tuple(
            TunedOperator(
                each.name,
                each.step.operator.label,
                each.variants[0],
                _chosen(each, chosen),
                costs.get(key_of(each), ()),
            )
            for each in candidates
        ),
        choices=_choices(candidates, chosen),
        measured=measured,
        images=images,
        file=file,
        limited=any(chosen[key] != ranked(each)[0].variant for key, each in costs.items()),
    )


def _chosen(candidate: Candidate, chosen: Mapping[OperatorKey, str]) -> str:
    name = chosen.get(key_of(candidate), candidate.variants[0])
    return name if name in candidate.variants else candidate.variants[0]
