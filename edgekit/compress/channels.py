"""Structured pruning: whole channels are removed, with everything that depends on them.

Which layers lose a channel together (through residual additions, concatenations, depthwise and grouped
convolutions, batch normalisation, flattening) is found by torch-pruning's dependency graph (Fang et al.,
"DepGraph: Towards Any Structural Pruning", 2023). What is left is an ordinary smaller module: nothing is
masked, so that a board has less to compute.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.compress.modules import evaluation_mode, parameter_count
from edgekit.errors import ModelError, UsageError
from edgekit.text import did_you_mean, printable

if TYPE_CHECKING:
    import torch_pruning

__all__ = [
    "ChannelGroup",
    "ChannelPruning",
    "Importance",
    "Removed",
    "channel_groups",
    "channel_importance",
    "check_groups",
    "check_pruning",
    "kept_channels",
    "least_important",
    "plan_channels",
    "prune_channels",
    "remove_channels",
]

Importance = Literal["l1", "l2", "taylor", "bn_scale"]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Layers that gain and lose output channels together."""

    name: str
    """Qualified name of the first layer of the group, in the module's order."""
    channels: int
    """Channels that the first layer puts out now."""
    slices: int
    """Channels are removed from each of so many equal slices alike: the groups of a grouped convolution."""
    layers: tuple[str, ...]
    """Qualified names of all layers that change, the first one included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPruning:
    """Remove the least important channels of every group, or of the groups named in `keep_by_group`.

    `keep` is the share of channels that stays, in (0, 1]; counts are rounded to a multiple of `multiple_of`
    where that leaves any.
    """

    kind: Literal["channels"] = "channels"
    keep: float = 0.5
    keep_by_group: dict[str, float] = field(default_factory=dict)
    importance: Importance = "l2"
    multiple_of: int = 4

    def __post_init__(self) -> None:
        for share in (self.keep, *self.keep_by_group.values()):
            if not 0.0 < share <= 1.0:
                raise ValueError(f"a share of channels to keep is in (0, 1], not {share}")
        if self.multiple_of < 1:
            raise ValueError("multiple_of is at least 1")


@dataclass(frozen=True, slots=True)
class Removed:
    """What a channel pruning did: channels kept by group, parameters before and after."""

    kept: dict[str, tuple[int, int]]
    """Channels after and before, by group."""
    parameters: tuple[int, int]
    """Before and after."""


def channel_groups(module: nn.Module, example: Sequence[torch.Tensor]) -> tuple[ChannelGroup, ...]:
    """The groups whose channels can be removed without changing the module's outputs' shapes.

    Args:
        module: it is not changed.
        example: one tensor an input, batch first.

    Raises:
        ModelError: the module can't be traced.
    """
    names = _names(module)
    graph = _graph(module, example)
    found: list[ChannelGroup] = []
    for group in graph.get_all_groups(root_module_types=[nn.modules.conv._ConvNd, nn.Linear]):
        described = _describe(graph, group, names)
        if described.channels > described.slices and not _changes_output(module, described, example):
            found.append(described)
    order = {name: place for place, name in enumerate(names.values())}
    return tuple(sorted(found, key=lambda one: order[one.name]))


def channel_importance(
    module: nn.Module, group: ChannelGroup, kind: Importance, example: Sequence[torch.Tensor]
) -> npt.NDArray[np.float64]:
    """Importance of each channel of a group, (channels,).

    `l1` and `l2` sum |w| or w² over all weights that belong to the channel in each layer of the group and
    average over the layers (Li et al., "Pruning Filters for Efficient ConvNets", 2017). `taylor` does so with
    |w · ∂loss/∂w| (Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, equation 8),
    for gradients that are in the parameters. `bn_scale` takes |γ| of the group's batch normalisations (Liu et
    al., "Network Slimming", 2017).

    Raises:
        UsageError: `taylor` without gradients, or `bn_scale` without a batch normalisation in the group.
    """
    import torch_pruning

    graph = _graph(module, example)
    layers = dict(module.named_modules())
    root = layers[group.name]
    whole = graph.get_pruning_group(
        root, graph.get_pruner_of_module(root).prune_out_channels, list(range(group.channels))
    )
    if kind in ("l1", "l2"):
        measure: Any = torch_pruning.importance.GroupMagnitudeImportance(
            p=1 if kind == "l1" else 2, normalizer=None
        )
    elif kind == "taylor":
        if all(parameter.grad is None for parameter in root.parameters()):
            raise UsageError("taylor importance needs gradients: rows of training data with labels")
        measure = torch_pruning.importance.GroupTaylorImportance(normalizer=None)
    else:
        measure = torch_pruning.importance.BNScaleImportance(normalizer=None)
    values = measure(whole)
    if values is None:
        raise UsageError(
            f"no layer of the group {printable(group.name)} has what {kind} importance is computed from",
            hint="choose another importance: l1, l2 or taylor; keep_by_group names the groups to prune",
        )
    return np.asarray(values.detach().double().cpu().numpy())


def least_important(values: npt.NDArray[np.float64], group: ChannelGroup, keep: int) -> tuple[int, ...]:
    """Indices of the channels to remove so that `keep` stay: the least important ones, as many of each slice.

    Slices of a grouped convolution lose the same positions, so that its groups stay equally large.
    """
    per_slice = group.channels // group.slices
    scores = values.reshape(group.slices, per_slice).mean(axis=0)
    going = per_slice - keep // group.slices
    positions = np.sort(np.argsort(scores, kind="stable")[:going])
    return tuple(int(position + start * per_slice) for start in range(group.slices) for position in positions)


def remove_channels(
    module: nn.Module, group: str, channels: Iterable[int], example: Sequence[torch.Tensor]
) -> None:
    """Remove output channels of the group named `group` from the module, in place.

    Raises:
        UsageError: no such layer, no channel would be left, or the slices of a grouped convolution would not
            lose the same channels.
        ModelError: the module can't be traced.
    """
    indices = sorted(set(channels))
    if not indices:
        return
    layers = dict(module.named_modules())
    if group not in layers:
        raise UsageError(f"the module has no layer {printable(group)}.{did_you_mean(group, layers)}")
    root = layers[group]
    graph = _graph(module, example)
    pruning = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, indices)
    if not graph.check_pruning_group(pruning):
        raise UsageError(f"no channel of {printable(group)} would be left")
    _check_slices(graph, pruning, group, _names(module))
    pruning.prune()
    for parameter in module.parameters():
        parameter.grad = None


def prune_channels(module: nn.Module, config: ChannelPruning, example: Sequence[torch.Tensor]) -> Removed:
    """Remove the least important channels of each group from the module, in place.

    With `taylor` the parameters must hold gradients (`training.accumulate_gradients`).

    Raises:
        UsageError: `keep_by_group` names something that is no group.
    """
    groups = channel_groups(module, example)
    before = parameter_count(module)
    plan = plan_channels(module, config, example)
    for name, channels in plan.items():
        remove_channels(module, name, channels, example)
    kept = {group.name: (group.channels - len(plan.get(group.name, ())), group.channels) for group in groups}
    return Removed(kept, (before, parameter_count(module)))


def plan_channels(
    module: nn.Module, config: ChannelPruning, example: Sequence[torch.Tensor]
) -> dict[str, tuple[int, ...]]:
    """The channels that `prune_channels` would remove, by group; groups that lose none are not there.

    All importances are those of the module as it is: removing channels drops the gradients.

    Raises:
        UsageError: `keep_by_group` names something that is no group.
    """
    groups = channel_groups(module, example)
    check_groups(config, groups)
    plan = {}
    for group, keep in _losing(config, groups):
        values = channel_importance(module, group, config.importance, example)
        plan[group.name] = least_important(values, group, keep)
    return plan


def check_pruning(module: nn.Module, config: ChannelPruning, example: Sequence[torch.Tensor]) -> None:
    """Refuse what can't be removed from a module, without gradients.

    Raises:
        UsageError: there are no channels to remove, `keep_by_group` names something that is no group, no
            group would lose a channel although it should, or one that does has no batch normalisation for
            `bn_scale`.
    """
    groups = channel_groups(module, example)
    if not groups:
        raise UsageError("the module has no channels that could be removed")
    check_groups(config, groups)
    losing = _losing(config, groups)
    if not losing and min(_share(config, group) for group in groups) < 1.0:
        counts = ", ".join(f"{printable(group.name)} {group.channels}" for group in groups[:8])
        raise UsageError(
            f"no group would lose a channel: counts are rounded to multiples of {config.multiple_of}, and "
            f"the groups have {counts}{', …' if len(groups) > 8 else ''}",
            hint="set a smaller keep, or multiple_of = 1",
        )
    if config.importance == "bn_scale":
        for group, _ in losing:
            channel_importance(module, group, "bn_scale", example)


def _losing(config: ChannelPruning, groups: Sequence[ChannelGroup]) -> list[tuple[ChannelGroup, int]]:
    """The groups that lose channels, and how many they keep."""
    kept = [(group, kept_channels(group, _share(config, group), config.multiple_of)) for group in groups]
    return [(group, keep) for group, keep in kept if keep < group.channels]


def _share(config: ChannelPruning, group: ChannelGroup) -> float:
    return config.keep_by_group.get(group.name, 1.0 if config.keep_by_group else config.keep)


def check_groups(config: ChannelPruning, groups: Sequence[ChannelGroup]) -> None:
    """Refuse names in `keep_by_group` that are no groups.

    Raises:
        UsageError: the nearest name is named.
    """
    known = {group.name for group in groups}
    for name in config.keep_by_group:
        if name not in known:
            raise UsageError(
                f"{printable(name)} is not the first layer of a group of channels."
                f"{did_you_mean(name, known)}",
                hint=f"groups: {', '.join(sorted(known)) or 'none'}",
            )


def kept_channels(group: ChannelGroup, share: float, multiple_of: int = 1) -> int:
    """How many channels stay: a multiple of the slices, and of `multiple_of` where that leaves any."""
    unit = math.lcm(group.slices, multiple_of)
    if unit > group.channels:
        unit = group.slices
    return min(group.channels, max(unit, round(share * group.channels / unit) * unit))


def _names(module: nn.Module) -> dict[nn.Module, str]:
    return {layer: name for name, layer in module.named_modules()}


def _graph(module: nn.Module, example: Sequence[torch.Tensor]) -> torch_pruning.DependencyGraph:
    import torch_pruning

    try:
        with evaluation_mode(module), torch.enable_grad():
            return torch_pruning.DependencyGraph().build_dependency(module, example_inputs=tuple(example))
    except Exception as error:  # it walks autograd's graph of whatever the user's forward did
        raise ModelError(
            f"the channels of this module can't be traced: {type(error).__name__}: {printable(str(error))}",
            hint="channel pruning needs layers of torch.nn joined by tensor operations",
        ) from error


def _check_slices(
    graph: torch_pruning.DependencyGraph, pruning: Any, group: str, names: dict[nn.Module, str]
) -> None:
    """Refuse to take other channels from one slice of a grouped convolution than from the next.

    Its weights have one axis for the input channels of all slices: they would meet other channels than those
    that they were trained with. A concatenation before it, of which one part is pruned, comes to that.

    Raises:
        UsageError: names the convolution.
    """
    for dependency, indices in pruning:
        layer = dependency.target.module
        if not isinstance(layer, nn.modules.conv._ConvNd) or layer.groups in (1, layer.in_channels):
            continue
        incoming = graph.is_in_channel_pruning_fn(dependency.handler)
        size = (layer.in_channels if incoming else layer.out_channels) // layer.groups
        slices: list[set[int]] = [set() for _ in range(layer.groups)]
        for index in indices:
            slices[index // size].add(index % size)
        if any(one != slices[0] for one in slices):
            raise UsageError(
                f"channels of {printable(group)} can't be removed: the {layer.groups} groups of "
                f"{printable(names.get(layer, 'a convolution'))} would lose different ones"
            )


def _describe(graph: torch_pruning.DependencyGraph, group: Any, names: dict[nn.Module, str]) -> ChannelGroup:
    order = {name: place for place, name in enumerate(names.values())}
    layers: dict[str, None] = {}
    roots: list[str] = []
    slices = 1
    for dependency, _ in group:
        layer = dependency.target.module
        name = names.get(layer)
        if name is None or isinstance(layer, nn.Identity):
            continue
        layers[name] = None
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1:
            depthwise = layer.groups == layer.in_channels == layer.out_channels
            slices = slices if depthwise else math.lcm(slices, layer.groups)
        if graph.is_out_channel_pruning_fn(dependency.handler) and isinstance(
            layer, (nn.modules.conv._ConvNd, nn.Linear)
        ):
            roots.append(name)
    first = min(roots, key=order.__getitem__)
    modules = {name: layer for layer, name in names.items()}
    return ChannelGroup(
        first,
        int(graph.get_out_channels(modules[first])),
        slices,
        tuple(sorted(layers, key=order.__getitem__)),
    )


def _changes_output(module: nn.Module, group: ChannelGroup, example: Sequence[torch.Tensor]) -> bool:
    """Whether the module's outputs have another shape once a channel of each slice is gone."""
    smaller = copy.deepcopy(module)
    per_slice = group.channels // group.slices
    try:
        remove_channels(smaller, group.name, [start * per_slice for start in range(group.slices)], example)
        return _output_shapes(smaller, example) != _output_shapes(module, example)
    except (ModelError, UsageError, RuntimeError):
        # A module that can't do without the channel (a view with fixed sizes) keeps it.
        return True


def _output_shapes(module: nn.Module, example: Sequence[torch.Tensor]) -> list[torch.Size]:
    with evaluation_mode(module), torch.no_grad():
        result = module(*example)
    outputs = result if isinstance(result, (tuple, list)) else [result]
    return [output.shape for output in outputs if isinstance(output, torch.Tensor)]
