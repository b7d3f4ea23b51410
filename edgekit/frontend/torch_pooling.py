"""Maximum pooling of a captured torch graph in its one plain form: no indices, no adaptive windows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from edgekit.errors import UnsupportedError
from edgekit.frontend.shapes import show_name
from edgekit.frontend.torch_nodes import arguments, module_path, operator_name, shape_of

__all__ = ["plain_pools"]

aten = torch.ops.aten

_WITH_INDICES: Mapping[Any, Any] = {
    aten.max_pool1d_with_indices.default: aten.max_pool1d.default,
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
}
_ADAPTIVE: Mapping[Any, tuple[int, Any]] = {
    aten.adaptive_max_pool1d.default: (1, aten.max_pool1d.default),
    aten.adaptive_max_pool2d.default: (2, aten.max_pool2d.default),
}


def plain_pools(graph_module: fx.GraphModule) -> None:
    """Replace pools that answer (values, indices) by pools that answer values.

    Raises:
        UnsupportedError: something reads the indices.
    """
    for node in list(graph_module.graph.nodes):
        if node.target not in _WITH_INDICES and node.target not in _ADAPTIVE:
            continue
        if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
            kind = operator_name(node).partition(".")[0]
            raise UnsupportedError(
                f"{kind} {show_name(module_path(node) or node.name)} of the torch model: the indices of its "
                "maxima have no converter",
                hint="leave out return_indices=True, or compute them outside the model",
            )
        with graph_module.graph.inserting_before(node):
            if node.target in _WITH_INDICES:
                source, *rest = arguments(node)
                values = _call(node, _WITH_INDICES[node.target], source, *rest)
            else:
                values = _adaptive(node)
        for user in list(node.users):
            user.replace_all_uses_with(values)
            graph_module.graph.erase_node(user)
        graph_module.graph.erase_node(node)


def _adaptive(node: fx.Node) -> fx.Node:
    """One pool where all windows of an axis have the same size and distance; else a pool a window, joined."""
    axes, target = _ADAPTIVE[node.target]
    source, sizes = arguments(node)
    sides = (shape_of(source) or ())[-axes:]
    windows = [_windows(side, size) for side, size in zip(sides, sizes, strict=True)]
    value: fx.Node = source
    kernel, stride = [1] * axes, [1] * axes
    for axis, each in enumerate(windows):
        regular = _regular(each)
        if regular is not None:
            kernel[axis], stride[axis] = regular
            continue
        parts = []
        for start, end in each:
            part = _call(node, aten.slice.Tensor, value, axis - axes, start, end)
            whole = [end - start if other == axis else 1 for other in range(axes)]
            parts.append(_call(node, target, part, whole, [1] * axes))
        value = _call(node, aten.cat.default, parts, axis - axes)
    # A window of one element changes nothing, but the result must not be what was read.
    return (
        value if value is not source and kernel == [1] * axes else _call(node, target, value, kernel, stride)
    )


def _windows(side: int, size: int) -> list[tuple[int, int]]:
    """First and last (not included) element of each window, as torch defines them: they may overlap."""
    return [(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]


def _regular(windows: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Size and distance of windows that all have the same; else None."""
    sizes = {end - start for start, end in windows}
    distances = {after[0] - before[0] for before, after in pairwise(windows)} or {1}
    return (sizes.pop(), distances.pop()) if len(sizes) == len(distances) == 1 else None


def _call(owner: fx.Node, target: Callable[..., Any], *given: Any) -> fx.Node:
    node = owner.graph.call_function(target, given)
    fakes = fx.node.map_arg(given, lambda argument: argument.meta["val"])
    node.meta = {"val": target(*fakes), "nn_module_stack": owner.meta.get("nn_module_stack")}
    return node
