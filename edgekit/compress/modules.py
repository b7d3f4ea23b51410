"""Small things that every compression method asks of a torch module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluation_mode", "parameter_count"]


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode for a while, each part put back as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def parameter_count(module: nn.Module) -> int:
    """Trained values of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
