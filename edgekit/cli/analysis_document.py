"""`edgekit.analyze/1`: what `edgekit analyze --json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import JsonValue

from edgekit.layer_errors import Comparison, LayerError

if TYPE_CHECKING:
    from edgekit.compiler import OperatorAnalysis
    from edgekit.pipeline import Analysis

__all__ = ["analysis_document"]


def analysis_document(found: Analysis) -> JsonValue:
    operators, program = found.operators, found.program
    forms = [operator.form for operator in operators]
    return {
        "schema": "edgekit.analyze/1",
        "model": {"name": found.model.name, "format": found.model.format, "sha256": found.model.sha256},
        "target": found.target.name,
        "inputs": list(found.model.input_names),
        "outputs": list(found.model.output_names),
        "macs": sum(operator.macs for operator in operators),
        "parameters": sum(operator.parameters for operator in operators),
        "forms": {form: forms.count(form) for form in ("integer", "float", "refused")},
        "memory": {
            "arena_bytes": program.arena_bytes,
            "constants_bytes": program.constants_bytes,
            "ram_limit": program.ram_limit,
            "flash_limit": program.flash_limit,
        },
        "operators": [_operator(operator) for operator in operators],
        "comparison": None if found.comparison is None else _comparison(found.comparison),
    }


def _operator(operator: OperatorAnalysis) -> JsonValue:
    return {
        "name": operator.name,
        "op": operator.op,
        "form": operator.form,
        "schedule": operator.schedule,
        "input_shapes": [list(shape) for shape in operator.input_shapes],
        "output_shape": list(operator.output_shape),
        "macs": operator.macs,
        "parameters": operator.parameters,
        "weights_bytes": operator.weights_bytes,
        "activation_bytes": operator.activation_bytes,
        "workspace_bytes": operator.workspace_bytes,
        "reason": operator.reason,
    }


def _comparison(comparison: Comparison) -> JsonValue:
    return {
        "rows": comparison.rows,
        "reference": comparison.reference,
        "worst": [comparison.layers[position].index for position in comparison.worst],
        "layers": [_layer(layer) for layer in comparison.layers],
    }


def _layer(layer: LayerError) -> JsonValue:
    return {
        "operator": layer.index,
        "name": layer.name,
        "op": layer.op,
        "dtype": layer.dtype,
        "sqnr_db": layer.sqnr_db,
        "alone_db": layer.alone_db,
        "max_abs_error": layer.max_abs_error,
        "saturated": layer.saturated,
        "advice": [{"help": advice.help, "text": advice.text} for advice in layer.advice],
    }
