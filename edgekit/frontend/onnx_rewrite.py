"""Bring a checked ONNX graph to operators that have converters.

In rounds, as each step may open the way for another: what ONNX defines by other operators is expanded, shape
arithmetic and constants are worked out, control flow whose course is then known is written out. Recurrent
nodes come last, when the shapes are known, and then batch normalisations.
"""

from __future__ import annotations

import onnx.inliner
from onnx import ModelProto

from edgekit.errors import ModelError, UnsupportedError
from edgekit.frontend.onnx_batch_norm import fold_batch_normalizations
from edgekit.frontend.onnx_constants import fold_constants
from edgekit.frontend.onnx_control import inline_control_flow
from edgekit.frontend.onnx_fold import fold_shapes
from edgekit.frontend.onnx_infer import infer_shapes
from edgekit.frontend.onnx_names import CONVERTED, has_function_body
from edgekit.frontend.onnx_recurrent import expand_recurrent

__all__ = ["rewrite"]

MAX_ROUNDS = 12
MAX_NODES = 40_000


def _functions(model: ModelProto) -> set[str]:
    """The operators that only their definition by others can import."""
    found = set()
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or not has_function_body(node.op_type):
            continue
        # Their second outputs have no converter.
        several = node.op_type == "LayerNormalization" and any(node.output[1:])
        if node.op_type not in CONVERTED | {"Range"} or several:
            found.add(node.op_type)
    return found


def _expand_functions(model: ModelProto) -> tuple[ModelProto, bool]:
    names = _functions(model)
    if not names:
        return model, False
    before = len(model.graph.node)
    try:
        expanded: ModelProto = onnx.inliner.inline_selected_functions(
            model, [("", name) for name in sorted(names)], inline_schema_functions=True
        )
    except Exception as error:  # The C++ inliner raises bare exceptions.
        raise UnsupportedError(
            f"{', '.join(sorted(names))} of the ONNX file cannot be written out in other operators "
            f"({type(error).__name__})."
        ) from error
    return expanded, len(expanded.graph.node) != before


def rewrite(model: ModelProto) -> tuple[ModelProto, dict[str, str]]:
    """The rewritten model with the shapes of its tensors.

    Returns:
        The model, and for each tensor that a rewrite added the tensor of the file that it stands for.

    Raises:
        ModelError: shapes that contradict each other, a graph that grows beyond all bounds.
        UnsupportedError: recurrent nodes in a form that is not written out.
    """
    origins: dict[str, str] = {}
    model = infer_shapes(model)
    for _ in range(MAX_ROUNDS):
        changed = fold_shapes(model)
        changed |= fold_constants(model)
        inlined, written = inline_control_flow(model)
        origins |= written
        model, expanded = _expand_functions(model)
        if not (changed or inlined or expanded):
            break
        if len(model.graph.node) > MAX_NODES:
            raise ModelError(
                f"The ONNX file unrolls to {len(model.graph.node):,} operators; at most {MAX_NODES:,} "
                "are accepted."
            )
        model = infer_shapes(model)
    written = expand_recurrent(model)
    if written:
        origins |= written
        model = infer_shapes(model)
        while fold_constants(model):
            model = infer_shapes(model)
    if fold_batch_normalizations(model):
        model = infer_shapes(model)
    return model, origins
