"""Structured pruning: which channels go together, that they are gone, and that the right ones went."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compress.channels import (
    ChannelPruning,
    channel_groups,
    channel_importance,
    least_important,
    prune_channels,
    remove_channels,
)
from edgekit.errors import UsageError
from tests.compress.networks import EXAMPLE, Branches


@pytest.fixture
def network() -> Branches:
    torch.manual_seed(0)
    return Branches().eval()


def test_layers_that_depend_on_each_other_are_one_group(network: Branches) -> None:
    groups = {group.name: group for group in channel_groups(network, EXAMPLE)}
    assert list(groups) == ["stem.0", "pointwise.0", "grouped.0", "left.0", "right.0", "head"]
    assert groups["stem.0"].layers == ("stem.0", "stem.1", "depthwise.0", "depthwise.1", "pointwise.0")
    # a residual addition: both operands; the grouped convolution behind it has four slices
    assert {"pointwise.0", "residual.0", "grouped.0"} <= set(groups["pointwise.0"].layers)
    assert (groups["pointwise.0"].slices, groups["stem.0"].slices) == (4, 1)
    # the classes are the module's output: nobody may remove one
    assert all(group != "classes" for group in groups)


def test_channels_are_removed_and_not_masked(network: Branches) -> None:
    removed = prune_channels(network, ChannelPruning(keep=0.5), EXAMPLE)
    assert removed.kept["stem.0"] == (8, 16)
    assert removed.parameters[1] < 0.4 * removed.parameters[0]
    assert network.depthwise[0].groups == network.depthwise[0].in_channels == 8
    assert network.grouped[0].weight.shape == (16, 4, 3, 3)
    assert network.classes.in_features == removed.kept["head"][0] * 36
    assert network(torch.zeros(2, 3, 12, 12)).shape == (2, 5)


def test_removing_what_is_zero_changes_no_answer(network: Branches) -> None:
    """The whole dependency graph at once: the channels that go are exactly those that were silenced."""
    rows = torch.randn(4, 3, 12, 12)
    gone = {"pointwise.0": (1, 9, 17, 25), "left.0": (0, 3), "right.0": (5,), "head": (2, 7), "stem.0": (4,)}
    # Silenced: both operands of the addition, and batch normalisations that give 0 for it.
    norms = {"pointwise.0": ["pointwise.1", "residual.1"], "left.0": ["left.1"], "right.0": ["right.1"]}
    norms["stem.0"] = ["stem.1", "depthwise.1"]
    modules = dict(network.named_modules())
    with torch.no_grad():
        for group, channels in gone.items():
            for name in norms.get(group, []):
                modules[name].weight[list(channels)] = 0.0
                modules[name].bias[list(channels)] = 0.0
        modules["head"].weight[[2, 7]] = 0.0
        modules["head"].bias[[2, 7]] = 0.0
        expected = network(rows)
        for group, channels in gone.items():
            remove_channels(network, group, channels, EXAMPLE)
        torch.testing.assert_close(network(rows), expected, rtol=1e-5, atol=1e-5)


class _Joined(nn.Module):
    """A grouped convolution behind a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(16, 8, 3, groups=2)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.left(x), self.right(x)], 1)
        answer: torch.Tensor = self.head(torch.relu(self.grouped(joined)))
        return answer


def test_slices_that_would_lose_different_channels_keep_them() -> None:
    """A part of the concatenation is one slice of the convolution: the other slice has to lose as many."""
    module = _Joined()
    assert [group.name for group in channel_groups(module, EXAMPLE)] == ["grouped"]
    with pytest.raises(UsageError, match=r"right can't be removed: the 2 groups of grouped"):
        remove_channels(module, "right", (0, 4), EXAMPLE)


@pytest.mark.parametrize(("kind", "power"), [("l1", 1), ("l2", 2)])
def test_magnitude_importance_is_the_mean_over_layers_of_the_summed_powers(kind: str, power: int) -> None:
    torch.manual_seed(1)
    first, second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)
    module = nn.Sequential(first, nn.ReLU(), second)
    (group,) = channel_groups(module, EXAMPLE)
    found = channel_importance(module, group, kind, EXAMPLE)  # type: ignore[arg-type]
    outgoing = np.abs(first.weight.detach().double().numpy()) ** power
    incoming = np.abs(second.weight.detach().double().numpy()) ** power
    expected = (outgoing.sum((1, 2, 3)) + incoming.sum((0, 2, 3))) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_taylor_importance_is_weight_times_gradient() -> None:
    torch.manual_seed(2)
    first, second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)
    module = nn.Sequential(first, nn.ReLU(), second)
    module(torch.randn(2, 3, 12, 12)).square().mean().backward()
    (group,) = channel_groups(module, EXAMPLE)
    found = channel_importance(module, group, "taylor", EXAMPLE)

    def product(layer: nn.Conv2d) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        assert layer.weight.grad is not None
        return np.abs((layer.weight * layer.weight.grad).detach().double().numpy())

    expected = (product(first).sum((1, 2, 3)) + product(second).sum((0, 2, 3))) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bn_scale_importance_is_gamma() -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3))
    gamma = torch.tensor([0.5, -2.0, 0.1, 1.0, -0.3, 0.0])
    with torch.no_grad():
        module[1].weight.copy_(gamma)
    (group,) = channel_groups(module, EXAMPLE)
    np.testing.assert_allclose(channel_importance(module, group, "bn_scale", EXAMPLE), gamma.abs().numpy())


def test_what_an_importance_lacks_is_named(network: Branches) -> None:
    groups = {group.name: group for group in channel_groups(network, EXAMPLE)}
    with pytest.raises(UsageError, match="gradients"):
        channel_importance(network, groups["head"], "taylor", EXAMPLE)
    with pytest.raises(UsageError, match="head"):
        channel_importance(network, groups["head"], "bn_scale", EXAMPLE)
    with pytest.raises(UsageError, match=r"heed.*Did you mean \"head\""):
        prune_channels(network, ChannelPruning(keep_by_group={"heed": 0.5}), EXAMPLE)


def test_the_least_important_go_and_slices_lose_the_same_positions(network: Branches) -> None:
    groups = {group.name: group for group in channel_groups(network, EXAMPLE)}
    assert least_important(np.array([3.0, 1.0, 2.0, 0.5, 9, 9, 9, 9]), groups["left.0"], 6) == (1, 3)
    values = np.tile([5.0, 1, 7, 8, 9, 2, 6, 4], 4)
    # the mean over the slices decides, whatever one of them alone would say
    values += np.repeat([[3.0, 3, 3, 3, -6, 3, 3, 3], [-3.0, -3, -3, -3, 6, -3, -3, -3]], 2, axis=0).ravel()
    assert least_important(values, groups["pointwise.0"], 24) == tuple(
        sorted(start + place for start in (0, 8, 16, 24) for place in (1, 5))
    )


def test_groups_that_are_not_named_are_left_alone(network: Branches) -> None:
    before = copy.deepcopy(network)
    removed = prune_channels(network, ChannelPruning(keep_by_group={"head": 0.4}, importance="l1"), EXAMPLE)
    assert removed.kept["head"] == (8, 20)
    assert all(after == start for name, (after, start) in removed.kept.items() if name != "head")
    assert torch.equal(network.stem[0].weight, before.stem[0].weight)
