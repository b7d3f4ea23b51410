"""What a training minimises: the labels' cross-entropy, the distance to a teacher's answers, or both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Loss", "distillation_loss", "loss_function"]

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""loss(inputs (N, …), logits (N, C), labels (N,) or None) of one batch, a scalar."""


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2: the factor T²
    keeps the gradients' size independent of the temperature. Both are logits (N, C).
    """
    target = functional.log_softmax(teacher / temperature, dim=-1)
    answer = functional.log_softmax(student / temperature, dim=-1)
    return functional.kl_div(answer, target, reduction="batchmean", log_target=True) * temperature**2


def loss_function(kind: str, *, teacher: nn.Module | None, temperature: float, label_weight: float) -> Loss:
    """The loss of a training: `labels`, `distillation`, or `both` weighted by `label_weight`.

    The teacher answers the same inputs as the student, augmented ones included.
    """

    def from_labels(inputs: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        if labels is None:
            raise ValueError("a loss of labels needs labels")
        return functional.cross_entropy(logits, labels)

    def from_teacher(inputs: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        if teacher is None:
            raise ValueError("distillation needs a teacher")
        with torch.no_grad():
            answers = teacher(inputs)
        return distillation_loss(logits, answers, temperature)

    def from_both(inputs: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        return label_weight * from_labels(inputs, logits, labels) + (1.0 - label_weight) * from_teacher(
            inputs, logits, labels
        )

    return {"labels": from_labels, "distillation": from_teacher, "both": from_both}[kind]
