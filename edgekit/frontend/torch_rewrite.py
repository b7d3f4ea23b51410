"""Rewrites that bring a captured torch graph into the form that is quantised and converted."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from edgekit.frontend.torch_nodes import arguments, constant_of, is_real, shape_of
from edgekit.frontend.torch_pooling import plain_pools

__all__ = ["rewrite"]

aten = torch.ops.aten


def rewrite(graph_module: fx.GraphModule) -> None:
    """Apply the rewrites, in an order that lets each find what it looks for."""
    _drop_copies(graph_module)
    _fold_constants(graph_module)
    _spell_out_factors(graph_module)
    _normalize_indices(graph_module)
    plain_pools(graph_module)
    _divisions_to_products(graph_module)
    _fold_batch_norms(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()


_COPIES = (
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.lift_fresh_copy.default,
)


def _drop_copies(graph_module: fx.GraphModule) -> None:
    """Dropout does nothing in inference, and a functional graph needs no copies.

    What a copy made contiguous can be viewed, what it copied perhaps not; a reshape takes both.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is aten.view.default:
            node.target = aten.reshape.default
        if node.op == "call_function" and node.target in _COPIES:
            node.replace_all_uses_with(arguments(node)[0])
            graph_module.graph.erase_node(node)


MAX_FOLDED_ELEMENTS = 1 << 22


def _fold_constants(graph_module: fx.GraphModule) -> None:
    """Compute what depends on no input: masks, positions, weights that are made of parameters."""
    known: dict[fx.Node, Any] = {}
    for node in list(graph_module.graph.nodes):
        if node.op == "get_attr":
            known[node] = constant_of(graph_module, node).detach()
        elif node.op == "call_function" and _is_foldable(node, known):
            found = fx.node.map_arg((node.args, node.kwargs), lambda argument: known[argument])
            with torch.no_grad():
                known[node] = node.target(*found[0], **found[1])
    for node in list(graph_module.graph.nodes):
        value = known.get(node) if node.op == "call_function" else None
        if isinstance(value, torch.Tensor) and any(user not in known for user in node.users):
            with graph_module.graph.inserting_before(node):
                constant = _new_constant(graph_module, node, "value", value)
            node.replace_all_uses_with(constant)
    graph_module.graph.eliminate_dead_code()


