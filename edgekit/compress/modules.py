"""Small things that every compression method asks of a torch module."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

__all__ = ["channels_last", "evaluation_mode", "parameter_count"]


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


@contextmanager
def channels_last(inputs: torch.Tensor, *modules: nn.Module) -> Iterator[torch.memory_format]:
    """Lays modules out channels last for a while, where all of them compute the same so.

    torch's convolutions of small networks run about 1.5 times as fast on a processor in this layout. Modules
    that read an activation as a matrix without a copy (`x.view(len(x), -1)`) refuse it, and stay as they are.

    Args:
        inputs: one batch as the modules take it; other than (N, C, H, W) nothing is changed.
        modules: laid out in place, and back again at the end.

    Yields:
        The memory format that inputs are to have.
    """
    if inputs.ndim != 4 or not all(_same_channels_last(module, inputs) for module in modules):
        yield torch.contiguous_format
        return
    with ExitStack() as stack:
        for module in modules:
            _lay_out(module, torch.channels_last)
            stack.callback(_lay_out, module, torch.contiguous_format)
        yield torch.channels_last


def _lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    module.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack this form


def _same_channels_last(module: nn.Module, inputs: torch.Tensor) -> bool:
    if not any(parameter.ndim == 4 for parameter in module.parameters()):
        return False
    # Copies: a module that watches its values for their range, as before quantisation, must not see this.
    with warnings.catch_warnings():
        # torch warns of its own ways while it copies a graph that it captured.
        warnings.simplefilter("ignore", FutureWarning)
        plain, trial = copy.deepcopy(module), copy.deepcopy(module)
    _lay_out(trial, torch.channels_last)
    try:
        with evaluation_mode(plain), evaluation_mode(trial), torch.no_grad():
            expected = plain(inputs)
            found = trial(inputs.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    # Sums in another order, which fake quantisation may round to the next step: a share of the whole.
    return bool((found - expected).norm() <= 0.02 * expected.norm())
