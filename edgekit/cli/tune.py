"""`edgekit tune`: each operator's kernel chosen by what it costs on the board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from edgekit.cli.options import (
    BoardOption,
    CalibrationMethodOption,
    CalibrationOption,
    DataOption,
    DebugFlag,
    JsonFlag,
    ModelArgument,
    NameOption,
    PrecisionOption,
    PreferOption,
    QuietFlag,
    SeedOption,
    ShapeOption,
    TargetOption,
    TrustFlag,
    WeightsOption,
)
from edgekit.cli.session import Session
from edgekit.cli.settings import (
    board_name,
    existing_model,
    model_settings,
    project_of_this_folder,
    target_name,
)

if TYPE_CHECKING:
    from pydantic import JsonValue
    from rich.console import RenderableType

    from edgekit.tuning import TunedOperator, Tuning, VariantCost

__all__ = ["command"]

_UNITS = {"instructions": "instructions", "cycles": "cycles", "us": "µs"}


def command(
    context: typer.Context,
    model: ModelArgument = None,
    target: TargetOption = None,
    board: BoardOption = None,
    prefer: PreferOption = None,
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
    """Choose each operator's kernel by measuring all of them on the board; what is known is not measured."""
    session = Session.of(context, json=json, quiet=quiet, debug=debug)
    project = project_of_this_folder()
    chosen = model_settings(
        "tune",
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
    where = target_name(target, project)
    existing_model(chosen.model)

    from edgekit.pipeline import tune
    from edgekit.target import load_target

    resolved = load_target(where)
    with session.progress() as progress:
        found = tune(
            chosen.model,
            target=resolved,
            calibration=chosen.calibration,
            data=chosen.data,
            board=board_name(board, resolved, project),
            options=chosen.options,
            compile_options=chosen.compile_options,
            seed=chosen.seed,
            folder=chosen.folder,
            progress=progress,
        )
    session.document(_document(found))
    session.show(_view(found))
    if found.choices:
        session.say(f"next: edgekit deploy {chosen.model} --target {resolved.name} --tune")


def _view(found: Tuning) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from edgekit.cli.tables import Side, plain_table

    unit = _UNITS[found.unit]
    modelled = found.core is not None
    headings: list[tuple[str, Side]] = [
        ("#", "left"),
        ("operator", "left"),
        ("variant", "left"),
        (unit, "right"),
    ]
    headings += [("model cycles", "right")] if modelled else []
    headings += [("", "left"), ("saving", "right")]
    alike: dict[TunedOperator, list[int]] = {}
    for number, operator in enumerate(found.operators):
        alike.setdefault(replace(operator, name=""), []).append(number)
    rows = [row for operator, numbers in alike.items() for row in _rows(operator, numbers, modelled=modelled)]
    return Group(*([plain_table(headings, rows, flexible=0)] if rows else []), *map(Text, _facts(found)))


def _rows(operator: TunedOperator, numbers: Sequence[int], *, modelled: bool) -> list[list[str]]:
    """Lines of the operators of one shape, which have these numbers in the model."""
    if not operator.costs:
        return []
    names = [[", ".join(map(str, numbers)), operator.op], *[["", ""]] * len(operator.costs)]
    rows = []
    for place, cost in enumerate(operator.costs):
        chosen = cost.variant == operator.chosen
        mark = "chosen" if chosen else "default" if cost.variant == operator.default else ""
        row = [*names[place], cost.variant, f"{cost.cost:,.0f}"]
        row += [f"{cost.model_cycles or 0:,}"] if modelled else []
        rows.append([*row, mark, _saving(operator, cost) if chosen else ""])
    return rows


def _saving(operator: TunedOperator, chosen: VariantCost) -> str:
    """Of the chosen variant against the default, in what is compared."""
    default = operator.cost(operator.default)
    if default is None or default is chosen:
        return ""
    before, after = default.weight(operator.costs), chosen.weight(operator.costs)
    return f"{(before - after) / before:.1%}" if before else ""


def _facts(found: Tuning) -> list[str]:
    if found.file is None:
        return [f"{found.target} has one way to compute each operator: there is nothing to choose"]
    changed = len(found.choices)
    unit = _UNITS[found.unit]
    before, after = (found.total(chosen=chosen, model=False) for chosen in (False, True))
    choices = f"{changed} operator(s) with another variant than the default"
    facts = [f"{choices}; all that have several: {before:,.0f} {unit} before, {after:,.0f} after"]
    if found.core is not None:
        before, after = (found.total(chosen=chosen, model=True) for chosen in (False, True))
        instead = "" if found.core == found.own_core else f" (none is documented of the {found.own_core})"
        facts.append(
            f"chosen by a model of cycles, Arm's documented timing of the {found.core}{instead}: "
            f"{before:,.0f} before, {after:,.0f} after; the emulator itself counts instructions"
        )
    elif found.unit == "instructions":
        facts.append("chosen by the count of instructions alone, which flatters loads of several words")
    if found.limited:
        facts.append("the fastest variants together take too much memory: slower ones were taken")
    facts.append(
        f"{found.measured} variant(s) measured in {found.images} image(s); all costs are in {found.file}"
    )
    return facts


def _document(found: Tuning) -> JsonValue:
    operators: list[JsonValue] = [
        {
            "name": operator.name,
            "op": operator.op,
            "default": operator.default,
            "chosen": operator.chosen,
            "variants": [
                {"name": cost.variant, "cost": cost.cost, "model_cycles": cost.model_cycles}
                for cost in operator.costs
            ],
        }
        for operator in found.operators
    ]
    return {
        "schema": "edgekit.tune/1",
        "target": found.target,
        "unit": found.unit,
        "model_core": found.core,
        "measured": found.measured,
        "images": found.images,
        "limited": found.limited,
        "file": None if found.file is None else str(found.file),
        "operators": operators,
    }
