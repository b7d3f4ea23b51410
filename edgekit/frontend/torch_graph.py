"""Capture a torch module as a graph of ATen operators, and bring it into the form that is quantised.

    module ──export──▶ functional graph ──rewrites──▶ graph without batch norms, dropouts, negative indices

Nothing here changes the caller's module: what is exported is a copy of it, in evaluation mode.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from edgekit.errors import ModelError
from edgekit.frontend.torch_nodes import arguments, describe_error, module_path
from edgekit.frontend.torch_quiet import quiet
from edgekit.frontend.torch_rewrite import rewrite
from edgekit.text import printable

__all__ = ["capture", "is_quantized", "out_of_place"]

aten = torch.ops.aten

Decompositions = Mapping[Any, Callable[..., Any]]


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention as two products and a softmax, which have integer forms each (Vaswani et al., 2017, 3.2.1).

    The scale is on the query: its product with the keys then needs no operator of its own.
    """
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = torch.where(allowed, scores, torch.full((), float("-inf")))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = torch.where(attn_mask, scores, torch.full((), float("-inf")))
        else:
            scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


_OWN_DECOMPOSITIONS: Decompositions = {aten.scaled_dot_product_attention.default: _attention}


def is_quantized(program: object) -> bool:
    """Whether a module or program is one that PT2E has converted: its graph quantises by itself."""
    graph = getattr(program, "graph", None)
    return isinstance(graph, fx.Graph) and any(
        getattr(node.target, "namespace", "") == "quantized_decomposed" for node in graph.nodes
    )


def out_of_place(module: nn.Module) -> nn.Module:
    """A copy of a module whose activations write to tensors of their own."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if getattr(part, "inplace", None) is True:
            part.inplace = False  # type: ignore[assignment]
    return copied


def capture(
    program: nn.Module | ExportedProgram, inputs: tuple[torch.Tensor, ...], imported: frozenset[str]
) -> fx.GraphModule:
    """The inference graph of a module, functional, its parameters as attributes.

    Args:
        program: A module, or a program that `torch.export.export` made of one in evaluation mode.
        inputs: Example inputs; their shapes are those of the graph.
        imported: Names (`conv2d.default`) of the operators that have converters. Others are decomposed.

    Raises:
        ModelError: the module can't be exported, or it was exported in training mode.
    """
    module = program.module(check_guards=False) if isinstance(program, ExportedProgram) else _in_eval(program)
    with quiet(), torch.enable_grad():
        # With gradients on, torch's transformer layers take the path that is made of plain operators.
        try:
            exported = torch.export.export(module, inputs, strict=False)
            _refuse_training(exported.graph)
            exported = exported.run_decompositions(_decompositions(exported, imported))
            again = _decompositions(exported, imported)
            if set(again) - set(_OWN_DECOMPOSITIONS):
                exported = exported.run_decompositions(again)
        except ModelError:
            raise
        except Exception as error:  # The user's own forward may raise anything.
            raise ModelError(
                f"The torch module cannot be exported: {describe_error(error)}",
                hint="torch.export.export(module, example_inputs) must work",
            ) from error
        graph_module: fx.GraphModule = exported.module(check_guards=False)
        rewrite(graph_module)
    return graph_module


def _in_eval(module: nn.Module) -> nn.Module:
    if isinstance(module, fx.GraphModule) and is_quantized(module):
        return module
    copied = out_of_place(module)
    try:
        return copied.eval()
    except NotImplementedError:  # an exported module refuses: it is in the mode it was exported in
        return copied


def _refuse_training(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.target is aten.batch_norm.default and arguments(node)[5] is True:
            raise ModelError(
                f"The torch program was exported in training mode ({printable(module_path(node))}).",
                hint="call module.eval() before torch.export.export",
            )


def _decompositions(exported: ExportedProgram, imported: frozenset[str]) -> dict[Any, Callable[..., Any]]:
    """How to take apart what has no converter, and no more than that."""
    from torch.export import default_decompositions

    table = default_decompositions()
    wanted: dict[Any, Callable[..., Any]] = dict(_OWN_DECOMPOSITIONS)
    for node in exported.graph.nodes:
        target = node.target
        if node.op == "call_function" and target in table and target.__name__ not in imported:
            wanted[target] = table[target]
    return wanted
