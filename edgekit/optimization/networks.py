"""Pruned networks of one search: made from their parents, fine-tuned for a short while, kept on disk.

A trial's network is the start with channels removed along its line of ancestors, and weights in a safetensors
file. Both are written before the search's file says that the trial is done.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import nn

from edgekit.compress.channels import (
    ChannelGroup,
    Importance,
    channel_groups,
    channel_importance,
    least_important,
    remove_channels,
)
from edgekit.compress.losses import loss_function
from edgekit.compress.modules import evaluation_mode
from edgekit.compress.training import (
    Augment,
    Labelled,
    Training,
    TrainingRun,
    accumulate_gradients,
    accuracy,
    train,
)
from edgekit.errors import UsageError
from edgekit.fsutil import atomic_write
from edgekit.search.problem import Candidate, Group, Trained

if TYPE_CHECKING:
    from edgekit.compress.apply import Rows
    from edgekit.compression import TorchSource
    from edgekit.optimization.settings import Settings
    from edgekit.search.store import SearchStore

__all__ = ["Networks", "search_networks"]

GRADIENT_ROWS = 2048
"""Rows whose gradients rank the channels; the ranking of more is the same."""


Removal = Mapping[str, tuple[int, ...]]
"""Channels that a network lacks of its parent's, by group."""


class Networks:
    """Makes and keeps the networks of candidates."""

    def __init__(
        self,
        module: nn.Module,
        example: Sequence[torch.Tensor],
        rows: Rows,
        store: SearchStore,
        folder: Path,
        *,
        few: Labelled,
        training: Training,
        longer: Training,
        importance: Importance,
        multiple_of: int,
        augment: Augment | None,
    ) -> None:
        self.start = copy.deepcopy(module).eval()
        self.example = tuple(example)
        self.teacher = self.start
        self._rows, self._store, self._folder = rows, store, folder
        self._few, self._training, self._longer = few, training, longer
        self._importance, self._augment = importance, augment
        self._channel_groups = channel_groups(self.start, self.example)
        self.groups = tuple(
            Group(group.name, group.channels, _unit(group, multiple_of)) for group in self._channel_groups
        )
        self._recent: dict[str, nn.Module] = {}
        self._removals: dict[str, tuple[str | None, Removal]] = {}
        self._ranked: str | None = None
        """Key of the network whose gradients rank channels now."""

    def module(self, key: str | None) -> nn.Module:
        """The network of a trial that was trained, in evaluation mode; the caller doesn't change it."""
        if key is None:
            return self.start
        if key not in self._recent:
            parent, gone = self._removal(key)
            built = copy.deepcopy(self.module(parent))
            self._remove(built, gone)
            weights = safetensors.torch.load((self._folder / f"{key}.safetensors").read_bytes())
            built.load_state_dict(weights)
            self._remember(key, built.eval())
        found = self._recent[key] = self._recent.pop(key)  # now the last that would be forgotten
        return found

    def train(self, candidate: Candidate) -> Trained:
        """Prune the parent to the candidate and fine-tune it, unless that was done before."""
        known = self._store.trained(candidate.key)
        if known is not None:
            return known
        began = time.monotonic()
        module, gone = self._pruned(candidate)
        if candidate.parent is not None:
            # Channels that were pruned in an earlier step are trained on for longer.
            training, rows = (self._training, self._few) if gone else (self._longer, self._rows.train)
            teacher = None if training.loss == "labels" else self.teacher
            train(module, training, rows, None, teacher=teacher, run=TrainingRun(augment=self._augment))
        found = Trained(self.score(module), self._loss(module))
        self._write(candidate.key, module, candidate.parent, gone)
        self._store.add_trained(candidate.key, found, time.monotonic() - began)
        return found

    def score(self, module: nn.Module) -> float:
        """Accuracy on the validation rows; without labels the share of rows that are answered as the start
        answers them.
        """
        validation = self._rows.validation
        with evaluation_mode(module):
            if validation.y is not None:
                return accuracy(module, validation)
            with torch.no_grad(), evaluation_mode(self.start):
                answers = [
                    self.start(torch.from_numpy(validation.x[i : i + 512])).argmax(-1)
                    for i in range(0, len(validation), 512)
                ]
            return accuracy(module, Labelled(validation.x, torch.cat(answers).numpy()))

    def untrained(self, channels: Mapping[str, int]) -> nn.Module:
        """The start pruned by L2 magnitude to these channels: a network to lower and measure, not to use."""
        module = copy.deepcopy(self.start)
        for group in self._channel_groups:
            keep = channels[group.name]
            if keep < group.channels:
                values = channel_importance(self.start, group, "l2", self.example)
                remove_channels(module, group.name, least_important(values, group, keep), self.example)
        return module.eval()

    def _loss(self, module: nn.Module) -> float:
        """Mean of the short trainings' loss over the validation rows."""
        validation, config = self._rows.validation, self._training
        labelled = validation.y is not None
        loss = loss_function(
            config.loss if labelled else "distillation",
            teacher=self.teacher,
            temperature=config.temperature,
            label_weight=config.label_weight,
        )
        total = 0.0
        with torch.no_grad(), evaluation_mode(module), evaluation_mode(self.teacher):
            for i in range(0, len(validation), 512):
                inputs = torch.from_numpy(validation.x[i : i + 512])
                labels = None if validation.y is None else torch.from_numpy(validation.y[i : i + 512])
                total += float(loss(inputs, module(inputs), labels)) * len(inputs)
        return total / len(validation)

    def _pruned(self, candidate: Candidate) -> tuple[nn.Module, Removal]:
        """A copy of the parent without the channels that the candidate lacks, and those."""
        if candidate.parent is None:
            return copy.deepcopy(self.start), {}
        parent = self.module(candidate.parent)
        wanted = dict(candidate.channels)
        gone = {
            group.name: least_important(
                self._importances(candidate.parent, parent, group), group, wanted[group.name]
            )
            for group in channel_groups(parent, self.example)
            if wanted.get(group.name, group.channels) != group.channels
        }
        module = copy.deepcopy(parent)
        self._remove(module, gone)
        return module, gone

    def _remove(self, module: nn.Module, gone: Removal) -> None:
        for group, channels in gone.items():
            remove_channels(module, group, channels, self.example)

    def _importances(self, key: str, parent: nn.Module, group: ChannelGroup) -> npt.NDArray[np.float64]:
        """Importances of a group's channels in the parent, (channels,).

        Gradients are taken once for all of its groups.
        """
        if self._importance == "taylor" and self._ranked != key:
            rows = self._few
            part = Labelled(rows.x[:GRADIENT_ROWS], None if rows.y is None else rows.y[:GRADIENT_ROWS])
            accumulate_gradients(parent, part, teacher=self.teacher)
            self._ranked = key
        return channel_importance(parent, group, self._importance, self.example)

    def _write(self, key: str, module: nn.Module, parent: str | None, gone: Removal) -> None:
        removal = {"parent": parent, "channels": {group: list(indices) for group, indices in gone.items()}}
        state = {name: value.contiguous() for name, value in module.state_dict().items()}
        atomic_write(self._folder / f"{key}.safetensors", safetensors.torch.save(state))
        atomic_write(self._folder / f"{key}.json", (json.dumps(removal) + "\n").encode())
        self._removals[key] = (parent, gone)
        self._remember(key, module.eval())

    def _removal(self, key: str) -> tuple[str | None, Removal]:
        if key not in self._removals:
            values = json.loads((self._folder / f"{key}.json").read_text())
            gone = {group: tuple(channels) for group, channels in values["channels"].items()}
            self._removals[key] = (values["parent"], gone)
        return self._removals[key]

    def _remember(self, key: str, module: nn.Module) -> None:
        self._recent[key] = module
        while len(self._recent) > 32:
            self._recent.pop(next(iter(self._recent)))


