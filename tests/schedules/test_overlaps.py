"""Kernels answer the same when their outputs lie over their inputs as far as they declare, on a Cortex-M4.

The plan is replaced by one that packs each operator as tightly as its `Overlap` and the alignment allow; what
an arena's plan would rarely need is so tried for every variant.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekit.compiler import compile as compilation, operators as op
from edgekit.compiler.memory import Plan
from edgekit.compiler.program import Program
from edgekit.compiler.schedules import Overlap
from edgekit.target import load_target
from tests.campaign import campaign_count
from tests.schedules.batch import Network, answers_on_board, answers_on_host, program_of, variant_names
from tests.schedules.cases import OPERATORS, case

pytestmark = pytest.mark.emulator

COPY = op.Requantize(0, 0, None, op.FullRange)
EACH = campaign_count(5, 2)
"""Cases of an operator in one image: with all variants of all operators no more outputs than an agent has."""


def copied(network: Network) -> Network:
    """The same operator on copies of its inputs, which lie in the arena and die there."""
    ((operator, read, shape),) = network.operators
    count = len(network.inputs)
    copies = tuple((COPY, (number,), values.shape) for number, values in enumerate(network.inputs))
    return Network(
        network.inputs, (*copies, (operator, tuple(count + number for number in read), shape)), network.note
    )


def tightest(
    program: Program, workspaces: Sequence[Sequence[int]], overlaps: Sequence[Sequence[Overlap]]
) -> Plan:
    """All apart, but for each operator's output and the input that it may lie over."""
    offsets: dict[int, int] = {program.tensors[tensor].storage: 16 * tensor for _, tensor in program.inputs}
    top = 1024
    placed: dict[tuple[int, int], int] = {}
    shared = set()

    def put(storage: int, size: int, at: int) -> None:
        nonlocal top
        offsets[storage] = at
        top = max(top, -(-(at + size) // 16) * 16)

    # From the last to the first, so that an operator's input is placed with its output.
    for position in reversed(range(len(program.steps))):
        step = program.steps[position]
        output = program.tensors[step.output]
        for overlap in overlaps[position][-1:]:
            source = program.tensors[step.inputs[overlap.operand]]
            below = -(-overlap.distance // 16) * 16
            if source.data is None and not {source.storage, output.storage} & set(offsets):
                base = top
                put(output.storage, output.size_bytes, base + max(0, -below))
                put(source.storage, source.size_bytes, base + max(0, below))
                shared.add(position)
        if output.storage not in offsets:
            put(output.storage, output.size_bytes, top)
        for index, size in enumerate(workspaces[position]):
            placed[position, index] = top
            top += -(-size // 16) * 16
    return Plan(top, 0, offsets, placed, frozenset(shared), ())


@pytest.mark.parametrize("batch", range(campaign_count(12, 1)))
def test_variants_answer_the_same_with_outputs_over_inputs(
    batch: int, emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target(emulator)
    first = 700 + batch * EACH
    cases = [case(operator, seed) for operator in sorted(OPERATORS) for seed in range(first, first + EACH)]
    expected = answers_on_host(cases, tmp_path / "host")
    named = [(number, name) for number, each in enumerate(cases) for name in variant_names(each, target)]
    networks = [copied(cases[number]) for number, _ in named]
    outputs = [tensor for _, tensor in program_of(networks).outputs][1:]
    choices = {tensor: name for tensor, (_, name) in zip(outputs, named, strict=True)}
    plans: list[Plan] = []

    def planned(*arguments: object) -> Plan:
        plans.append(tightest(*arguments))  # type: ignore[arg-type]
        return plans[-1]

    monkeypatch.setattr(compilation, "plan_memory", planned)
    # Joins, slices and pads are to be kernels, and every tensor a storage of its own.
    monkeypatch.setattr(compilation, "share_memory", lambda program: program)
    monkeypatch.setattr(compilation, "interleave", lambda program, _: program)
    answers = answers_on_board(networks, target, tmp_path / "board", choices=choices)
    assert len(plans[0].shared_steps) > len(named) // 2
    for (number, name), answer in zip(named, answers, strict=True):
        np.testing.assert_array_equal(answer, expected[number], err_msg=f"{name} {cases[number].note}")
