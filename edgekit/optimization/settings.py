"""How a search works, besides its budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgekit.search.exchange import Exchange
from edgekit.search.netadapt import NetAdapt

if TYPE_CHECKING:
    from edgekit.compress.channels import Importance
    from edgekit.compress.training import Training

__all__ = ["DEFAULT_SETTINGS", "Guide", "Settings"]

Guide = Literal["measurements", "macs"]

DEFAULT_STRATEGY = Exchange()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a search. Trainings distil from the uncompressed model, with labels besides where there
    are any.
    """

    strategy: Exchange | NetAdapt = DEFAULT_STRATEGY
    importance: Importance = "taylor"
    multiple_of: int = 4
    short_rows: int = 24000
    """Rows of the training set, chosen by the seed, that a proposal is fine-tuned on."""
    short_epochs: int = 1
    """How often it sees them; where there are few rows, once is hardly a training."""
    long_epochs: int = 2
    """Over all rows, of the proposals that are trained on."""
    learning_rate: float = 3e-3
    """Of the trainings in the search."""
    final_epochs: int = 16
    final_learning_rate: float = 3e-3
    qat_epochs: int = 2
    """Epochs with the integers' rounding, at a tenth of the final learning rate; 0 for none."""
    batch_size: int = 128
    label_weight: float = 0.5
    """Of the labels against the uncompressed model's answers, in all trainings. The model answers the rows as
    an augmentation left them; a label may not fit them, of two rows that are mixed for example.
    """
    seed: int = 0
    guide: Guide = "measurements"
    """What proposals are compared by; `macs` is there for comparison."""

    def __post_init__(self) -> None:
        for name in (
            "multiple_of",
            "short_rows",
            "short_epochs",
            "long_epochs",
            "final_epochs",
            "batch_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        for name in ("learning_rate", "final_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0")
        if self.qat_epochs < 0:
            raise ValueError("qat_epochs is 0 or more")
        if not 0 <= self.label_weight <= 1:
            raise ValueError("label_weight is between 0 and 1")

    def training(self, *, epochs: int, learning_rate: float, labelled: bool) -> Training:
        """A training of the search: by the uncompressed model's answers, and by labels if there are any."""
        from edgekit.compress.training import Training  # brings torch

        return Training(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=learning_rate,
            loss="both" if labelled else "distillation",
            label_weight=self.label_weight,
            seed=self.seed,
        )


DEFAULT_SETTINGS = Settings()