def search_networks(
    source: TorchSource,
    rows: Rows,
    store: SearchStore,
    folder: Path,
    settings: Settings,
    augment: Augment | None,
) -> Networks:
    """The networks of a search with these settings; proposals train on some of the rows only.

    Raises:
        UsageError: the model has no channels that could be removed.
    """
    chosen = np.random.default_rng(settings.seed).permutation(len(rows.train))[: settings.short_rows]
    fewer = Labelled(rows.train.x[chosen], None if rows.train.y is None else rows.train.y[chosen])
    short = settings.training(
        epochs=settings.short_epochs,
        learning_rate=settings.learning_rate,
        labelled=rows.train.y is not None,
    )
    networks = Networks(
        source.module,
        source.example,
        rows,
        store,
        folder,
        few=fewer,
        training=short,
        longer=replace(short, epochs=settings.long_epochs),
        importance=settings.importance,
        multiple_of=settings.multiple_of,
        augment=augment,
    )
    if not networks.groups:
        raise UsageError("the model has no channels that could be removed")
    return networks


def _unit(group: ChannelGroup, multiple_of: int) -> int:
    """Channels that go at once: what the group's slices ask for, and the wanted multiple where it fits."""
    import math

    unit = math.lcm(group.slices, multiple_of)
    return unit if unit < group.channels else group.slices
