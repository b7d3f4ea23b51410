"""The observers as torchao takes them: of activations those of `observers`, of weights one a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torchao.quantization.pt2e.observer import (
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    UniformQuantizationObserverBase,
)

from edgekit.artifacts import CalibrationMethod
from edgekit.frontend.observers import OBSERVERS

__all__ = [
    "ACTIVATION_OBSERVERS",
    "EntropyObserver",
    "MeanSquaredErrorObserver",
    "MinMaxObserver",
    "MovingAverageObserver",
    "PerChannelWeightObserver",
    "PercentileObserver",
    "RangeObserver",
    "TrainedPerChannelWeightObserver",
]


class RangeObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Base of the activation observers; torchao turns the range into a scale and a zero point."""

    METHOD: ClassVar[CalibrationMethod]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        symmetric = self.qscheme == torch.per_tensor_symmetric
        self.ranges = OBSERVERS[self.METHOD](int(self.quant_max - self.quant_min) + 1, symmetric)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.ranges.add(x.detach().to("cpu", torch.float32).numpy())
        return x

    def range(self) -> tuple[float, float]:
        """(low, high) of what was observed; (0, 0) where nothing was."""
        return self.ranges.range()

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, zero point)."""
        low, high = self.range()
        found: tuple[torch.Tensor, torch.Tensor] = self._calculate_qparams(
            torch.tensor(low), torch.tensor(high)
        )
        return found


class MinMaxObserver(RangeObserver):
    METHOD = "minmax"


class MovingAverageObserver(RangeObserver):
    METHOD = "moving_average"


class PercentileObserver(RangeObserver):
    METHOD = "percentile"


class EntropyObserver(RangeObserver):
    METHOD = "entropy"


class MeanSquaredErrorObserver(RangeObserver):
    METHOD = "mse"


ACTIVATION_OBSERVERS: Mapping[CalibrationMethod, type[RangeObserver]] = {
    kind.METHOD: kind
    for kind in (
        MinMaxObserver,
        MovingAverageObserver,
        PercentileObserver,
        EntropyObserver,
        MeanSquaredErrorObserver,
    )
}

WEIGHT_SCALE_RATIO = 2.0**-10
"""Least scale of a channel, as a share of its layer's largest: a channel of zeros would have a scale so small
that its bias, counted in input scale × weight scale, did not fit 32 bits.
"""


def _with_floor(qparams: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    scale, zero_point = qparams
    return torch.maximum(scale, scale.max() * WEIGHT_SCALE_RATIO), zero_point


class PerChannelWeightObserver(PerChannelMinMaxObserver):  # type: ignore[misc]
    """Largest magnitude of each output channel."""

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _with_floor(super().calculate_qparams())


class TrainedPerChannelWeightObserver(MovingAveragePerChannelMinMaxObserver):  # type: ignore[misc]
    """The same of the weights as they are now, step by step; what training used is what conversion uses."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(averaging_constant=1.0, **settings)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _with_floor(super().calculate_qparams())
