"""The search problem of a torch module on a board: predictions, short trainings and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import DEFAULT_IMPORT, Model, TorchProgram
from edgekit.errors import UsageError
from edgekit.optimization.board import MeasuringBoard
from edgekit.search.predictor import Predictor
from edgekit.search.problem import Candidate, Group, Measured, Prediction, Trained
from edgekit.search.shapes import Design, NetworkShapes, OperatorKey
from edgekit.search.store import DESIGNS_SOURCE, LatencyTable, SearchStore

if TYPE_CHECKING:
    from torch import nn

    from edgekit.compiler.program import Program, Step
    from edgekit.compress.training import Labelled
    from edgekit.optimization.networks import Networks
    from edgekit.optimization.settings import Guide

__all__ = ["TorchProblem"]

DESIGNS = 14
"""Networks that are lowered to learn the operators' shapes and to choose the points that are measured."""

SHAPE_ROWS = 4
"""Rows that choose the scales of networks whose answers nobody reads."""

MEASURED_ROWS = 64
"""Calibration rows of a candidate that is measured; its cost hardly hangs on its scales."""


class TorchProblem:
    """See `edgekit.search.problem.Problem`; `measure` is what strategies are given besides."""

    def __init__(
        self,
        networks: Networks,
        calibration: Labelled,
        store: SearchStore,
        table: LatencyTable,
        board: MeasuringBoard,
        *,
        name: str,
        guide: Guide,
        seed: int,
    ) -> None:
        self.networks = networks
        self.board = board
        self._calibration, self._store, self._table = calibration, store, table
        self._name, self._guide, self._seed = name, guide, seed
        self._predictor: Predictor | None = None
        self._shapes: NetworkShapes | None = None

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.networks.groups

    # --- what strategies ask --------------------------------------------------------------------------------

    def predict(self, candidate: Candidate) -> Prediction:
        if self._guide == "macs":
            return self._macs(candidate)
        assert self._predictor is not None, "learn() comes first"
        return self._predictor.predict(candidate)

    def train(self, candidate: Candidate) -> Trained:
        return self.networks.train(candidate)

    def measure(self, candidate: Candidate) -> Measured:
        """What the candidate costs end to end, measured once however often it is asked."""
        found = self._store.measured(candidate.key)
        if found is None:
            if candidate.parent is not None:
                self.networks.train(candidate)
            module = self.networks.module(candidate.key if candidate.parent is not None else None)
            found = self._measure(candidate.key, self.lower(module, MEASURED_ROWS))
        if self._predictor is not None:
            # Also what was measured before a kill is learned now, when it would have been.
            self._predictor.learn(self._store.points(candidate.key))
            if candidate.parent is None:
                self._predictor.overhead += found.cost - self._predictor.predict(candidate).cost
        return found

    def start(self) -> Candidate:
        """The network as it is."""
        return Candidate(tuple((group.name, group.channels) for group in self.groups))

    def smallest(self) -> Candidate:
        """Every group at its fewest channels."""
        return Candidate(tuple((group.name, group.unit) for group in self.groups), "smallest")

    def measure_smallest(self) -> Measured:
        """What the smallest network costs; it is not trained for that."""
        candidate = self.smallest()
        known = self._store.measured(candidate.key)
        if known is not None:
            return known
        module = self.networks.untrained(dict(candidate.channels))
        return self._measure(candidate.key, self.lower(module, SHAPE_ROWS))

    def _measure(self, key: str, program: Program) -> Measured:
        found, _, costs = self.board.measure_program(program, "candidate")
        self._table.add((one.key, one.schedule, one.cost) for one in costs)
        self._store.add_measured(key, found, [(one.key, one.cost) for one in costs])
        return found

    # --- the table ------------------------------------------------------------------------------------------

    def learn(self) -> int:
        """Measure the operators of a few pruned networks, where the table has not got them; returns how many.

        Raises:
            UsageError: the operators of pruned networks don't follow from their channels.
        """
        count = 0
        if not self._store.designs():
            count = self._measure_designs()
        try:
            self._shapes = NetworkShapes([group.name for group in self.groups], self._store.designs())
        except ValueError as error:
            raise UsageError(
                f"the costs of pruned networks can't be predicted: {error}",
                hint="edgekit compress prunes to a share that you choose",
            ) from error
        if self._guide == "measurements":
            self._predictor = Predictor(self._shapes)
            self._predictor.learn(self._store.points(DESIGNS_SOURCE))
        return count

    def _measure_designs(self) -> int:
        """Lower a few networks, measure what the table lacks of their operators, and keep what this search
        goes by; returns how many were measured.
        """
        designs: list[Design] = []
        steps: dict[OperatorKey, tuple[Program, Step]] = {}
        for channels in self._designs():
            program = self.lower(self.networks.untrained(channels), SHAPE_ROWS)
            designs.append(Design(channels, _keys(program)))
            for step, key in zip(program.steps, designs[-1].operators, strict=True):
                steps.setdefault(key, (program, step))
        count = 0
        if self._guide == "measurements":
            wanted = [steps[key] for key in steps if key.channels not in self._table.points(key.kind)]
            for costs in self.board.measure_operators(wanted):
                self._table.add((one.key, one.schedule, one.cost) for one in costs)
                count += len(costs)
        known = {kind: self._table.points(kind) for kind in {key.kind for key in steps}}
        self._store.add_designs(
            designs,
            [(key, known[key.kind][key.channels]) for key in steps if key.channels in known[key.kind]],
        )
        return count

    def _designs(self) -> list[Mapping[str, int]]:
        """Channels of the networks to lower: the start, even shares of it, and seeded random ones."""
        rng = np.random.default_rng(self._seed)
        choices = {group.name: _counts(group) for group in self.groups}
        start = {group.name: group.channels for group in self.groups}
        designs: list[Mapping[str, int]] = [start]
        designs += [
            {name: _nearest(counts, share * start[name]) for name, counts in choices.items()}
            for share in (0.75, 0.5, 0.25)
        ]
        while len(designs) < max(DESIGNS, len(self.groups) + 4):
            designs.append({name: int(rng.choice(counts)) for name, counts in choices.items()})
        return designs

    def lower(self, module: nn.Module, calibration_rows: int) -> Program:
        """The integer program of a module, its scales from that many calibration rows."""
        from edgekit.compiler import lower_model

        return lower_model(self.quantized(module, calibration_rows))

    def quantized(self, module: nn.Module, calibration_rows: int) -> Model:
        """The module in int8, after training."""
        from edgekit.frontend import load_model

        rows = self._calibration.x[:calibration_rows]
        return load_model(
            TorchProgram(module, self.networks.example, self._name), DEFAULT_IMPORT, calibration=[rows]
        )

    def _macs(self, candidate: Candidate) -> Prediction:
        assert self._shapes is not None, "learn() comes first"
        macs = float(sum(_macs_of(key) for key in self._shapes.operators(dict(candidate.channels))))
        return Prediction(macs, macs, macs)


def _counts(group: Group) -> list[int]:
    return list(range(group.channels, 0, -group.unit))


def _nearest(counts: Sequence[int], wanted: float) -> int:
    return min(counts, key=lambda count: abs(count - wanted))


def _keys(program: Program) -> tuple[OperatorKey, ...]:
    from edgekit.compiler.probe import channels_of, operator_kind

    return tuple(
        OperatorKey(operator_kind(program, step), channels_of(program, step)) for step in program.steps
    )


def _macs_of(key: OperatorKey) -> int:
    """Multiply-accumulates by an operator's key: window times positions times channels."""
    import math
    import re

    window = re.search(r" k(\d+)x(\d+) ", key.kind)
    shapes = re.findall(r"\[([\d,]*)\]", key.kind)
    positions = math.prod(int(size) for size in shapes[-1].split(",") if size)
    if key.kind.startswith(("conv2d", "depthwise_conv2d")) and window is not None:
        return positions * int(window[1]) * int(window[2]) * math.prod(key.channels)
    if key.kind.startswith("dense"):
        return positions * math.prod(key.channels)
    return 0