def _is_foldable(node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    namespace = getattr(node.target, "namespace", "")
    tags = getattr(node.target, "tags", ())
    if namespace not in ("aten", "prims") and node.target is not operator.getitem:
        return False
    if torch.Tag.nondeterministic_seeded in tags or any(value not in known for value in node.all_input_nodes):
        return False
    value = node.meta.get("val")
    return not isinstance(value, torch.Tensor) or value.numel() <= MAX_FOLDED_ELEMENTS


def _spell_out_factors(graph_module: fx.GraphModule) -> None:
    """`torch.add(x, y, alpha=2)` becomes a product and a sum: TVM forgets the factor."""
    for node in list(graph_module.graph.nodes):
        factor = node.kwargs.get("alpha", 1)
        if node.target not in (aten.add.Tensor, aten.sub.Tensor) or factor == 1:
            continue
        first, second = arguments(node)
        if isinstance(second, fx.Node):
            with graph_module.graph.inserting_before(node):
                product = graph_module.graph.call_function(aten.mul.Tensor, (second, factor))
            product.meta = dict(second.meta) | {"nn_module_stack": node.meta.get("nn_module_stack")}
            second = product
        else:
            second = second * factor
        node.args = (first, second)
        node.kwargs = {}


def _normalize_indices(graph_module: fx.GraphModule) -> None:
    """Count indices from the front: TVM reads `x[:, -1]` out of bounds."""
    for node in list(graph_module.graph.nodes):
        values = list(arguments(node))
        shape = shape_of(values[0]) if values else None
        if node.op != "call_function" or shape is None:
            continue
        if node.target is aten.select.int or node.target is aten.narrow.default:
            axis = int(values[1]) % len(shape)
            index = int(values[2])
            values[1:3] = [axis, index + shape[axis] if index < 0 else index]
        elif node.target is aten.slice.Tensor:
            values = [values[0], *_slice_bounds(values[1:], shape)]
        elif node.target is aten.index.Tensor:
            values[1] = [
                _counted_from_front(graph_module, node, index, size)
                for index, size in zip(values[1], shape, strict=False)
            ]
        elif node.target in (aten.index_select.default, aten.gather.default):
            size = shape[int(values[1]) % len(shape)]
            values[2] = _counted_from_front(graph_module, node, values[2], size)
        node.args = tuple(values)


def _slice_bounds(given: Sequence[Any], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """(dim, start, end, step) with 0 <= start <= end <= size."""
    complete: list[Any] = [*given, *(0, None, None, 1)[len(given) :]]
    dim, start, end, step = complete
    axis = int(dim) % len(shape)
    first, last, _ = slice(start, end).indices(shape[axis])
    return axis, first, max(first, last), int(step)


def _counted_from_front(graph_module: fx.GraphModule, owner: fx.Node, index: object, size: int) -> object:
    """A constant tensor of indices without negative ones; anything else as it is."""
    if not isinstance(index, fx.Node) or index.op != "get_attr":
        return index
    values = constant_of(graph_module, index)
    if values.dtype == torch.bool or not (values < 0).any():
        return index
    with graph_module.graph.inserting_before(owner):
        return _new_constant(graph_module, owner, "index", torch.where(values < 0, values + size, values))


def _divisions_to_products(graph_module: fx.GraphModule) -> None:
    """Dividing by a number is multiplying by its inverse, which has an integer form."""
    for node in graph_module.graph.nodes:
        if node.target in (aten.div.Tensor, aten.div.Scalar):
            source, divisor = arguments(node)[:2]
            if isinstance(divisor, int | float) and divisor != 0 and is_real(source):
                node.target = aten.mul.Tensor
                node.args = (source, 1.0 / divisor)


_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input)


def _fold_batch_norms(graph_module: fx.GraphModule) -> None:
    """Batch normalisation in inference is y = x·a + b a channel: into the weights before it where there are
    weights, else a 1x1 depthwise convolution (Jacob et al., 2018, section 3.2).
    """
    for node in list(graph_module.graph.nodes):
        if node.target is not aten._native_batch_norm_legit_no_training.default:
            continue
        source, gamma, beta, mean, variance, _, epsilon = arguments(node)
        constants = [
            None if value is None else constant_of(graph_module, value).detach().double()
            for value in (gamma, beta, mean, variance)
        ]
        running_mean, running_variance = constants[2], constants[3]
        assert running_mean is not None
        assert running_variance is not None
        factor = (running_variance + epsilon).rsqrt()
        if constants[0] is not None:
            factor = factor * constants[0]
        offset = -running_mean * factor
        if constants[1] is not None:
            offset = offset + constants[1]
        with graph_module.graph.inserting_before(node):
            result = _scaled(graph_module, node, source, factor, offset)
        for user in list(node.users):
            user.replace_all_uses_with(result)
            graph_module.graph.erase_node(user)
        graph_module.graph.erase_node(node)


def _scaled(
    graph_module: fx.GraphModule, norm: fx.Node, source: fx.Node, factor: torch.Tensor, offset: torch.Tensor
) -> fx.Node:
    """x·factor + offset along axis 1, in the cheapest form there is."""
    weights = arguments(source)[1] if source.op == "call_function" and len(arguments(source)) > 1 else None
    foldable = source.target in (*_CONVOLUTIONS, *_TRANSPOSED) or (
        source.target is aten.linear.default and len(shape_of(source) or ()) == 2
    )
    grouped_transpose = (
        source.target in _TRANSPOSED and len(arguments(source)) > 6 and arguments(source)[6] != 1
    )
    if (
        foldable
        and not grouped_transpose
        and len(source.users) == 1
        and isinstance(weights, fx.Node)
        and weights.op == "get_attr"
    ):
        return _into_weights(graph_module, source, weights, factor, offset)
    graph = graph_module.graph
    rank = len(shape_of(source) or ())
    channels = factor.numel()
    if rank in (3, 4):
        weight = _new_constant(graph_module, norm, "weight", factor.reshape(channels, 1, *[1] * (rank - 2)))
        bias = _new_constant(graph_module, norm, "bias", offset)
        ones, zeros = [1] * (rank - 2), [0] * (rank - 2)
        target = aten.conv1d.default if rank == 3 else aten.conv2d.default
        result = graph.call_function(target, (source, weight, bias, ones, zeros, ones, channels))
    else:
        shape = (1, channels, *[1] * (rank - 2))
        scale = _new_constant(graph_module, norm, "weight", factor.reshape(shape))
        shift = _new_constant(graph_module, norm, "bias", offset.reshape(shape))
        product = graph.call_function(aten.mul.Tensor, (source, scale))
        product.meta = dict(source.meta) | {"nn_module_stack": norm.meta.get("nn_module_stack")}
        result = graph.call_function(aten.add.Tensor, (product, shift))
    result.meta = dict(source.meta) | {"nn_module_stack": norm.meta.get("nn_module_stack")}
    return result


def _into_weights(
    graph_module: fx.GraphModule,
    source: fx.Node,
    weights: fx.Node,
    factor: torch.Tensor,
    offset: torch.Tensor,
) -> fx.Node:
    transposed = source.target in _TRANSPOSED
    values = constant_of(graph_module, weights).detach().double()
    shape = [1] * values.ndim
    shape[1 if transposed else 0] = -1
    bias = arguments(source)[2] if len(arguments(source)) > 2 else None
    if isinstance(bias, fx.Node):
        offset = offset + constant_of(graph_module, bias).detach().double() * factor
    changed = list(arguments(source))
    with graph_module.graph.inserting_before(source):
        # New constants: another layer may share the old ones.
        changed[1] = _new_constant(graph_module, source, "weight", values * factor.reshape(shape))
        changed[2:3] = [_new_constant(graph_module, source, "bias", offset)]
    source.args = tuple(changed)
    return source


def _new_constant(graph_module: fx.GraphModule, owner: fx.Node, kind: str, value: torch.Tensor) -> fx.Node:
    """A get_attr of a new buffer named after the operator that owns it; reals become float32."""
    name = f"{owner.name}_folded_{kind}"
    while hasattr(graph_module, name):
        name += "_"
    stored = (value.float() if value.is_floating_point() else value).contiguous()
    graph_module.register_buffer(name, stored)
    node = graph_module.graph.get_attr(name)
    node.meta["val"] = _like(owner, stored)
    return node


def _like(owner: fx.Node, value: torch.Tensor) -> torch.Tensor:
    """The value as the fake tensor that PT2E expects in a node's meta."""
    fake = owner.meta.get("val")
    fake = fake[0] if isinstance(fake, tuple | list) else fake
    mode = getattr(fake, "fake_mode", None)
    return value if mode is None else mode.from_tensor(value, static_shapes=True)
