"""Unstructured magnitude pruning: single weights are set to zero and held there.

A zero that a dense kernel multiplies costs what any other weight costs: such a model is smaller when it is
stored compressed, and no faster. `SparsityReport` says so in numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from edgekit.errors import UsageError

__all__ = [
    "MagnitudePruning",
    "Masks",
    "SparsityReport",
    "cubic_sparsity",
    "magnitude_masks",
    "sparsity_at",
    "sparsity_report",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudePruning:
    """Set the weights of least magnitude to zero until `sparsity` of them are.

    With scope `global` one threshold holds for all layers, with `layer` each has its own. `one_shot` prunes
    before any training; `iterative` in `steps` equal parts with training between them; `gradual` along the
    cubic schedule while it trains (Zhu and Gupta, "To prune, or not to prune", 2017, equation 1).
    """

    kind: Literal["magnitude"] = "magnitude"
    sparsity: float = 0.8
    scope: Literal["global", "layer"] = "global"
    schedule: Literal["one_shot", "iterative", "gradual"] = "one_shot"
    steps: int = 5

    def __post_init__(self) -> None:
        if not 0.0 < self.sparsity < 1.0:
            raise ValueError(f"a sparsity is between 0 and 1, not {self.sparsity}")
        if self.steps < 1:
            raise ValueError("steps is at least 1")


@dataclass(slots=True, eq=False)
class Masks:
    """Which weights stay, by parameter name; 1 stays, 0 is held at zero."""

    by_name: dict[str, torch.Tensor] = field(default_factory=dict)

    def apply(self, module: nn.Module) -> None:
        """Set the masked weights of the module to zero, in place."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                mask = self.by_name.get(name)
                if mask is not None:
                    parameter.mul_(mask)


@dataclass(frozen=True, slots=True)
class SparsityReport:
    """What sparsity does to the weights as they are stored; what it does to speed is nothing."""

    sparsity: float
    """Share of the prunable weights that are zero."""
    by_layer: Mapping[str, float]
    dense_bytes: int
    """Of the prunable weights at 8 bits."""
    compressed_bytes: int
    """The same after DEFLATE (RFC 1951), what a compressed download or image takes."""
    effect: str = "stored: fewer bytes once compressed; a dense kernel runs no faster"


def prunable(module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of convolutions and linear layers, by parameter name; biases and normalisations are left."""
    return {
        f"{name}.weight" if name else "weight": layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear))
    }


def cubic_sparsity(step: int, steps: int, final: float, initial: float = 0.0) -> float:
    """Sparsity after `step` of `steps`: s_f + (s_i − s_f)·(1 − t)³ with t = step / steps clipped to [0, 1]
    (Zhu and Gupta, 2017, equation 1).
    """
    progress = min(max(step / steps, 0.0), 1.0)
    return final + (initial - final) * (1.0 - progress) ** 3


def sparsity_at(config: MagnitudePruning, step: int, steps: int) -> float:
    """Sparsity that a training of `steps` optimiser steps holds before its step number `step`, from 0."""
    if config.schedule == "gradual":
        # The last quarter trains at the final sparsity.
        return cubic_sparsity(step, max(1, steps * 3 // 4), config.sparsity)
    if config.schedule == "iterative":
        part = min(config.steps, step * config.steps // max(1, steps) + 1)
        return config.sparsity * part / config.steps
    return config.sparsity


def magnitude_masks(
    module: nn.Module, sparsity: float, scope: Literal["global", "layer"], before: Masks | None = None
) -> Masks:
    """Masks that drop the smallest magnitudes; what `before` dropped stays dropped.

    Exactly floor(sparsity · n) weights go, over all prunable weights or in each layer; among equal magnitudes
    those that come first.

    Raises:
        UsageError: the module has no convolution and no linear layer.
    """
    weights = prunable(module)
    if not weights:
        raise UsageError("the module has no convolution and no linear layer whose weights could be pruned")
    magnitudes = {}
    for name, weight in weights.items():
        magnitude = weight.detach().abs()
        if before is not None and name in before.by_name:
            # Below every magnitude, so that dropped weights stay the first to go.
            magnitude = torch.where(before.by_name[name] > 0, magnitude, -torch.ones_like(magnitude))
        magnitudes[name] = magnitude
    if scope == "layer":
        return Masks({name: _mask(magnitude, sparsity) for name, magnitude in magnitudes.items()})
    joined = torch.cat([magnitude.flatten() for magnitude in magnitudes.values()])
    mask = _mask(joined, sparsity)
    parts = torch.split(mask, [magnitude.numel() for magnitude in magnitudes.values()])
    return Masks(
        {
            name: part.reshape(magnitude.shape)
            for (name, magnitude), part in zip(magnitudes.items(), parts, strict=True)
        }
    )


def _mask(magnitude: torch.Tensor, sparsity: float) -> torch.Tensor:
    flat = magnitude.flatten()
    mask = torch.ones_like(flat)
    order = torch.argsort(flat, stable=True)
    mask[order[: int(sparsity * flat.numel())]] = 0.0
    return mask.reshape(magnitude.shape)


def sparsity_report(module: nn.Module) -> SparsityReport:
    """Zeros of the module's prunable weights, and their size at 8 bits before and after compression."""
    weights = {name: weight.detach() for name, weight in prunable(module).items()}
    by_layer = {name: float((weight == 0).double().mean()) for name, weight in weights.items()}
    count = sum(weight.numel() for weight in weights.values())
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    packed = b""
    for weight in weights.values():
        largest = float(weight.abs().max()) or 1.0
        packed += (weight / largest * 127.0).round().to(torch.int8).contiguous().numpy().tobytes()
    return SparsityReport(zeros / max(count, 1), by_layer, len(packed), len(zlib.compress(packed, 9)))
