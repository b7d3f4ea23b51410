"""A search as other programs read it: `edgekit.optimize/1`. What was not measured is null."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import edgekit
from edgekit.optimization.accuracy import Drop, accuracy_interval
from edgekit.optimization.result import Optimization
from edgekit.search.problem import Limits, Measured, Trial

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["SCHEMA", "optimize_values"]

SCHEMA = "edgekit.optimize/1"


def optimize_values(found: Optimization) -> dict[str, JsonValue]:
    """The document; costs are in `unit`, drops in points, accuracies shares."""
    document = found.deployment.document
    best = found.outcome.best
    errors = found.prediction_errors
    return {
        "schema": SCHEMA,
        "edgekit": edgekit.__version__,
        "model": found.name,
        "target": {"name": found.target.name, "emulated": found.target.emulated},
        "unit": found.unit,
        "budget": _budget(found.limits, found.max_drop, found.max_flashes),
        "met": not found.problems,
        "problems": list(found.problems),
        "reason": found.outcome.reason,
        "binding": found.outcome.binding,
        "baseline": {
            **_measured(found.baseline.measured),
            "float_accuracy": found.baseline.float_accuracy,
            "accuracy": found.baseline.accuracy,
        },
        "winner": {
            **_measured(found.winner),
            "accuracy": found.winner_accuracy,
            "quantised": found.quantised,
            "macs": document.model.macs,
            "parameters": document.model.parameters,
            "channels": dict(best.candidate.channels),
            "bit_exact": document.verify.bit_exact if document.verify is not None else None,
            "model": str(found.directory / "model"),
            "deployment": document.artifacts.directory,
        },
        "front": [_trial(trial) for trial in found.front],
        "trials": [_trial(trial) for trial in found.trials],
        "prediction": None
        if errors is None
        else {"median_error": errors.median, "worst_error": errors.worst, "measured": errors.count},
        "measurements": found.measurements,
        "flashes": found.flashes,
        "test": _test(found),
    }


def _budget(limits: Limits, max_drop: float | None, max_flashes: int | None) -> JsonValue:
    return {
        "cost": limits.cost,
        "flash_bytes": limits.flash_bytes,
        "ram_bytes": limits.ram_bytes,
        "max_drop": max_drop,
        "max_flashes": max_flashes,
    }


def _measured(found: Measured) -> dict[str, JsonValue]:
    return {"cost": found.cost, "flash_bytes": found.flash_bytes, "ram_bytes": found.ram_bytes}


def _trial(trial: Trial) -> JsonValue:
    return {
        "step": trial.step,
        "role": trial.role,
        "group": trial.group,
        "channels": dict(trial.candidate.channels),
        "predicted": {
            "cost": trial.predicted.cost,
            "low": trial.predicted.low,
            "high": trial.predicted.high,
        },
        "measured": None if trial.measured is None else _measured(trial.measured),
        "accuracy": trial.accuracy,
        "loss": trial.loss,
    }


def _test(found: Optimization) -> JsonValue:
    if found.test is None:
        return None
    rows, accuracy = found.test.against_float.rows, found.test.against_float.after
    low, high = accuracy_interval(accuracy, rows)
    return {
        "rows": rows,
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "float": _drop(found.test.against_float),
        "int8": _drop(found.test.against_int8),
        "looks": found.looks,
    }


def _drop(drop: Drop) -> JsonValue:
    values = asdict(drop)
    return {
        "accuracy": values["before"],
        "drop": values["points"],
        "drop_low": values["low"],
        "drop_high": values["high"],
    }
